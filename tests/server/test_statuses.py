"""What became of a submitted mutation: unknown, pending or decided, at any front end, and submitted again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kt_es.api.operations import MUTATIONS, STATUS
from kt_es.crypto.hashes import log_leaf_hash, sha256
from kt_es.errors import UnavailableError
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.notes import decode_base64
from kt_es.formats.queue import EPOCH_MARKER, Verdict
from kt_es.formats.statuses import StatusAnswer
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.verify import log_root_from_inclusion
from kt_es.server.pending import PendingMutations
from kt_es.server.responses import NotNowError
from tests import builders as b
from tests.reference.frontends import Front, front, submission, until
from tests.reference.sharing import SharedStreams, store_of
from tests.reference.signed_streams import SignedStreams

ALICE, BOB = b.mutation("alice"), b.mutation("bob")
OTHER = b.mutation("bob", keys=[b.private_key("other")])


def status(front_end: Front, made: Mutation, **more: Any) -> dict[str, Any]:
    asked = {"mutation": made.entry_hash.hex(), "item": sha256(made.encode()).hex(), **more}
    answer = front_end.post(STATUS.path, asked)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def decided(front_end: Front, made: Mutation, **more: Any) -> tuple[str, int, int]:
    """The verdict on ``made``, its epoch and its record, after the proof was verified against the head."""
    body = status(front_end, made, **more)
    assert (body["mutation"], body["state"]) == (made.entry_hash.hex(), "decided")
    answer = StatusAnswer.decode(decode_base64(body["answer"], "answer"))
    head = SignedMapHead.decode(answer.smhs[-1]).head
    leaf = log_leaf_hash(answer.record(made.encode()).encode())
    assert log_root_from_inclusion(answer.sequence, head.log_size, leaf, answer.inclusion) == head.log_root
    where = body["record"]
    assert (where["sequence"], where["queue_revision"]) == (answer.sequence, answer.revision)
    assert (answer.position, answer.verdict.label) == (where["position"], body["verdict"])
    assert head.epoch == body["epoch"]
    return body["verdict"], body["epoch"], where["sequence"]


def published(front_end: Front) -> None:
    front_end.streams.epoch()
    until(front_end.caught_up)


@pytest.fixture(params=["own", "shared"])
def streams(request: pytest.FixtureRequest) -> SignedStreams:
    streams = SignedStreams() if request.param == "own" else SharedStreams()
    streams.put_user("alice")
    streams.epoch()
    return streams


def another(streams: SignedStreams) -> Any:
    """One more front end of the directory, as after a restart without its data."""
    return front(streams, store_of(streams.replicas) if isinstance(streams, SharedStreams) else None)


@pytest.fixture
def running(streams: SignedStreams) -> Iterator[Front]:
    with another(streams) as made:
        yield made


class TestStates:
    def test_from_unknown_to_decided(self, streams: SignedStreams, running: Front) -> None:
        assert status(running, BOB)["state"] == "unknown"
        running.post(MUTATIONS.path, submission("bob", BOB))
        assert status(running, BOB)["state"] == "pending"
        published(running)
        assert decided(running, BOB) == ("accepted", 2, 3)
        published(running)
        assert decided(running, BOB, since=1) == ("accepted", 2, 3)
        assert decided(running, ALICE) == ("accepted", 1, 1)

    def test_any_front_end_knows_what_waits_and_what_is_decided(
        self, streams: SignedStreams, running: Front
    ) -> None:
        running.post(MUTATIONS.path, submission("bob", BOB))
        with another(streams) as other:
            assert status(other, BOB)["state"] == "pending"
            published(other)
            assert decided(other, BOB) == ("accepted", 2, 3)

    def test_what_is_undecided_says_up_to_where(self, running: Front) -> None:
        nothing: dict[str, Any] = {"verdict": None, "record": None, "answer": None, "consistency": []}
        assert status(running, BOB) == {
            **nothing,
            "mutation": BOB.entry_hash.hex(),
            "state": "unknown",
            "epoch": 1,
            "complete_from": 0,
        }

    def test_a_refusal_is_decided_too(self, streams: SignedStreams, running: Front) -> None:
        streams.put(OTHER)
        streams.put(BOB)
        published(running)
        assert decided(running, BOB) == ("conflict", 2, 4)
        assert decided(running, OTHER) == ("accepted", 2, 3)

    def test_the_acceptance_counts_and_otherwise_the_last_record(
        self, streams: SignedStreams, running: Front
    ) -> None:
        second = b.next_mutation("bob", BOB)
        streams.put(second)
        streams.epoch()
        streams.put(second, BOB)
        published(running)
        assert decided(running, second) == ("stale", 3, 5)
        # The same event again would be the same event.
        streams.put(second, b.mutation("carol"))
        assert status(running, second)["state"] == "pending"
        published(running)
        streams.put(second, b.mutation("dave"))
        published(running)
        assert decided(running, second)[:2] == ("accepted", 4)

    def test_other_signatures_are_another_item(self, streams: SignedStreams, running: Front) -> None:
        forged = b.mutation("bob", signed_by=[b.private_key("other")])
        assert forged.entry_hash == BOB.entry_hash
        streams.put(forged)
        published(running)
        assert decided(running, forged)[0] == "unauthorized"
        assert status(running, BOB)["state"] == "unknown"
        streams.put(BOB)
        published(running)
        assert decided(running, BOB)[:2] == ("accepted", 3)
        body = running.post(STATUS.path, {"mutation": BOB.entry_hash.hex()}).json()
        assert (body["verdict"], body["epoch"]) == ("accepted", 3)

    @pytest.mark.parametrize("wrong", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0x" + "0" * 62])
    @pytest.mark.parametrize("field", ["mutation", "item"])
    def test_what_is_no_hash_is_refused(self, running: Front, field: str, wrong: str) -> None:
        answer = running.post(STATUS.path, {"mutation": "0" * 64, "item": "0" * 64, field: wrong})
        assert (answer.status_code, answer.json()["field"]) == (400, field)


class TestSubmittedAgain:
    """The same bytes in each state."""

    def again(self, front_end: Front, made: Mutation = BOB, user: str = "bob") -> tuple[int, str | None]:
        answer = front_end.post(MUTATIONS.path, submission(user, made))
        return answer.status_code, answer.json().get("verdict") or answer.json().get("reason")

    def test_while_it_waits(self, streams: SignedStreams, running: Front) -> None:
        receipts = [running.post(MUTATIONS.path, submission("bob", BOB)).json() for _ in range(2)]
        with another(streams) as other:
            receipts.append(other.post(MUTATIONS.path, submission("bob", BOB)).json())
        assert receipts[0] == receipts[1] == receipts[2]
        published(running)
        assert decided(running, BOB) == ("accepted", 2, 3)

    def test_in_another_event_of_the_same_and_of_a_later_epoch(
        self, streams: SignedStreams, running: Front
    ) -> None:
        streams.put(BOB)
        streams.put(BOB, b.mutation("carol"))
        published(running)
        streams.put(b.mutation("dave"), BOB)
        published(running)
        assert decided(running, BOB) == ("accepted", 2, 3)

    def test_after_it_was_accepted(self, streams: SignedStreams, running: Front) -> None:
        self.again(running)
        published(running)
        end = streams.log.last_revision(streams.names.queue)
        assert self.again(running) == (200, "accepted")
        with another(streams) as other:
            assert self.again(other) == (200, "accepted")
        assert streams.log.last_revision(streams.names.queue) == end

    def test_after_a_later_version_replaced_it(self, streams: SignedStreams, running: Front) -> None:
        self.again(running)
        published(running)
        assert self.again(running, b.next_mutation("bob", BOB))[0] == 202
        published(running)
        answer = running.post(MUTATIONS.path, submission("bob", BOB))
        assert (answer.status_code, answer.json()["verdict"], answer.json()["epoch"]) == (200, "accepted", 2)
        assert self.again(running, OTHER) == (409, "stale")

    def test_after_it_was_refused(self, streams: SignedStreams, running: Front) -> None:
        streams.put(OTHER)
        streams.put(BOB)
        published(running)
        end = streams.log.last_revision(streams.names.queue)
        assert self.again(running) == (409, "stale")
        assert streams.log.last_revision(streams.names.queue) == end
        assert decided(running, BOB)[0] == "conflict"


def test_data_of_an_earlier_version_say_from_where_on_they_know() -> None:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    store = MemoryStore(FAMILIES)
    with front(streams, store):
        pass
    # What a version without the index would have left.
    store.write([("meta", key, None) for key, _ in list(store.scan("meta", b"decided"))])
    streams.put(BOB)
    with front(streams, store, wait=False) as made:
        assert (status(made, ALICE)["state"], status(made, ALICE)["complete_from"]) == ("unknown", 3)
        published(made)
        assert decided(made, BOB) == ("accepted", 2, 3)
        assert (status(made, ALICE)["state"], status(made, ALICE)["complete_from"]) == ("unknown", 3)


class TestPending:
    """The queue is read once for all who ask, and nothing is told that is not known."""

    def committed(self, streams: SignedStreams) -> Committed:
        return streams.ledger.committed

    def pending(self, streams: SignedStreams, most: int = 100) -> PendingMutations:
        return PendingMutations(lambda: streams.log, streams.names.queue, most)

    def test_it_follows_the_queue_in_any_order_of_epochs(self) -> None:
        streams = SignedStreams()
        before = self.committed(streams)
        streams.put(ALICE, BOB)
        pending = self.pending(streams)
        assert pending.has(before, ALICE.entry_hash)
        streams.epoch()
        after = self.committed(streams)
        streams.put(OTHER)
        assert not pending.has(after, ALICE.entry_hash)
        assert pending.has(after, OTHER.entry_hash, sha256(OTHER.encode()))
        assert not pending.has(after, OTHER.entry_hash, bytes(32))
        # A request that took its epoch earlier comes later.
        assert pending.has(before, BOB.entry_hash)
        assert not pending.has(after, BOB.entry_hash)

    def test_one_of_two_that_is_decided_leaves_the_other(self) -> None:
        streams = SignedStreams()
        streams.put(BOB)
        pending = self.pending(streams)
        assert pending.has(self.committed(streams), BOB.entry_hash)
        streams.mark()
        streams.put(b.mutation("carol"), BOB)
        assert pending.has(self.committed(streams), BOB.entry_hash)
        streams.epoch()
        assert pending.has(self.committed(streams), BOB.entry_hash)

    def test_a_queue_that_was_truncated_behind_this_epoch_tells_nothing(self) -> None:
        streams = SignedStreams()
        before = self.committed(streams)
        streams.put(BOB)
        streams.epoch()
        streams.put(ALICE)
        streams.log.truncate(streams.names.queue, 3)
        with pytest.raises(NotNowError, match="behind"):
            self.pending(streams).has(before, BOB.entry_hash)

    def test_too_much_that_waits_tells_nothing(self) -> None:
        streams = SignedStreams()
        for user in ("alice", "bob", "carol", "dave"):
            streams.put(b.mutation(user))
        with pytest.raises(NotNowError, match="too much waits"):
            self.pending(streams, most=3).has(self.committed(streams), BOB.entry_hash)

    def test_garbage_in_the_queue_is_passed_over(self) -> None:
        streams = SignedStreams()
        streams.queue("Mutations", b"\xff")
        streams.queue("Greeting", bytes(20_000))
        streams.queue(EPOCH_MARKER, b"x")
        streams.put(BOB)
        assert self.pending(streams).has(self.committed(streams), BOB.entry_hash)


def test_without_the_log_only_what_succeeded_is_told(streams: SignedStreams, running: Front) -> None:
    def away() -> Any:
        raise UnavailableError("away")

    running.running.frontend.statuses._pending._log = away
    assert decided(running, ALICE)[0] == Verdict.ACCEPTED.label
    answer = running.post(STATUS.path, {"mutation": BOB.entry_hash.hex()})
    assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
