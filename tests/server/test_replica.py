"""The replica and the openings projection as threads: outages, erasure, bad events, waiters, restarts."""

from __future__ import annotations

import threading
import uuid

import pytest

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import ANY, NewEvent
from kt_es.formats.entries import OPENING, Opening, encode_erased
from kt_es.formats.queue import Verdict
from kt_es.ledger.openings import Missing, read_opening
from kt_es.process.signals import Worker
from kt_es.server import waiters as waiting
from kt_es.server.waiters import Waiters
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams


def append(streams: SignedStreams, stream: str, kind: str, data: bytes) -> None:
    streams.log.append(stream, ANY, [NewEvent(kind, data, uuid.uuid4())])


def test_the_replica_goes_on_after_an_outage(streams: SignedStreams, running: Front) -> None:
    assert isinstance(streams.log, MemoryLog)
    streams.log.away = True
    assert running.directory.lookup(b.label_of("bob")).result == "absent"
    streams.log.away = False
    streams.put_user("bob")
    streams.epoch()
    until(running.caught_up)
    assert running.directory.lookup(b.label_of("bob")).result == "found"
    assert running.errors == []


def test_a_restarted_replica_goes_on_where_it_was(streams: SignedStreams) -> None:
    with front(streams) as first:
        until(lambda: first.directory.lookup(b.label_of("alice")).result == "found")
        store = first.store
    streams.put_user("bob")
    streams.epoch()
    with front(streams, store) as second:
        assert second.directory.lookup(b.label_of("bob")).epoch == 2


def test_a_rebuilt_replica_has_the_same_state(streams: SignedStreams, running: Front) -> None:
    with front(streams) as other:
        assert other.ledger.committed == running.ledger.committed == streams.ledger.committed


def test_threads_end_when_they_are_stopped(streams: SignedStreams) -> None:
    with front(streams) as made:
        pass
    for worker in (made.running.replica.worker, made.running.follower.worker):
        assert worker.join(0)
    assert made.errors == []


def test_a_worker_that_fails_unexpectedly_is_reported() -> None:
    told: list[Exception] = []

    def fail(stop: threading.Event) -> None:
        del stop
        raise ZeroDivisionError("integer division or modulo by zero")

    worker = Worker("work", fail, told.append)
    worker.start()
    assert worker.join(30)
    assert [str(error) for error in told] == [
        "work failed: ZeroDivisionError: integer division or modulo by zero"
    ]


def test_an_opening_that_is_gone_and_not_erased_is_missing(streams: SignedStreams, running: Front) -> None:
    alice = b.mutation("alice")
    until(lambda: isinstance(running.running.openings.get(alice.entry.index, alice.entry_hash), Opening))
    streams.forget(alice)
    until(lambda: running.directory.lookup(b.label_of("alice")).result == "missing")
    found = running.directory.lookup(b.label_of("alice"))
    assert (found.answer.mutation, found.answer.opening, found.profile) == (alice, None, None)
    # It cannot come back.
    stream = streams.names.openings(alice.entry.index)
    append(streams, stream, OPENING, b.opening_event("alice").encode())
    streams.put_user("bob")
    bob = b.mutation("bob")
    until(lambda: isinstance(running.running.openings.get(bob.entry.index, bob.entry_hash), Opening))
    assert running.running.openings.get(alice.entry.index, alice.entry_hash) is Missing.ERASED


def test_events_that_are_no_openings_are_passed_over(streams: SignedStreams, running: Front) -> None:
    prefix = streams.names.openings_prefix
    index = b.index("bob").hex()
    append(streams, f"{prefix}{index}", OPENING, b"\xff")
    append(streams, f"{prefix}{index}", "Other", b.opening_event("bob").encode())
    append(streams, f"{prefix}{index.upper()}", OPENING, b.opening_event("bob").encode())
    append(streams, f"{prefix}{index}", "OpeningErased", encode_erased(bytes(32)) + b"\0")
    bob = streams.put_user("bob")
    until(lambda: isinstance(running.running.openings.get(bob.entry.index, bob.entry_hash), Opening))
    assert running.errors == []


def test_a_wrong_opening_is_never_handed_on(streams: SignedStreams, running: Front) -> None:
    bob = b.mutation("bob")
    stream = streams.names.openings(bob.entry.index)
    streams.opening("bob", bob)
    append(streams, stream, OPENING, Opening(bob.entry_hash, bytes(16), b.profile("bob")).encode())
    streams.put(bob)
    streams.epoch()
    until(running.caught_up)
    until(
        lambda: (
            running.running.openings.get(bob.entry.index, bob.entry_hash)
            == Opening(bob.entry_hash, bytes(16), b.profile("bob"))
        )
    )
    assert running.directory.lookup(b.label_of("bob")).profile == b.profile("bob")


def test_an_opening_that_only_the_log_could_know_waits_for_the_log(
    streams: SignedStreams, running: Front
) -> None:
    assert isinstance(streams.log, MemoryLog)
    bob = b.mutation("bob")
    streams.put(bob)
    streams.epoch()
    until(running.caught_up)
    assert running.directory.lookup(b.label_of("bob")).result == "missing"
    streams.log.away = True
    running.running.watch.probe()
    with pytest.raises(UnavailableError):
        running.directory.lookup(b.label_of("bob"))


def test_a_projection_that_is_behind_is_no_error(streams: SignedStreams) -> None:
    with front(streams) as made:
        made.running.follower.worker.stop()
        assert made.running.follower.worker.join(30)
        bob = streams.put_user("bob")
        streams.epoch()
        until(made.caught_up)
        assert made.running.openings.get(bob.entry.index, bob.entry_hash) is Missing.UNKNOWN
        assert made.directory.lookup(b.label_of("bob")).profile == b.profile("bob")


def test_the_stream_itself_distinguishes_erased_from_unknown(streams: SignedStreams) -> None:
    alice = b.mutation("alice")
    stream = streams.names.openings(alice.entry.index)

    def read() -> Opening | Missing:
        return read_opening(streams.log.read(stream), alice.entry_hash, lambda _: True)

    assert read() == b.opening_event("alice")
    assert read_opening(streams.log.read(stream), bytes(32), lambda _: True) is Missing.UNKNOWN
    streams.forget(alice)
    assert read() is Missing.ERASED


def test_waiters_get_the_first_record_of_their_item() -> None:
    waiters = Waiters()
    made = b.mutation("alice")
    future = waiters.register(made.encode())
    assert future is not None
    waiters.note(b.record(4, b.item(b.mutation("bob"), 7, 0)))
    waiters.note(b.record(5, b.item(made, 7, 1)))
    waiters.note(b.record(6, b.item(made, 8, 0), Verdict.DUPLICATE))
    assert not future.done()
    waiters.commit(3)
    outcome = future.result(0)
    assert outcome is not None
    record = outcome.record
    assert (record.verdict, record.sequence, record.item.revision) == (Verdict.ACCEPTED, 5, 7)
    assert (record.item.position, outcome.epoch) == (1, 3)


def test_what_an_abandoned_epoch_noted_does_not_count() -> None:
    waiters = Waiters()
    made = b.mutation("alice")
    future = waiters.register(made.encode())
    assert future is not None
    waiters.note(b.record(5, b.item(made, 7, 1)))
    waiters.restart()
    waiters.commit(3)
    assert not future.done()


def test_who_waits_no_longer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITERS", 2)
    waiters = Waiters()
    first, second = waiters.register(b"a"), waiters.register(b"a")
    assert first is not None
    assert second is not None
    assert waiters.register(b"b") is None
    waiters.discard(b"a", first)
    waiters.discard(b"a", first)
    third = waiters.register(b"b")
    assert third is not None
    waiters.close()
    assert (second.result(0), third.result(0)) == (None, None)
    assert not first.done()
    assert waiters.register(b"c") is None
