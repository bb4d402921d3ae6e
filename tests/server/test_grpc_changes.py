"""``kt.v1``: submissions, their verdicts, and watches of heads, over a directory that changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from kt_es.crypto.hashes import sha256
from kt_es.formats.heads import heads_origin, open_checkpoint
from kt_es.formats.notes import decode_base64
from kt_es.formats.registration import new_token
from kt_es.merkle.verify import log_root_from_consistency
from kt_es.server.registration.settings import RegistrationSettings
from kt_es.server.registration.tokens import Token, digest_of
from tests import builders as b
from tests.reference.frontends import Front, front, submission, until
from tests.reference.grpc_doors import Door, Stub, channel_to, grpc_door, members
from tests.reference.signed_streams import SignedStreams


@pytest.fixture
def changing() -> Iterator[Door]:
    """A front end for tests that change something, with one epoch."""
    streams = SignedStreams()
    streams.epoch()
    with front(streams) as made, grpc_door(made) as door:
        yield door
        assert not made.errors


def test_a_receipt_then_the_verdict_then_the_same_again(changing: Door) -> None:
    given = members(submission("bob"))
    queued = changing.call("Submit", **given)
    assert queued.WhichOneof("outcome") == "queued"
    assert queued.queued.mutation == b.mutation("bob").entry_hash.hex()
    again = changing.call("Submit", **given)
    assert again.queued.event == queued.queued.event
    changing.front.streams.epoch()
    until(changing.front.caught_up)
    decided = changing.call("SubmitAndWait", submission=given, wait={"seconds": 20}).decided
    assert (decided.verdict, decided.epoch, decided.HasField("record")) == ("accepted", 2, False)


def test_a_status_is_what_http_answers_in_each_state(changing: Door) -> None:
    made = b.mutation("bob")
    asked: dict[str, Any] = {
        "mutation": made.entry_hash.hex(),
        "item": sha256(made.encode()).hex(),
        "since": 1,
    }
    steps: dict[str, Callable[[], object]] = {
        "unknown": lambda: None,
        "pending": lambda: changing.call("Submit", **members(submission("bob"))),
        "decided": changing.front.streams.epoch,
    }
    for state, step in steps.items():
        step()
        until(changing.front.caught_up)
        answer, told = changing.call("Status", **asked), changing.front.post("/v1/status", asked).json()
        assert answer.WhichOneof("state") == told["state"] == state
        assert answer.mutation == told["mutation"]
        assert list(answer.consistency) == [decode_base64(one, "hash") for one in told["consistency"]]
        if state != "decided":
            undecided = getattr(answer, state)
            assert (undecided.epoch, undecided.complete_from) == (told["epoch"], told["complete_from"])
    verdict = answer.decided.verdict
    assert (verdict.verdict, verdict.epoch) == (told["verdict"], told["epoch"]) == ("accepted", 2)
    assert answer.decided.answer == decode_base64(told["answer"], "answer")
    assert verdict.record.sequence == told["record"]["sequence"]


def test_whoever_waits_gets_the_verdict_and_the_record(changing: Door) -> None:
    given = members(submission("bob"))
    with changing.front.streams.signing():
        decided = changing.call("SubmitAndWait", submission=given).decided
    assert (decided.mutation, decided.verdict) == (b.mutation("bob").entry_hash.hex(), "accepted")
    assert (decided.epoch, decided.record.queue_revision) == (2, 2)
    lookup = changing.call("Lookup", label=b.label_of("bob"))
    assert lookup.profile == b.profile("bob", 1)


def test_a_decision_against_it_is_a_failure_with_the_verdict(changing: Door) -> None:
    first, second = b.mutation("bob"), b.mutation("bob", keys=[b.private_key("other")])
    changing.front.streams.put(first)
    with changing.front.streams.signing():
        failure = changing.failure("SubmitAndWait", submission=members(submission("bob", second)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "conflict")
    assert (failure.verdict.verdict, failure.verdict.epoch) == ("conflict", 2)
    assert failure.field == "mutation"


@pytest.mark.parametrize("wait", [{"nanos": 1000}, None])
def test_not_decided_in_time_is_a_receipt(changing: Door, wait: dict[str, int] | None) -> None:
    """By what the client asks for, and by the deadline of the call, before which the answer arrives."""
    given = {"submission": members(submission("bob"))}
    timeout = 20.0 if wait else 1.5
    answer = changing.call("SubmitAndWait", **given, **({"wait": wait} if wait else {}), timeout=timeout)
    assert answer.WhichOneof("outcome") == "queued"


def test_refusals_of_submissions_have_codes_of_their_own(changing: Door) -> None:
    forged = members(submission("bob", b.mutation("bob", signed_by=[b.private_key("other")])))
    failure = changing.failure("Submit", **forged)
    assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "unauthorized")
    early = members(submission("bob", b.mutation("bob", 2, b.mutation("bob").entry_hash)))
    failure = changing.failure("Submit", **early)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "stale")


def test_a_gated_directory_asks_for_a_proof_here_as_well() -> None:
    token = new_token(bytes(32))
    ways = RegistrationSettings(("tokens",), (Token(digest_of(token), "*@example.org", None),))
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams, made=Front(streams, registration=ways)) as made, grpc_door(made) as door:
        refused = door.failure("Submit", **members(submission("bob")))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "registration-required")
        wrong = members(submission("bob", registration=new_token(b"x" * 32)))
        failure = door.failure("Submit", **wrong)
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "registration-refused")
        assert token not in failure.detail
        given = members(submission("bob", registration=token))
        assert door.call("Submit", **given).queued.registration == "tokens"


def test_a_watch_tells_of_each_epoch_and_goes_on_where_it_was_left(changing: Door) -> None:
    streams = changing.front.streams
    watch = changing.call("WatchHeads")
    first = next(watch)
    assert (first.head.epoch, list(first.consistency)) == (1, [])
    streams.epoch()
    second = next(watch)
    watch.cancel()
    streams.epoch()
    streams.epoch()
    resumed = changing.call("WatchHeads", since=second.head.epoch)
    seen = [first, second, next(resumed), next(resumed)]
    resumed.cancel()
    assert [message.head.epoch for message in seen] == [1, 2, 3, 4]
    roots = [
        open_checkpoint(message.head.heads_checkpoint, heads_origin(b.ORIGIN), [b.SIGNER_KEY.raw]).root
        for message in seen
    ]
    for before, message, root in zip(roots, seen[1:], roots[1:], strict=False):
        epoch = message.head.epoch
        assert log_root_from_consistency(epoch - 1, epoch, before, list(message.consistency)) == root


def test_a_watch_ends_when_the_front_end_stops_serving(changing: Door) -> None:
    from kt_es.errors import RollbackError

    watch = changing.call("WatchHeads", since=1)
    ended = threading.Timer(0.05, lambda: changing.front.running._fail(RollbackError("the log ends early")))
    ended.start()
    with pytest.raises(grpc.RpcError) as caught:
        list(watch)
    ended.join()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_whoever_waits_gets_a_receipt_when_the_front_end_stops() -> None:
    streams = SignedStreams()
    streams.epoch()
    with front(streams) as made:
        with grpc_door(made) as door:
            request = door.request("SubmitAndWait", submission=members(submission("bob")))
            channel = channel_to(door.port)
            waiting = Stub(channel).method("SubmitAndWait").future(request)
            until(lambda: made.running.replica.waiters._count == 1)
            until(lambda: made.running.frontend.slots.requests == 0)
            made.running.release_waiting()
        assert waiting.result(20).WhichOneof("outcome") == "queued"
        channel.close()
        assert not made.errors
