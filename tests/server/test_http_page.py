"""The requests and the code of docs/HTTP.md, against a real front end."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kt_es.errors import KtError
from kt_es.server.limits import DEFAULT_LIMITS
from kt_es.server.responses import too_many
from tests import builders as b
from tests.reference.frontends import Front, front_with_alice
from tools import openapi

PAGE = (Path(__file__).parents[2] / "docs/HTTP.md").read_text()
SERVER = "https://kt.example.org"
ALICE, NOBODY = b.label_of("alice"), b.label_of("nobody")


def examples() -> Iterator[tuple[str, str]]:
    """Each command with the answer that stands below it."""
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for part in block.split("$ curl -i ")[1:]:
            command, _, answer = part.partition("\n")
            yield command, answer.strip()


@pytest.fixture(scope="module")
def running() -> Iterator[Front]:
    with front_with_alice() as made:
        yield made


def body_of(text: str) -> str:
    """The body of a request, with bob's first mutation where the page has a word in capitals."""
    values = {
        "MUTATION": b.mutation("bob").encode(),
        "OPENING": b.opening("bob"),
        "PROFILE": b.profile("bob"),
    }
    for name, data in values.items():
        text = text.replace(f'"{name}"', json.dumps(base64.b64encode(data).decode()))
    return text


def matches(shown: Any, told: Any) -> bool:
    """Whether ``told`` is what the page shows, where ``...`` ends what is shown of a text."""
    if isinstance(shown, dict):
        same = isinstance(told, dict) and shown.keys() == told.keys()
        return same and all(matches(shown[name], told[name]) for name in shown)
    if isinstance(shown, list):
        same = isinstance(told, list) and len(shown) == len(told)
        return same and all(matches(*pair) for pair in zip(shown, told, strict=True))
    if isinstance(shown, str) and shown.endswith("..."):
        return isinstance(told, str) and told.startswith(shown.removesuffix("..."))
    return bool(shown == told)


@pytest.mark.parametrize(("command", "shown"), list(examples()))
def test_the_page_shows_what_is_answered(running: Front, command: str, shown: str) -> None:
    address, *options = shlex.split(command)
    path = address.removeprefix(SERVER)
    if options:
        assert options[::2] == ["-H", "-d"]
        name, value = options[1].split(": ")
        answer = running.request("POST", path, content=body_of(options[3]), headers={name: value})
    else:
        answer = running.get(path)
    head, _, body = shown.partition("\n\n")
    status, *headers = head.splitlines()
    assert status.split()[1] == str(answer.status_code), answer.text
    for header in headers:
        name, value = header.split(": ")
        assert answer.headers[name] == value
    assert matches(json.loads(body), answer.json()), answer.text


def test_every_route_is_on_the_page() -> None:
    paths = set(json.loads(openapi.FILE.read_text())["paths"]) - {"/healthz", "/readyz", "/metrics"}
    for path in paths:
        assert path.replace("{epoch}", "1").replace("{tile}", "0/000.p/1") in PAGE


def test_the_code_proves_presence_and_absence_and_nothing_that_was_changed(running: Front) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/HTTP.md", "exec"), names)
    check, key = names["check"], b.SIGNER_KEY.raw
    directory = running.get("/v1/directory").json()
    found, absent = (running.post("/v1/lookup", {"label": label}).json() for label in (ALICE, NOBODY))
    assert check(directory, found, ALICE, key)
    assert not check(directory, absent, NOBODY, key)
    with pytest.raises(KtError):
        check(directory, found, NOBODY, key)
    with pytest.raises(AssertionError, match="config"):
        check(directory, found, ALICE, b.public(b.private_key("stranger")).raw)
    with pytest.raises(AssertionError, match="commitment"):
        check(directory, {**found, "profile": "AAAA"}, ALICE, key)


def test_the_page_names_the_limits_of_the_code() -> None:
    limits = DEFAULT_LIMITS
    text = " ".join(PAGE.split())
    assert f"{limits.address_rate:.0f} lookups a second and {limits.address_connections} connections" in text
    assert f"{limits.network_rate:.0f} and {limits.network_connections} for a network" in text
    problem = too_many(1.5)
    assert (problem.status, problem.answer.more) == (429, [(b"retry-after", b"2")])
    assert f"| {problem.status} | `{problem.reason}` |" in PAGE
