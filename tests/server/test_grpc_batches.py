"""``kt.v1.SubmitMany``: the outcomes that HTTP has, as messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from kt_es.api.batches import MAX_SUBMISSIONS
from kt_es.formats.entries import MAX_MUTATION
from kt_es.formats.queue import decode_mutations
from kt_es.server.limits import SUBMISSION_COST, ClientLimits
from tests import builders as b
from tests.reference.frontends import Front, front, submission, until
from tests.reference.grpc_doors import Door, grpc_door, members
from tests.reference.signed_streams import SignedStreams


@pytest.fixture
def changing() -> Iterator[Door]:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams) as made, grpc_door(made) as door:
        yield door
        assert not made.errors


def given(*users: str) -> list[dict[str, Any]]:
    return [members(submission(user)) for user in users]


def kinds(answer: Any) -> list[str]:
    return [outcome.WhichOneof("outcome") for outcome in answer.outcomes]


def test_each_submission_has_its_outcome_in_order(changing: Door) -> None:
    wrong = {**members(submission("carol")), "opening": bytes(16)}
    too_long = {"label": "x" * 1025}
    large = {**members(submission("erin")), "mutation": bytes(MAX_MUTATION + 1)}
    answer = changing.call(
        "SubmitMany", submissions=[*given("bob"), wrong, {}, too_long, large, *given("alice", "dora")]
    )
    assert kinds(answer) == ["queued", "problem", "problem", "problem", "problem", "decided", "queued"]
    queued = [outcome.queued for outcome in answer.outcomes if outcome.WhichOneof("outcome") == "queued"]
    assert [one.mutation for one in queued] == [b.mutation(user).entry_hash.hex() for user in ("bob", "dora")]
    assert {(one.event, one.registration) for one in queued} == {(queued[0].event, "open")}
    shown = [(one.problem.reason, one.problem.field) for one in answer.outcomes if one.HasField("problem")]
    assert shown == [
        ("malformed", "opening"),
        ("malformed", "label"),
        ("malformed", "label"),
        ("oversize", "mutation"),
    ]
    alice = answer.outcomes[5].decided
    assert (alice.verdict, alice.epoch, alice.HasField("record")) == ("accepted", 1, False)
    streams = changing.front.streams
    last = streams.log.last_event(streams.names.queue)
    assert last is not None
    assert decode_mutations(last.data) == [b.mutation(user).encode() for user in ("bob", "dora")]


def test_one_wait_is_for_all_verdicts(changing: Door) -> None:
    changing.front.streams.put(b.mutation("carol", keys=[b.private_key("other")]))
    with changing.front.streams.signing():
        answer = changing.call("SubmitMany", submissions=given("bob", "carol"), wait={"seconds": 20})
    bob, carol = answer.outcomes
    assert (bob.decided.verdict, bob.decided.epoch, bob.decided.record.position) == ("accepted", 2, 0)
    assert (carol.problem.reason, carol.problem.field) == ("conflict", "mutation")
    assert (carol.problem.verdict.verdict, carol.problem.verdict.epoch) == ("conflict", 2)
    assert carol.problem.verdict.record.position == 1


def test_a_deadline_ends_the_wait(changing: Door) -> None:
    answer = changing.call("SubmitMany", submissions=given("bob"), wait={"seconds": 30}, timeout=1.5)
    assert kinds(answer) == ["queued"]


@pytest.mark.parametrize(
    ("request_members", "field"),
    [
        ({}, "submissions"),
        ({"submissions": [{}] * (MAX_SUBMISSIONS + 1)}, "submissions"),
        ({"submissions": [{}], "wait": {"seconds": 61}}, "wait"),
        ({"submissions": [{}], "wait": {"seconds": -1}}, "wait"),
    ],
    ids=["none", "257", "long wait", "no wait"],
)
def test_a_call_that_is_no_batch_is_refused_whole(
    changing: Door, request_members: dict[str, Any], field: str
) -> None:
    failure = changing.failure("SubmitMany", **request_members)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")
    assert failure.field == field


def test_an_outcome_that_is_unknown_says_when_to_send_it_again(
    changing: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kt_es.server.appender.DEADLINE", 0.0)
    log = changing.front.streams.log
    log.break_appends(1, written=False)  # type: ignore[attr-defined]
    answer = changing.call("SubmitMany", submissions=given("bob", "alice"))
    assert kinds(answer) == ["problem", "decided"]
    assert answer.outcomes[0].problem.reason == "unavailable"
    assert answer.outcomes[0].problem.retry_after.seconds >= 1
    changing.front.running.watch.probe()
    assert kinds(changing.call("SubmitMany", submissions=given("bob"))) == ["queued"]


def test_a_batch_costs_what_its_submissions_cost() -> None:
    streams = SignedStreams()
    streams.epoch()
    limits = ClientLimits(exempt=(), address_rate=100.0, network_rate=0)
    with front(streams, made=Front(streams, limits=limits)) as made, grpc_door(made) as door:
        made.running.clients._clock = lambda: 0.0
        (account, _), _ = made.running.clients._of("127.0.0.1")
        before = account.balance
        door.call("SubmitMany", submissions=given(*(f"user{number}" for number in range(30))))
        assert 30 * SUBMISSION_COST <= before - account.balance < 31 * SUBMISSION_COST
        until(lambda: made.running.frontend.slots.requests == 0)
