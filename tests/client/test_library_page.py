"""The code of docs/LIBRARY.md, taken from the page and run against a real front end."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from kt_es.client import AsyncClient, Change, Client, FileStateStore, Pinned
from kt_es.errors import KtError, NoQuorumError
from kt_es.formats.cosignatures import cosigner_key
from kt_es.formats.entries import ProfileKey
from kt_es.server.limits import DEFAULT_LIMITS
from tests import builders as b
from tests.reference.clients import changed, client_of
from tests.reference.clocks import Pauses
from tests.reference.directory import Directory
from tests.reference.doors import door
from tests.reference.frontends import front
from tests.reference.signed_streams import SignedStreams

PAGE = Path(__file__).parents[2] / "docs/LIBRARY.md"
VKEY = Pinned(b.ORIGIN, b.SIGNER_KEY).vkey
ALICE, BOB = b.label_of("alice"), b.label_of("bob")


BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page() -> SimpleNamespace:
    """What the page's code defines."""
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture
def streams() -> SignedStreams:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    return streams


@pytest.fixture
def url(streams: SignedStreams, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A front end. The directory of the tests lives in 2024, and so does the clients' clock."""
    clock = SimpleNamespace(time_ns=lambda: (b.START + 1_000) * 1_000_000, monotonic=time.monotonic)
    monkeypatch.setattr("kt_es.process.clock.time", clock)
    with (
        front(streams) as running,
        streams.signing(),
        door(running.running.app, DEFAULT_LIMITS) as server,
    ):
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def client(page: SimpleNamespace, url: str, tmp_path: Path) -> Iterator[Client]:
    with page.open_client(url, VKEY, tmp_path) as made:
        yield made


def test_the_code_is_typed(tmp_path: Path) -> None:
    """As somebody else's project would check it: strictly, against the types of the package."""
    path = tmp_path / "page.py"
    path.write_text("\n".join(BLOCKS))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(path)]
    done = subprocess.run(
        command, cwd=PAGE.parents[1], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_lookups_and_absence(page: SimpleNamespace, client: Client) -> None:
    assert [key.name for key in page.keys_of(client, ALICE)] == ["laptop"]
    assert page.keys_of(client, BOB) is None


def test_a_quorum_that_is_not_there(page: SimpleNamespace, url: str, tmp_path: Path) -> None:
    vkey = cosigner_key("witness.example/w1", b.private_key("witness").public)
    client = page.careful(url, VKEY, tmp_path, f"witness w1 {vkey}\nquorum w1\n")
    with client, pytest.raises(NoQuorumError, match="no quorum w1 of witnesses"):
        client.lookup(ALICE)


def test_lookups_at_the_same_time(page: SimpleNamespace, url: str, tmp_path: Path) -> None:
    alice, bob = asyncio.run(page.keys_of_all(url, VKEY, tmp_path, [ALICE, BOB]))
    assert [key.name for key in alice] == ["laptop"]
    assert bob is None


def test_watching_from_asyncio(
    page: SimpleNamespace, url: str, tmp_path: Path, streams: SignedStreams
) -> None:
    told: list[Change] = []
    stranger = b.private_key("stranger")

    async def watch() -> int:
        async with AsyncClient(url, FileStateStore(tmp_path), pinned=Pinned.parse(VKEY)) as client:
            epoch: int = await client.run(lambda sync: page.watch(sync, ALICE, stranger, told.append))
            return epoch

    assert asyncio.run(watch()) >= 1
    assert [(change.label, change.mine) for change in told] == [(ALICE, False)]


def test_publishing_and_watching(page: SimpleNamespace, client: Client, streams: SignedStreams) -> None:
    told: list[Change] = []
    key, stranger = b.private_key("bob"), b.private_key("stranger")
    assert page.publish(client, BOB, [ProfileKey("laptop", "raw", b"one")], key) == 1
    assert page.publish(client, BOB, [ProfileKey("laptop", "raw", b"two")], key) == 2
    assert page.keys_of(client, BOB) == (ProfileKey("laptop", "raw", b"two"),)
    assert page.watch(client, BOB, key, told.append) == 3
    assert told == []
    # To somebody with another key the same versions are an alarm.
    page.watch(client, ALICE, stranger, told.append)
    assert [(change.label, change.mine) for change in told] == [(ALICE, False)]


def directory_of(*users: str) -> Directory:
    directory = Directory()
    for user in users:
        directory.put_user(user)
    directory.advance()
    return directory


def error_of(client: Client, label: str = ALICE, **options: Any) -> KtError:
    with pytest.raises(KtError) as found:
        client.lookup(label, **options)
    return found.value


def test_following_the_heads(page: SimpleNamespace, client: Client) -> None:
    class EnoughError(Exception):
        """Ends the iteration."""

    seen: list[int] = []

    def show(epoch: int) -> None:
        seen.append(epoch)
        raise EnoughError

    with pytest.raises(EnoughError):
        page.follow(client, show)
    assert seen == [client.head().head.epoch]


def test_errors_by_class(page: SimpleNamespace, pauses: Pauses) -> None:
    directory = directory_of("alice")
    lying = changed(directory, "/v1/lookup", lambda body: body.update(profile="AAAA"))
    away = httpx.Response(503, headers={"retry-after": "9"})
    found: dict[str, tuple[int, Client, dict[str, Any]]] = {
        "do not use the answer: step commitment failed": (4, client_of(directory, handler=lying), {}),
        "ask again in 9 s": (7, client_of(directory, handler=lambda _: away, timeout=1.0), {}),
        "ask again later, and look at the clock: freshness": (
            7,
            client_of(directory, now=lambda: directory.now + 10**9),
            {},
        ),
        "the directory refuses it: unknown-epoch": (1, client_of(directory), {"epoch": 9}),
        "correct the label, the address, the key or the folder": (2, client_of(directory), {"label": "?"}),
    }
    for advice, (code, client, options) in found.items():
        error = error_of(client, **options)
        assert (page.advice(error), error.exit_code) == (advice, code)


def test_two_faces_are_evidence_and_stay_so(page: SimpleNamespace, tmp_path: Path) -> None:
    store = FileStateStore(tmp_path)
    client_of(directory_of("alice"), store).lookup(ALICE)
    for shown in (directory_of("alice", "bob"), directory_of("alice")):
        error = error_of(client_of(shown, store))
        assert error.exit_code == 5
        (kept,) = (tmp_path / "evidence").iterdir()
        assert page.advice(error) == f"stop using this directory; the evidence is {kept}"
