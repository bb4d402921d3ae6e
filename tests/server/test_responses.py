"""What a front end says to strangers names nothing of the inside: no stream, no host, no path, no user."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es import errors
from kt_es.errors import AccessDeniedError, KtError, MalformedError, RefusedError
from kt_es.server import appender, responses
from kt_es.server.responses import NotNowError, problem_of
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams
from tests.server.test_openapi_document import ask_everything

SERVER = Path(responses.__file__).parent
INSIDE = (
    "append to kt_queue-people and $$kt_openings-people-00: failed to connect to "
    "esdb://operator-7:s3cret-7@db1.inside:2113 (ipv4:10.1.2.3:2113), certificate /etc/kt-es/ca.pem, "
    "data /var/lib/kt-es/frontend/000012.sst"
)
# With a character that base64 does not have, so that no proof has one by chance.
NAMED = ("kt_", "10.1.2.3", "db1.", ":2113", "/kt-es", "s3cret-7", "operator-7", ".sst", "esdb:")

# Their sentences are about the request, and made where the front end judges it: see the test of their places.
FOR_CLIENTS = (RefusedError, MalformedError, NotNowError)


def names_inside(text: str) -> list[str]:
    return [name for name in NAMED if name in text]


def all_kinds(kind: type[KtError] = KtError) -> Iterator[type[KtError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from all_kinds(each)


KINDS = [kind for kind in sorted(set(all_kinds()), key=str) if not issubclass(kind, FOR_CLIENTS)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_error_of_the_inside_is_shown(kind: type[KtError]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, INSIDE)
    # As their constructors would: each has some of these.
    for name, value in {
        "stream": "kt_queue-people",
        "right": "$w",
        "retry_after": 2.0,
        "problem": INSIDE,
    }.items():
        setattr(error, name, value)
    problem = problem_of(error)
    assert problem.status in {500, 503}
    assert names_inside(problem.encode().decode()) == []


def test_a_denied_right_is_reported_without_its_stream() -> None:
    told = [
        problem_of(AccessDeniedError(INSIDE, stream, right)).detail
        for stream, right in [("kt_heads-people", "$r"), ("db1.inside", "$w"), ("$all", "$r"), ("", "")]
    ]
    assert told == [
        f"{reason}; try again later"
        for reason in (
            "the right $r to a stream of the event log is missing",
            "the right $w to a stream of the event log is missing",
            "the right $r to $all is missing",
            "the event log refuses the user of this front end",
        )
    ]


class Inside:
    """A log whose errors tell everything about it."""

    def __init__(self, streams: SignedStreams) -> None:
        self._log = streams.log
        self.error: type[KtError] | None = None

    def __getattr__(self, name: str) -> object:
        method = getattr(self._log, name)

        def call(*arguments: object, **options: object) -> object:
            if self.error is AccessDeniedError:
                raise AccessDeniedError(INSIDE, "kt_queue-people", "$w")
            if self.error is not None:
                raise self.error(INSIDE)
            return method(*arguments, **options)

        return call if callable(method) else method


@pytest.mark.parametrize(
    "error", [errors.UnavailableError, errors.MisfitError, AccessDeniedError, errors.StreamGoneError]
)
def test_whatever_the_log_answers_nobody_sees_it(
    error: type[KtError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "DEADLINE", 0.0)
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    log = Inside(streams)
    with front(streams, made=Front(streams, connect=lambda: log)) as running:  # type: ignore[arg-type, return-value]
        log.error = error
        answers = ask_everything(running)
        if issubclass(error, errors.UnavailableError | AccessDeniedError):
            running.running.watch.probe()
            until(lambda: running.get("/readyz").status_code == 503)
        answers += ask_everything(running)
        log.error = None
    assert any(answer.status_code >= 500 for _, answer in answers)
    for path, answer in answers:
        # Metrics are about the front end itself; the origin of a directory is public.
        said = answer.text.replace(b.ORIGIN, "")
        assert names_inside(said) == [] or path == "/metrics", (path, said)


# --- what sentences for clients are made of ------------------------------------------------------

# Limits, counts and epochs; parameters' names; sentences of checks of what the request holds; denials.
MAY_BE_NAMED = {
    "AWAY", "MAX_COSIGNED_NOTE", "MAX_ERASURE", "MAX_HEAD", "MAX_HEADERS", "MAX_MUTATION", "MAX_PROFILE",
    "MAX_RANGE", "STORE_ROWS", "committed.epoch", "committed.heads.size", "first", "items", "last",
    "last - first + 1", "error.problem", "log", "only", "part", "place", "problem", "seen[name]",
    "request.route.body", "self.why_no_epoch()", "self.limit", "since",
}  # fmt: skip


def sentences() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the front end that makes an error or problem with words for clients."""
    makers = {"Problem", "http_problem", *(kind.__name__ for kind in FOR_CLIENTS)}
    for path in sorted(SERVER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in makers:
                yield f"{path.name}:{node.lineno}", node


def test_sentences_for_clients_name_limits_and_epochs_alone() -> None:
    found = list(sentences())
    assert len(found) > 25
    for where, call in found:
        for node in ast.walk(call):
            if isinstance(node, ast.FormattedValue):
                assert ast.unparse(node.value) in MAY_BE_NAMED, (where, ast.unparse(node.value))
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert names_inside(node.value) == [], where


def test_problems_of_requests_are_declared_json() -> None:
    problem = problem_of(RefusedError("malformed", "is not base64 with padding", "mutation"))
    assert json.loads(problem.encode()) == {
        "type": "urn:kt-es:problem:malformed",
        "title": "Bad Request",
        "status": 400,
        "detail": "is not base64 with padding",
        "reason": "malformed",
        "field": "mutation",
    }
