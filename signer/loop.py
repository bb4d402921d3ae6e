"""The signer: queue in, records and heads out, one epoch after the other. No thread, no waiting.

The subscription is the signer's place in the queue and its wake-up; the queue position is its own.
An event at that position is processed; a lower one has been; a higher one shows a gap, which is
read from the stream. What a delivery cannot bring (what was appended before the place was taken, more
than the group delivers unacknowledged, a connection that is half-open) is read from the stream too.
On any trouble with the log a signer is thrown away, and the next one starts from the last commit:
there is one way back, and every start takes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import ANY, Event, EventLog, GroupSubscription, NewEvent, StreamNames
from kt_es.formats.queue import EPOCH_MARKER, Marker
from kt_es.ledger.checks import check_commit
from kt_es.ledger.configs import check_pinned
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.proofs import head_at
from kt_es.ledger.replay import Replay
from signer.keys import KeyRing
from signer.observer import Finished, Observer, Silent
from signer.patrol import Patrol
from signer.progress import SignerProgress, last_published
from signer.publish import check_published
from signer.schedule import Schedule
from signer.work import EpochWork

# How many events are read from the stream before the schedule is looked at again.
READ_AHEAD = 64

_SILENT = Silent()

_log = structlog.get_logger("signer")


@dataclass(frozen=True, slots=True)
class EpochLimits:
    """What bounds the loop. Times in seconds, sizes in bytes."""

    batch_limit: int = 100_000  # items after which an epoch ends early
    outbox: int = 768 * 1024  # records that are appended at once; the server takes 1 MiB
    unacknowledged: int = 1_500  # deliveries after which the stream is read instead
    patience: float = 0.25  # how long a marker may take to come back before the stream is read
    watchdog: float = 10.0  # how long silence is believed
    patrol: float = 1.0  # how often a little of what is published is read again
    truncate: bool = False  # whether the queue is truncated behind the last head


@dataclass(frozen=True, slots=True)
class Effects:
    """Everything the loop takes from outside, beside the log itself."""

    connect: Callable[[], EventLog]  # a fresh client: the watchdog asks through its own
    now: Callable[[], int]  # wall clock, ms
    monotonic: Callable[[], float]  # seconds
    nonce: Callable[[], bytes]  # 16 random bytes


class Signer:
    """The signer over one connection: ``recover``, ``join``, then ``deliver`` and ``advance`` by turns.

    Every method raises ``UnavailableError`` when the log goes away and ``DivergenceError`` when it holds
    another truth; the signer is of no use after that.
    """

    def __init__(
        self,
        log: EventLog,
        names: StreamNames,
        ledger: Ledger,
        keys: KeyRing,
        *,
        effects: Effects,
        limits: EpochLimits,
        observer: Observer = _SILENT,
    ) -> None:
        self._log = log
        self._names = names
        self._ledger = ledger
        self._keys = keys
        self._effects = effects
        # Read where it is needed: another thread may replace it.
        self.limits = limits
        self._observer = observer
        # The stored head is read below.
        check_commit(ledger)
        self._begin_epoch()
        self._unacknowledged: list[Event] = []
        self._group: GroupSubscription | None = None
        self.finished = 0  # epochs
        # Deliveries begin where acknowledgements ended; the stream says what came since.
        self._behind = True
        self._last_marker_at = effects.monotonic()
        self._last_heard_at = effects.monotonic()
        self._patrol = Patrol(log, names, ledger, int.from_bytes(effects.nonce()[:8]))
        self._patrolled_at = effects.monotonic()
        # Revision of the last event that the subscription delivered. Events after it are still expected.
        self._delivered = -1

    def recover(self) -> None:
        """Bring the ledger to the last published head.

        Verdicts are decided, roots computed and heads verified again; only the signatures of mutations
        are believed to be what this signer, by its signed head, has said of them.
        """
        goal = last_published(self._log, self._names.heads)
        progress = SignerProgress(self._effects.monotonic, self._ledger.committed.log.size, goal)
        replay = Replay(self._log, self._names, self._ledger, progress.record, verify_signatures=False)
        check_published(self._log, self._names, self._ledger)
        for epoch in replay.catch_up():
            progress.epoch(epoch.head)
        progress.end()
        check_pinned(self._ledger)
        self._begin_epoch()
        config = self._work.config
        if config is not None:
            # Now, and not at the next marker: without its key this signer is of no use.
            self._keys.key_for(config.signer_key)
        self._observer.sealed(self._ledger.committed.queue_next, self._effects.monotonic())

    def join(self, group: GroupSubscription) -> None:
        """Become active with the one place at the queue."""
        self._group = group
        # Another signer may have advanced while this one waited.
        self.recover()
        _log.info("active", epoch=self._ledger.committed.epoch)
        self._observer.role(active=True)
        self._delivered = self._log.last_revision(self._names.queue)
        self._observer.seen(self._delivered)
        self._last_marker_at = self._last_heard_at = self._effects.monotonic()

    def deliver(self, event: Event) -> None:
        """Take what the subscription brought: the next event, an old one, or one behind a gap."""
        self._observer.seen(event.revision)
        self._delivered = max(self._delivered, event.revision)
        # Only the way to acknowledge it is kept: its data would be the memory of a whole epoch.
        self._unacknowledged.append(replace(event, data=b""))
        gap = event.revision - self._work.queue_next
        if gap > 0:
            self._read(min(gap, READ_AHEAD))
        if event.revision == self._work.queue_next:
            self._process(event)
        elif event.revision < self._ledger.committed.queue_next:
            self._acknowledge()
        else:
            self._behind = self._behind or gap > 0
        self._last_heard_at = self._effects.monotonic()

    def advance(self) -> None:
        """What is due between deliveries: catching up by reading, the watchdog, the patrol, a marker."""
        if self._behind or self._expects_more():
            started = self._effects.monotonic()
            self._behind = self._read(READ_AHEAD) == READ_AHEAD
            # Who reads does not listen: that is no silence of the subscription.
            self._last_heard_at += self._effects.monotonic() - started
        if self._is_owed_nothing():
            self._last_heard_at = self._effects.monotonic()
        self._watch()
        if self._effects.monotonic() - self._patrolled_at >= self.limits.patrol:
            self._patrol.step()
            self._patrolled_at = self._effects.monotonic()
        self._insert_marker()

    @property
    def is_behind(self) -> bool:
        """Whether there is more to read at once, without waiting for deliveries."""
        return self._behind

    def _read(self, limit: int) -> int:
        """Process up to ``limit`` events from the stream itself; how many there were."""
        count = 0
        for event in self._log.read(self._names.queue, self._work.queue_next, limit):
            self._process(event)
            count += 1
        return count

    def _expects_more(self) -> bool:
        waited = self._effects.monotonic() - self._last_marker_at
        lost = self._marker is not None and waited > self.limits.patience
        return lost or self._is_owed_nothing()

    def _is_owed_nothing(self) -> bool:
        """Whether the group has delivered about all that it may before the next acknowledgement."""
        return len(self._unacknowledged) >= self.limits.unacknowledged

    def _process(self, event: Event) -> None:
        """Decide one queue event, the next one, and end the epoch if it is the marker."""
        self._work.process(event)
        self._observer.took(event.revision, self._work.size, self._effects.monotonic())
        if self._work.is_closed:
            self._finish_epoch()

    def _begin_epoch(self) -> None:
        self._work = EpochWork(
            self._log,
            self._names,
            self._ledger,
            self._keys,
            self.limits.outbox,
            monotonic=self._effects.monotonic,
        )
        self._marker: NewEvent | None = None
        config, epoch = self._work.config, self._ledger.committed.epoch
        self._new_config = (
            config is not None and epoch > 0 and head_at(self._ledger, epoch)[1].config_hash != config.hash
        )
        if config is not None:
            self._observer.configured(config)

    def _finish_epoch(self) -> None:
        """Records, then the head, then the local commit, then the acknowledgement."""
        started = self._effects.monotonic()
        head = self._work.finish()
        self.finished += 1
        _log.info(
            "epoch",
            epoch=head.epoch,
            items=self._work.size,
            entries=head.map_size,
            seconds=round(self._effects.monotonic() - started, 3),
            verdicts=dict(self._work.verdicts),
        )
        self._last_marker_at = self._effects.monotonic()
        self._observer.sealed(head.queue_next, self._last_marker_at)
        done = self._work
        self._begin_epoch()
        self._acknowledge()
        phases = {**done.phases, "acknowledge": self._effects.monotonic() - self._last_marker_at}
        self._observer.finished(Finished(head, done.size, done.verdicts, phases))
        if self.limits.truncate:
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
        schedule = Schedule.of(config, self.limits.batch_limit)
        since_marker = self._effects.monotonic() - self._last_marker_at
        since_head = (self._effects.now() - self._ledger.committed.standing.timestamp) / 1000
        if not schedule.wants_marker(since_marker, since_head, self._work.size, new_config=self._new_config):
            return
        # Later than the last head's, even if the wall clock has stepped back.
        issued_at = max(self._effects.now(), self._ledger.committed.standing.timestamp + 1)
        key = self._keys.key_for(config.signer_key)
        marker = Marker.sign(self._effects.nonce(), issued_at, config.origin, key)
        self._marker = NewEvent(EPOCH_MARKER, marker.encode(), uuid.UUID(bytes=marker.nonce))
        self._log.append(self._names.queue, ANY, [self._marker])
        self._last_marker_at = self._effects.monotonic()

    def _watch(self) -> None:
        """Ask through a fresh client whether silence is silence: a hung server looks the same.

        What was read from the stream meanwhile, as one's own marker is, the subscription owes all the same:
        one that brings nothing any more would never be acknowledged.
        """
        if self._effects.monotonic() - self._last_heard_at < self.limits.watchdog:
            return
        fresh = self._effects.connect()
        try:
            last = fresh.last_revision(self._names.queue)
        finally:
            fresh.close()
        self._observer.seen(last)
        if last >= self._work.queue_next or last > self._delivered:
            self._observer.outage("silence")
            raise UnavailableError("the subscription is silent, but the queue has gone on")
        self._last_heard_at = self._effects.monotonic()
