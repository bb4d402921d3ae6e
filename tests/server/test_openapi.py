"""A front end behind a real socket, asked what docs/openapi.json allows and what it does not.

Every operation: valid requests are not refused as malformed, each fault is refused, and every answer is one
that the document declares, with nothing in it that is not declared.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kt_es.api.operations import MAIL_PROOFS
from kt_es.formats.heads import HeadEvent
from kt_es.formats.notes import encode_base64
from kt_es.server.cosigning import Cosigners
from kt_es.server.endpoints import following
from kt_es.server.limits import ClientLimits
from tests import builders as b
from tests.reference.cosigning import CosigningParty
from tests.reference.doors import listening
from tests.reference.frontends import batched, erasure, front_with_alice, submission, with_alice
from tests.reference.operations import JSON, Asked, Operation, operations

MONITOR = CosigningParty("monitor")
NOTE = HeadEvent.decode(list(with_alice().log.read("kt_heads-people"))[-1].data).heads_checkpoint
KNOWN: dict[str, tuple[Mapping[str, Any], ...]] = {
    "/v1/lookup": ({"label": b.label_of("alice")}, {"label": b.label_of("nobody")}),
    "/v1/lookups": ({"labels": [b.label_of("alice"), b.label_of("nobody")]}, {"labels": [b.label_of("bob")]}),
    "/v1/history": ({"label": b.label_of("alice")}, {"label": b.label_of("nobody")}),
    "/v1/range": (
        {"label": b.label_of("alice")},
        {"label": b.label_of("alice"), "first": 1, "last": 2, "since": 1},
    ),
    "/v1/mutations": (submission("alice"), submission("bob")),
    "/v1/status": (
        {"mutation": b.mutation("alice").entry_hash.hex()},
        {"mutation": bytes(32).hex(), "item": bytes(32).hex(), "since": 1},
    ),
    "/v1/mutations/batch": (
        {"submissions": [batched("alice"), batched("bob"), {"label": 1}]},
        {"submissions": [batched("bob")], "wait": 0.001},
        {"submissions": [batched("carol"), batched("carol")]},
    ),
    "/v1/erasures": (erasure("alice"), erasure("alice", "mallory")),
    "/v1/cosignatures": ({"note": NOTE + MONITOR.line(NOTE, 1)},),
    "/v1/registration/mail": ({"label": b.label_of("bob"), "binding": encode_base64(bytes(32))},),
}
OPERATIONS = operations(KNOWN)
LENIENT = ("/healthz", "/metrics", "/readyz")
# What an answer of a valid request may be: the rest says that the request is at fault.
NOT_MALFORMED = {200, 202, 403, 404, 409, 503}
MANY = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, asked: Asked) -> Answered:
        connection = self._connection
        connection.putrequest(asked.method, asked.target, skip_accept_encoding=True)
        for media in asked.media:
            connection.putheader("content-type", media)
        if asked.body is not None:
            connection.putheader("content-length", str(len(asked.body)))
        connection.endheaders(asked.body)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answered(answer.status, headers, answer.read())

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        # A stream ends after what there is.
        patch.setattr(following, "STREAM_SECONDS", 0.0)
        yield from _client()


def _client() -> Iterator[Client]:
    with (
        front_with_alice(cosigners=Cosigners((), (MONITOR.key,))) as served,
        listening(served.running) as port,
    ):
        made = Client(port)
        yield made
        made.close()


def check_declared(operation: Operation, answered: Answered) -> None:
    media = answered.headers.get("content-type", "")
    problem = operation.problem_with(answered.status, media, answered.headers, answered.body)
    assert not problem, (problem, answered)
    if answered.status >= 400:
        body = json.loads(answered.body)
        assert body["status"] == answered.status
        assert body["type"] == f"urn:kt-es:problem:{body['reason']}"
        assert body["title"]
        assert body["detail"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_valid_requests_are_answered_as_declared(operation: Operation, client: Client) -> None:
    seen = set()

    @MANY
    @given(operation.valid())
    def check(asked: Asked) -> None:
        answered = client.ask(asked)
        check_declared(operation, answered)
        assert answered.status in NOT_MALFORMED, (asked, answered)
        seen.add(answered.status)

    check()
    # This front end sends no registration mails; tests/server/registration/test_gate.py has one that does.
    assert seen & ({403} if operation.path == MAIL_PROOFS.path else {200, 202}), seen


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.body], ids=lambda each: each.name)
def test_each_wrong_member_of_a_request_that_is_right_otherwise_is_refused(
    operation: Operation, client: Client
) -> None:
    count = 0
    for asked in operation.wrong_members():
        answered = client.ask(asked)
        check_declared(operation, answered)
        assert answered.status in (400, 413), (asked, answered)
        count += 1
    # Of one member with a text there are the fewest.
    assert count > 20


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.path not in LENIENT], ids=lambda each: each.name
)
def test_each_fault_is_refused_as_declared(operation: Operation, client: Client) -> None:
    @settings(MANY, max_examples=150)
    @given(operation.invalid())
    def check(asked: Asked) -> None:
        answered = client.ask(asked)
        check_declared(operation, answered)
        wanted = {415} if asked.fault.startswith("content type") else {400}
        # A body may be so wrong that it is too large, too.
        assert answered.status in wanted | {413}, (asked, answered)

    check()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@given(method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]))
@settings(MANY, max_examples=20)
def test_another_method_is_refused_and_the_right_one_is_named(
    operation: Operation, client: Client, method: str
) -> None:
    if method == operation.method:
        return
    answered = client.ask(Asked(method, operation.path.replace("{epoch}", "1")))
    assert (answered.status, answered.headers["allow"]) == (405, operation.method)
    assert answered.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", LENIENT)
@pytest.mark.parametrize("query", ["x=1", "collect[]=cpu&name[]=kt_epoch", "_=1700000000"])
def test_what_monitoring_asks_may_have_parameters(client: Client, path: str, query: str) -> None:
    assert client.ask(Asked("GET", path, query)).status == 200


@MANY
@given(path=st.text("/v1headslatest.%2Fa0\\;:@", max_size=40), query=st.text("a=&%;+#?0", max_size=20))
def test_no_address_makes_the_front_end_fail(client: Client, path: str, query: str) -> None:
    answered = client.ask(Asked("GET", f"/{path}", query))
    assert answered.status in {200, 400, 404, 405}
    if answered.status >= 400:
        assert json.loads(answered.body)["status"] == answered.status


# /healthz is always answered.
@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.path != "/healthz"], ids=lambda each: each.name
)
def test_whoever_asks_too_often_is_refused_as_declared(operation: Operation) -> None:
    body = b"{}" if operation.method == "POST" else None
    asked = Asked(operation.method, operation.path, "", body, (JSON,) if body else ())
    limits = ClientLimits(exempt=(), address_rate=0.5, network_rate=0.5)
    with front_with_alice(limits) as served, listening(served.running) as port:
        client = Client(port)
        refused = next(answer for answer in (client.ask(asked) for _ in range(20)) if answer.status == 429)
        client.close()
    check_declared(operation, refused)
