"""``kt.v1``: grpcio asks a real server each method, and every problem has the reason that HTTP gives it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from kt_es._proto import kt_v1
from kt_es.api.operations import CONSISTENCY, DIRECTORY, LATEST_HEAD, ProblemReason
from kt_es.api.paths import head_path
from kt_es.errors import UnavailableError
from kt_es.formats.entries import MAX_MUTATION, MAX_PROFILE
from kt_es.formats.notes import decode_base64
from kt_es.formats.queue import Verdict
from kt_es.server.grpc.methods import SERVICE
from kt_es.server.grpc.statuses import CODES, status_of
from kt_es.server.responses import Problem, internal_problem, problem_of, too_many
from tests import builders as b
from tests.reference.frontends import erasure, front_with_alice
from tests.reference.grpc_doors import Door, grpc_door, members

ALICE = b.label_of("alice")


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with front_with_alice() as made, grpc_door(made) as door:
        yield door
        assert not made.errors


def check_same(message: Any, body: dict[str, Any]) -> None:
    """Compare an answer with that of HTTP to the same request."""
    for name, value in body.items():
        got = getattr(message, name)
        described = message.DESCRIPTOR.fields_by_name[name]
        if value is None:
            assert not message.HasField(name)
        elif described.type == described.TYPE_BYTES and isinstance(value, list):
            assert list(got) == [decode_base64(item, name) for item in value]
        elif described.type == described.TYPE_BYTES:
            assert got == decode_base64(value, name)
        elif described.type == described.TYPE_MESSAGE:
            assert len(got) == len(value)
            for item, expected in zip(got, value, strict=True):
                # A profile that is not there is null in HTTP, and a message without it here.
                check_same(item, expected if isinstance(expected, dict) else {"profile": expected})
        else:
            assert got == value


READS = [
    ("Describe", {}, "GET", DIRECTORY.path),
    ("Lookup", {"label": ALICE}, "POST", "/v1/lookup"),
    ("Lookup", {"label": ALICE, "since": 1, "epoch": 1}, "POST", "/v1/lookup"),
    ("Lookup", {"label": ALICE, "profile": False}, "POST", "/v1/lookup"),
    ("Lookup", {"label": "nobody@example.org"}, "POST", "/v1/lookup"),
    ("LookupMany", {"labels": [ALICE, "nobody@example.org"], "since": 1}, "POST", "/v1/lookups"),
    ("History", {"label": ALICE}, "POST", "/v1/history"),
    ("History", {"label": ALICE, "profiles": True}, "POST", "/v1/history"),
    ("History", {"label": ALICE, "after": 1}, "POST", "/v1/history"),
    ("Range", {"label": ALICE, "first": 1, "last": 2, "since": 1}, "POST", "/v1/range"),
    ("LatestHead", {}, "GET", LATEST_HEAD.path),
    ("LatestHead", {"since": 2}, "GET", f"{LATEST_HEAD.path}?since=2"),
    ("PastHead", {"epoch": 1}, "GET", head_path(1)),
    ("Consistency", {"log": 1, "from": 1, "to": 2}, "GET", f"{CONSISTENCY.path}?log=heads&from=1&to=2"),
    ("Consistency", {"log": 2, "from": 1, "to": 2}, "GET", f"{CONSISTENCY.path}?log=mutations&from=1&to=2"),
]


@pytest.mark.parametrize(("name", "given", "verb", "path"), READS)
def test_a_reading_method_answers_what_http_answers(
    door: Door, name: str, given: dict[str, Any], verb: str, path: str
) -> None:
    answer = door.front.get(path) if verb == "GET" else door.front.post(path, given)
    assert answer.status_code == 200
    check_same(door.call(name, **given), answer.json())


def test_every_method_is_served_and_no_other(door: Door) -> None:
    for described in SERVICE.methods:
        call: Any = door.channel.stream_stream(f"/{SERVICE.full_name}/{described.name}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\xff"]), timeout=20))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, described.name
    nothing: Any = door.channel.unary_unary(f"/{SERVICE.full_name}/Nothing")
    with pytest.raises(grpc.RpcError) as caught:
        nothing(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


REFUSED = [
    ("Lookup", {"label": "nobody"}, "malformed", "label"),
    ("Lookup", {"label": "x" * 1025}, "malformed", "label"),
    ("Lookup", {"label": ALICE, "epoch": 0}, "malformed", "epoch"),
    ("Lookup", {"label": ALICE, "epoch": 2**63}, "malformed", "epoch"),
    ("Lookup", {"label": ALICE, "epoch": 3}, "unknown-epoch", "epoch"),
    ("Lookup", {"label": ALICE, "since": 3}, "unavailable", None),
    ("Lookup", {"label": ALICE + "x" * 9000}, "oversize", None),
    ("LookupMany", {}, "malformed", "labels"),
    ("LookupMany", {"labels": ["nobody"]}, "malformed", "labels"),
    ("LookupMany", {"labels": [ALICE, ALICE]}, "malformed", "labels"),
    ("LookupMany", {"labels": ["x" * 1025]}, "malformed", "labels"),
    ("LookupMany", {"labels": [f"{number}@example.org" for number in range(1001)]}, "malformed", "labels"),
    ("History", {"label": ""}, "malformed", "label"),
    ("Range", {"label": ALICE, "first": 1}, "malformed", "last"),
    ("Range", {"label": ALICE, "first": 2, "last": 1}, "malformed", None),
    ("Range", {"label": ALICE, "first": 1, "last": 3}, "unknown-epoch", "last"),
    ("LatestHead", {"since": 3}, "unavailable", None),
    ("PastHead", {}, "malformed", "epoch"),
    ("PastHead", {"epoch": 3}, "unknown-epoch", "epoch"),
    ("Consistency", {"from": 1, "to": 2}, "malformed", "log"),
    ("Consistency", {"log": 7, "from": 1, "to": 2}, "malformed", "log"),
    ("Consistency", {"log": 1, "from": 2, "to": 1}, "malformed", "from"),
    ("Consistency", {"log": 1, "from": 1, "to": 3}, "unknown-epoch", "to"),
    ("Tile", {}, "malformed", "log"),
    ("Tile", {"log": 1, "level": 64}, "malformed", "level"),
    ("Tile", {"log": 1, "width": 0}, "malformed", "width"),
    ("Tile", {"log": 1, "width": 3}, "unknown-epoch", "index"),
    ("Tile", {"log": 1, "index": 2**63}, "malformed", "index"),
    ("Tile", {"log": 1, "index": 2**63 - 1, "level": 63}, "unknown-epoch", "index"),
    ("Entries", {"log": 3}, "malformed", "log"),
    ("Entries", {"log": 2, "width": 257}, "malformed", "width"),
    ("Entries", {"log": 2, "width": 1, "skip": 256}, "malformed", "skip"),
    ("Entries", {"log": 2}, "unknown-epoch", "index"),
    ("Submit", {"label": ALICE, "mutation": bytes(MAX_MUTATION + 1)}, "oversize", "mutation"),
    ("Submit", {"label": ALICE, "profile": bytes(MAX_PROFILE + 1)}, "oversize", "profile"),
    ("Submit", {"label": "nobody"}, "malformed", "label"),
    ("Status", {}, "malformed", "mutation"),
    ("Status", {"mutation": "0" * 65}, "malformed", "mutation"),
    ("Status", {"mutation": "0" * 64, "item": "A" * 64}, "malformed", "item"),
    ("Status", {"mutation": "0" * 64, "since": 3}, "unavailable", None),
    ("Erase", {}, "malformed", "erasure"),
    ("Erase", {"erasure": bytes(4000)}, "oversize", "erasure"),
    ("SubmitAndWait", {"wait": {"seconds": 61}}, "malformed", "wait"),
    ("SubmitAndWait", {"wait": {"seconds": -1}}, "malformed", "wait"),
    ("SubmitAndWait", {}, "malformed", "label"),
]
_RETRIED = {"unavailable": grpc.StatusCode.UNAVAILABLE, "unknown-epoch": grpc.StatusCode.NOT_FOUND}


@pytest.mark.parametrize(("name", "given", "reason", "field"), REFUSED)
def test_a_fault_is_refused_with_reason_and_field(
    door: Door, name: str, given: dict[str, Any], reason: str, field: str | None
) -> None:
    failure = door.failure(name, **given)
    assert (failure.reason, failure.code) == (
        reason,
        _RETRIED.get(reason, grpc.StatusCode.INVALID_ARGUMENT),
    )
    assert field is None or failure.field == field
    assert (failure.retry_after is not None) == (reason == "unavailable")
    # A sentence never repeats a value, which may be a label.
    assert "nobody" not in failure.detail


def test_the_sentence_of_a_failure_names_the_field(door: Door) -> None:
    """Programs that show no details show at least that."""
    for given in ({"label": "nobody"}, {"label": ALICE, "epoch": 3}):
        failure = door.failure("Lookup", **given)
        assert failure.detail.count(f"{failure.field}: ") == 1


def test_a_watch_of_a_client_that_is_ahead_has_to_come_again(door: Door) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(door.call("WatchHeads", since=3))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_every_reason_has_a_code_and_the_same_reason() -> None:
    """Each reason of a problem document, and each verdict, as ``problem_of`` makes it of an error."""
    from kt_es.errors import MalformedError, RefusedError

    verdicts = [verdict.label for verdict in Verdict if not verdict.succeeded]
    reasons = {str(reason) for reason in ProblemReason}
    of_http = {ProblemReason.UNSUPPORTED_MEDIA}  # no content type can be sent wrong
    made = [problem_of(RefusedError(reason, "no", "label")) for reason in (*reasons - of_http, *verdicts)]
    made += [too_many(3.2), internal_problem(), problem_of(UnavailableError("away", 7.0))]
    made += [problem_of(MalformedError("label", "is wrong")), Problem(408, "request-timeout", "slow")]
    for problem in made:
        status = status_of(problem)
        assert status.code is CODES[problem.status], problem
        assert status.code not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
        assert problem.reason.encode() in dict(status.trailing_metadata)["grpc-status-details-bin"]


def test_an_erasure_is_queued_and_then_decided(door: Door) -> None:
    queued = door.call("Erase", **members(erasure("alice")))
    assert queued.HasField("event")
    assert not queued.HasField("epoch")
    failure = door.failure("Erase", **members(erasure("alice", "mallory")))
    assert failure.reason in ("unauthorized", "foreign-erasure")
    assert failure.code is grpc.StatusCode.PERMISSION_DENIED


def test_an_unexpected_error_shows_nothing_of_internals(
    door: Door, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"the label {ALICE} is secret")

    monkeypatch.setattr(door.front.directory.ledger, "map", None)
    monkeypatch.setattr(type(door.front.directory), "lookup", fail)
    failure = door.failure("Lookup", label=ALICE)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "internal")
    assert "secret" not in failure.detail
    said = capfd.readouterr()
    assert "secret" not in said.out + said.err


def test_calls_are_measured_by_their_method(door: Door) -> None:
    door.call("Lookup", label=ALICE)
    figures = door.front.running.metrics.render().decode()
    assert re.search(r'kt_request_seconds_count\{route="/kt.v1.DirectoryService/Lookup"\} [1-9]', figures)
    assert re.search(r'kt_lookups_total\{result="found"\} [1-9]', figures)
    assert ALICE not in figures


def test_the_messages_have_the_members_of_the_models() -> None:
    """A member that HTTP gets is a field here as well, but for those that have another form."""
    from kt_es.api import models, statuses

    pairs = {
        "DescribeResponse": models.DirectoryBody, "LookupRequest": models.LookupRequest,
        "LookupResponse": models.LookupBody, "HistoryRequest": models.HistoryRequest,
        "HistoryResponse": models.HistoryBody, "Version": models.VersionBody,
        "RangeRequest": models.RangeRequest, "RangeResponse": models.RangeBody, "Head": models.HeadBody,
        "PastHeadRequest": models.HeadParameters, "LatestHeadRequest": models.LatestHeadParameters,
        "ConsistencyResponse": models.ConsistencyBody, "Receipt": models.ReceiptBody,
        "Verdict": models.VerdictBody, "Record": models.RecordBody, "EraseRequest": models.ErasureRequest,
        "EraseResponse": models.ErasureBody, "StatusRequest": statuses.StatusRequest,
    }  # fmt: skip
    for name, model in pairs.items():
        fields = set(getattr(kt_v1, name).DESCRIPTOR.fields_by_name)
        assert fields == {member.name for member in dataclasses.fields(model)}, name
