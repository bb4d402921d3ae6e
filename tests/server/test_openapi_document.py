"""docs/openapi.json is that of the code, answers are as it declares them, and no problem names a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kt_es.errors import AccessDeniedError, KtError, UnavailableError
from kt_es.server import appender, limits
from kt_es.server.contract import models
from kt_es.server.responses import without_streams
from tests import builders as b
from tests.reference.frontends import Front, erasure, front, submission
from tests.reference.signed_streams import SignedStreams
from tools import openapi

ALICE = {"label": b.label_of("alice")}


class FailingLog:
    """A log whose methods raise ``error`` while it is set; the sentence names the stream."""

    def __init__(self, streams: SignedStreams) -> None:
        self._log = streams.log
        self.error: type[KtError] | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._log, name)

        def call(*args: object, **options: object) -> object:
            if self.error is None:
                return method(*args, **options)
            stream = str(args[0]) if args else "kt_heads-people"
            sentence = f"{name} of {stream} and of $${stream}"
            if self.error is AccessDeniedError:
                raise AccessDeniedError(sentence, stream, "$w")
            raise self.error(sentence)

        return call if callable(method) else method


@pytest.fixture
def log(streams: SignedStreams) -> FailingLog:
    return FailingLog(streams)


@pytest.fixture
def running(streams: SignedStreams, log: FailingLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(appender, "DEADLINE", 0.0)
    with front(streams, made=Front(streams, connect=lambda: log)) as made:
        yield made
        log.error = None


def ask_everything(running: Front) -> list[tuple[str, httpx.Response]]:
    """An answer of every route, with its path in the document, and refusals of many kinds."""
    posts = [
        ("/v1/lookup", ALICE),
        ("/v1/lookup", {**ALICE, "epoch": 1, "since": 1}),
        ("/v1/lookup", {"label": b.label_of("nobody"), "profile": False}),
        ("/v1/lookup", {"label": "kt_queue-people"}),
        ("/v1/lookup", {**ALICE, "epoch": 99}),
        ("/v1/lookup", {**ALICE, "since": 99}),
        ("/v1/history", {**ALICE, "profiles": True}),
        ("/v1/range", {**ALICE, "first": 1, "last": 1}),
        ("/v1/range", {**ALICE, "first": 2, "last": 1}),
        ("/v1/mutations", submission("alice")),
        ("/v1/mutations", {**submission("bob"), "mutation": "?"}),
        ("/v1/mutations", {**submission("bob"), "opening": ""}),
        ("/v1/mutations", submission("carol")),
        ("/v1/erasures", erasure("alice")),
        ("/v1/erasures", erasure("bob")),
        ("/v1/erasures", {"erasure": "AAAA"}),
        ("/v1/registration/mail", {"label": b.label_of("bob"), "binding": "AAAA"}),
    ]
    gets = [
        ("/v1/directory", "/v1/directory"),
        ("/v1/heads/latest", "/v1/heads/latest"),
        ("/v1/heads/{epoch}", "/v1/heads/1"),
        ("/v1/heads/{epoch}", "/v1/heads/99"),
        ("/v1/consistency", "/v1/consistency?log=heads&from=1&to=1"),
        ("/v1/consistency", "/v1/consistency?log=heads&from=1&to=99"),
        ("/v1/registration", "/v1/registration"),
        ("/heads/checkpoint", "/heads/checkpoint"),
        ("/mutations/checkpoint", "/mutations/checkpoint"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/metrics", "/metrics"),
    ]
    answers = [(path, running.post(path, body)) for path, body in posts]
    return answers + [(path, running.get(asked)) for path, asked in gets]


def check_declared(path: str, answer: httpx.Response) -> None:
    """The status, content type and body of ``answer`` are those of the document."""
    (operation,) = json.loads(openapi.FILE.read_text())["paths"][path].values()
    declared = operation["responses"]
    content = declared[str(answer.status_code)]["content"]
    media = answer.headers["content-type"].partition(";")[0]
    assert media in content, (path, answer.status_code, media)
    if media == "text/plain":
        return
    name = content[media]["schema"]["$ref"].rpartition("/")[2]
    model = models()[name]
    # As it is dumped again, so no member is missing, superfluous or of another type.
    assert (
        model.model_validate_json(answer.content, strict=True).model_dump(exclude_unset=True) == answer.json()
    )


def test_the_document_is_that_of_the_code() -> None:
    assert openapi.FILE.read_text() == openapi.document(), "write docs/openapi.json anew: make openapi"


@pytest.mark.parametrize("error", [None, AccessDeniedError, UnavailableError])
def test_answers_are_declared_and_problems_name_no_stream(
    running: Front, log: FailingLog, error: type[KtError] | None
) -> None:
    log.error = error
    answers = ask_everything(running)
    answers += [] if error is None else ask_everything(running)
    statuses = set()
    for path, answer in answers:
        check_declared(path, answer)
        statuses.add(answer.status_code)
        if answer.status_code >= 400:
            assert "kt_" not in answer.text, (path, answer.text)
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
    assert {200, 400, 403, 404, 503} <= statuses
    assert (202 in statuses) == (error is None)


def test_readyz_names_no_stream_while_the_log_fails(running: Front, log: FailingLog) -> None:
    log.error = UnavailableError
    running.running.watch.probe()
    answer = running.get("/readyz")
    check_declared("/readyz", answer)
    assert (answer.status_code, "kt_" in answer.text) == (503, False)
    assert answer.json()["problems"] == [
        "the event log cannot be reached; the log of this front end says why"
    ]


def test_a_full_front_end_answers_as_declared(running: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 0)
    answer = running.post("/v1/lookup", ALICE)
    check_declared("/v1/lookup", answer)
    assert answer.status_code == 503


@pytest.mark.parametrize("name", ["queue", "mutations", "heads"])
def test_every_stream_of_a_directory_is_hidden(streams: SignedStreams, name: str) -> None:
    stream = getattr(streams.names, name)
    opening = streams.names.openings(b.index("alice"))
    for text in (stream, f"$${stream}", opening, f"$${opening}"):
        assert without_streams(f"append to {text}: no.") == "append to a stream of the event log: no."
