"""A signer that works for longer than its watchdog waits: its own work is no silence of the log."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import ANY, Event, content_event
from kt_es.formats.queue import MUTATIONS
from signer.keys import KeyRing
from signer.limits import Effects, EpochLimits
from signer.loop import Signer
from tests.builders import SIGNER, START, mutation, seed
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES, check_logs, heads, new_ledger, new_log, submit, verdicts

LIMITS = EpochLimits(batch_limit=1_000, outbox=4096, unacknowledged=20, patience=2.0, watchdog=10.0)


class Place:
    """A place at the queue that remembers what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def __iter__(self) -> Place:
        return self

    def __next__(self) -> Event:
        raise StopIteration

    def stop(self) -> None:
        return

    def ack(self, event: Event) -> None:
        self.acknowledged.append(event.revision)


class SlowLog:
    """A log whose every event takes a second to read and decide."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.now = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        for event in self._log.read(stream, start, limit):
            self.now += 1.0
            yield event


def slow_signer(log: MemoryLog) -> Signer:
    slow, nonces = SlowLog(log), itertools.count()
    return Signer(
        slow,  # type: ignore[arg-type]
        NAMES,
        new_ledger(),
        KeyRing([SIGNER]),
        effects=Effects(
            lambda: log,
            lambda: START + int(slow.now * 1000),
            lambda: slow.now,
            lambda: seed(f"slow {next(nonces)}")[:16],
        ),
        limits=lambda: LIMITS,
    )


def garbage(log: MemoryLog, count: int) -> None:
    for number in range(count):
        log.append(NAMES.queue, ANY, [content_event(NAMES.queue, MUTATIONS, b"\xff%d" % number)])


def test_a_backlog_is_worked_off_while_others_go_on_writing() -> None:
    log = new_log()
    garbage(log, 400)
    signer, place = slow_signer(log), Place()
    signer.recover()
    signer.join(place)
    for delivered in list(log.read(NAMES.queue)):
        signer.deliver(delivered)
        signer.advance()
        if heads(log):
            break
        log.append(NAMES.queue, ANY, [content_event(NAMES.queue, MUTATIONS, b"\xfe%d" % delivered.revision)])
    assert heads(log)[0].queue_next > 400
    check_logs(log)


def test_a_group_that_may_deliver_no_more_is_not_taken_for_dead() -> None:
    """Unacknowledged deliveries are bounded; the rest of a long epoch is read from the stream."""
    log = new_log()
    garbage(log, 400)
    signer, place = slow_signer(log), Place()
    signer.recover()
    signer.join(place)
    for event in list(log.read(NAMES.queue, 0, LIMITS.unacknowledged)):
        signer.deliver(event)
    for more in range(200):
        log.append(NAMES.queue, ANY, [content_event(NAMES.queue, MUTATIONS, b"\xfe%d" % more)])
        signer.advance()
        if heads(log):
            break
    assert heads(log)[0].queue_next > 400
    assert place.acknowledged == list(range(LIMITS.unacknowledged))
    check_logs(log)


def test_a_delivery_far_ahead_is_not_read_up_to_in_one_go() -> None:
    log = new_log()
    garbage(log, 400)
    submit(log, [mutation("alice")])
    signer = slow_signer(log)
    signer.recover()
    signer.join(Place())
    (last,) = log.read(NAMES.queue, 401)
    signer.deliver(last)
    assert len(signer._unacknowledged) == 1
    assert signer.is_behind
    assert signer._work.queue_next <= 64
    for _ in range(20):
        signer.advance()
    assert heads(log)[-1].map_size == 1
    assert verdicts(log)[-1] == "accepted"


def test_a_subscription_that_died_unseen_is_found_although_every_epoch_goes_on() -> None:
    """Its own markers are read from the stream, so nothing is behind; but nothing would be acknowledged."""
    log = new_log(max_interval=8_000)
    signer = slow_signer(log)
    signer.recover()
    signer.join(Place())

    def go_on() -> None:
        for _ in range(int(LIMITS.watchdog) + 8):
            signer._log.now += 1.0  # type: ignore[attr-defined]
            signer.advance()

    with pytest.raises(UnavailableError, match="silent"):
        go_on()
    assert heads(log)


def test_silence_of_a_queue_where_nothing_happens_is_no_alarm() -> None:
    log = new_log(max_interval=3_600_000)
    asked: list[float] = []

    def connect() -> MemoryLog:
        asked.append(signer._effects.monotonic())
        return log

    signer, place = slow_signer(log), Place()
    signer._effects = replace(signer._effects, connect=connect)
    signer.recover()
    signer.join(place)
    for event in log.read(NAMES.queue):
        signer.deliver(event)
    for _ in range(100):
        signer._log.now += 1.0  # type: ignore[attr-defined]
        signer.advance()
        for event in log.read(NAMES.queue, signer._delivered + 1):
            signer.deliver(event)
    # Each silence was looked into, and none before its time.
    assert len(asked) >= 5
    assert min(later - earlier for earlier, later in itertools.pairwise(asked)) >= LIMITS.watchdog
