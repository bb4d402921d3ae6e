"""The signer's loop: queue in, records and heads out, one epoch after the other.

The subscription is the signer's place in the queue and its wake-up; the queue position is its own.
An event at that position is processed; a lower one has been; a higher one shows a gap, which is
read from the stream. What a delivery cannot bring (the group's limit of unacknowledged events is
reached, a connection is half-open) is read from the stream too. On any trouble with the log the
loop ends and is started again from the last commit: there is one way back, and every start takes it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue

import structlog

from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.streams import ANY, Event, EventLog, GroupSubscription, NewEvent, StreamNames
from kt_es.formats.queue import EPOCH_MARKER, Marker
from projections.ledger import Ledger
from projections.replay import Replay
from signer.keys import KeyRing
from signer.publish import check_published
from signer.schedule import Schedule
from signer.work import EpochWork

GROUP = "kt-signer"

# How many events are read from the stream before the schedule is looked at again.
READ_AHEAD = 256

_log = structlog.get_logger("signer")


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the loop. Times in seconds, sizes in bytes."""

    batch_limit: int = 100_000  # items after which an epoch ends early
    outbox: int = 768 * 1024  # records that are appended at once; the server takes 1 MiB
    inbox: int = 32  # delivered events that wait for the loop
    unacknowledged: int = 1_500  # deliveries after which the stream is read instead
    tick: float = 0.05  # how often the schedule is looked at while nothing comes
    patience: float = 0.25  # how long a marker may take to come back before the stream is read
    watchdog: float = 10.0  # how long silence is believed
    truncate: bool = False  # whether the queue is truncated behind the last head


@dataclass(frozen=True, slots=True)
class Effects:
    """Everything the loop takes from outside, beside the log itself."""

    connect: Callable[[], EventLog]  # a fresh client: the watchdog asks through its own
    now: Callable[[], int]  # wall clock, ms
    monotonic: Callable[[], float]  # seconds
    nonce: Callable[[], bytes]  # 16 random bytes


class Signer:
    """One run of the signer over one connection; ends by ``stop`` or by raising."""

    def __init__(
        self,
        log: EventLog,
        names: StreamNames,
        ledger: Ledger,
        keys: KeyRing,
        *,
        effects: Effects,
        limits: Limits,
    ) -> None:
        self._log = log
        self._names = names
        self._ledger = ledger
        self._keys = keys
        self._effects = effects
        self._limits = limits
        self._begin_epoch()
        self._unacknowledged: list[Event] = []
        self._group: GroupSubscription | None = None
        self._last_marker_at = effects.monotonic()
        self._last_heard_at = effects.monotonic()

    def recover(self) -> None:
        """Bring the ledger to the last published head, verifying everything on the way."""
        committed = self._ledger.committed
        check_published(self._log, self._names.heads, committed, self._ledger.head_event(committed.epoch))
        for epoch in Replay(self._log, self._names, self._ledger).catch_up():
            _log.info("recovered", epoch=epoch.head.epoch, records=epoch.head.log_size)
        self._begin_epoch()

    def run(self, stop: threading.Event) -> None:
        """Recover, wait for the one place at the queue, then process until ``stop``.

        Raises ``UnavailableError`` when the log goes away and ``DivergenceError`` when it holds another
        truth.
        """
        self.recover()
        group = self._take_place(stop)
        if group is None:
            return
        self._group = group
        # Another signer may have advanced while this one waited.
        self.recover()
        self._last_marker_at = self._effects.monotonic()
        with _inbox(group, self._limits.inbox) as inbox:
            while not stop.is_set():
                self._turn(inbox)

    def _take_place(self, stop: threading.Event) -> GroupSubscription | None:
        self._log.create_group(self._names.queue, GROUP)
        waiting = False
        while not stop.is_set():
            group = self._log.join_group(self._names.queue, GROUP)
            if group is not None:
                _log.info("active", epoch=self._ledger.committed.epoch)
                return group
            if not waiting:
                _log.info("standby")
                waiting = True
            # Following the logs meanwhile makes taking over quick.
            self.recover()
            stop.wait(0.5)
        return None

    def _turn(self, inbox: Queue[Event | KtError]) -> None:
        """Process one delivery, or what the stream has if no delivery can be expected."""
        with suppress(Empty):
            delivered = inbox.get(timeout=self._limits.tick)
            if isinstance(delivered, KtError):
                raise delivered
            self._last_heard_at = self._effects.monotonic()
            self._deliver(delivered)
        if self._should_read():
            for event in self._log.read(self._names.queue, self._work.queue_next, READ_AHEAD):
                self._process(event)
        self._watch()
        self._insert_marker()

    def _deliver(self, event: Event) -> None:
        # Only the way to acknowledge it is kept: its data would be the memory of a whole epoch.
        self._unacknowledged.append(replace(event, data=b""))
        if event.revision > self._work.queue_next:
            for missed in self._log.read(
                self._names.queue, self._work.queue_next, event.revision - self._work.queue_next
            ):
                self._process(missed)
        if event.revision == self._work.queue_next:
            self._process(event)
        elif event.revision < self._ledger.committed.queue_next:
            self._acknowledge()

    def _should_read(self) -> bool:
        waited = self._effects.monotonic() - self._last_marker_at
        lost = self._marker is not None and waited > self._limits.patience
        return lost or len(self._unacknowledged) >= self._limits.unacknowledged

    def _process(self, event: Event) -> None:
        """Decide one queue event, the next one, and end the epoch if it is the marker."""
        self._work.process(event)
        if self._work.is_closed:
            self._finish_epoch()

    def _begin_epoch(self) -> None:
        self._work = EpochWork(self._log, self._names, self._ledger, self._keys, self._limits.outbox)
        self._marker: NewEvent | None = None

    def _finish_epoch(self) -> None:
        """Records, then the head, then the local commit, then the acknowledgement."""
        started = self._effects.monotonic()
        head = self._work.finish()
        _log.info(
            "epoch",
            epoch=head.epoch,
            items=self._work.size,
            entries=head.map_size,
            seconds=round(self._effects.monotonic() - started, 3),
            verdicts=dict(self._work.verdicts),
        )
        self._last_marker_at = self._effects.monotonic()
        self._begin_epoch()
        self._acknowledge()
        if self._limits.truncate:
            # The last event stays, so that the end of the stream can still be asked for.
            self._log.truncate(self._names.queue, head.queue_next - 1)

    def _acknowledge(self) -> None:
        durable = self._ledger.committed.queue_next
        if self._group is not None:
            for event in self._unacknowledged:
                if event.revision < durable:
                    self._group.ack(event)
        self._unacknowledged = [event for event in self._unacknowledged if event.revision >= durable]

    def _insert_marker(self) -> None:
        """Put a marker into the queue when the schedule wants one and none is on its way."""
        config = self._work.config
        if config is None or self._marker is not None:
            return
        schedule = Schedule.of(config, self._limits.batch_limit)
        now = self._effects.monotonic()
        if not schedule.wants_marker(now - self._last_marker_at, self._work.size):
            return
        # Later than the last head's, even if the wall clock has stepped back.
        issued_at = max(self._effects.now(), self._ledger.committed.standing.timestamp + 1)
        key = self._keys.key_for(config.signer_key)
        marker = Marker.sign(self._effects.nonce(), issued_at, config.origin, key)
        self._marker = NewEvent(EPOCH_MARKER, marker.encode(), uuid.UUID(bytes=marker.nonce))
        self._log.append(self._names.queue, ANY, [self._marker])
        self._last_marker_at = now

    def _watch(self) -> None:
        """Ask through a fresh client whether silence is silence: a hung server looks the same."""
        if self._effects.monotonic() - self._last_heard_at < self._limits.watchdog:
            return
        fresh = self._effects.connect()
        try:
            last = fresh.last_revision(self._names.queue)
        finally:
            fresh.close()
        if last >= self._work.queue_next:
            raise UnavailableError("the subscription is silent, but the queue has gone on")
        self._last_heard_at = self._effects.monotonic()


@contextmanager
def _inbox(group: GroupSubscription, size: int) -> Iterator[Queue[Event | KtError]]:
    """The deliveries of ``group`` in a bounded queue, filled by a thread; its error comes last."""
    inbox: Queue[Event | KtError] = Queue(size)
    closed = threading.Event()

    def put(thing: Event | KtError) -> None:
        while not closed.is_set():
            with suppress(Full):
                inbox.put(thing, timeout=0.5)
                return

    def receive() -> None:
        try:
            for event in group:
                put(event)
                if closed.is_set():
                    return
            put(UnavailableError("the subscription has ended"))
        except KtError as error:
            put(error)

    thread = threading.Thread(target=receive, name="signer-inbox", daemon=True)
    thread.start()
    try:
        yield inbox
    finally:
        closed.set()
        group.stop()
        thread.join(timeout=5)


def run_forever(signer: Callable[[EventLog], Signer], effects: Effects, stop: threading.Event) -> None:
    """Run signers one after the other until ``stop``: each outage of the log ends one.

    Raises every other error: divergence and unusable keys are for people to look at.
    """
    delay = 0.2
    while not stop.is_set():
        try:
            log = effects.connect()
        except UnavailableError as error:
            _log.warning("log unavailable", problem=str(error), again_in=delay)
            stop.wait(delay)
            delay = min(2 * delay, 2.0)
            continue
        started = effects.monotonic()
        try:
            signer(log).run(stop)
        except UnavailableError as error:
            if effects.monotonic() - started > 10:
                delay = 0.2
            _log.warning("log unavailable", problem=str(error), again_in=delay)
            stop.wait(delay)
            delay = min(2 * delay, 2.0)
        finally:
            log.close()
