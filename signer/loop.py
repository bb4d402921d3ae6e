"""The signer: it reads the queue and publishes records and heads, one epoch after the other.

The flow of one epoch, with the file that has each step:

1. ``Signer.deliver`` takes an event of the subscription. ``advance`` reads from the stream the events that
   are not delivered: those from before the group was joined, those beyond the group's limit of unacknowledged
   events, and those that a dead connection lost.
2. ``EpochWork.process`` (work.py) decides the event by ``EpochFold`` (kt_es/ledger/fold.py) and appends full
   records events by ``publish`` (work.py).
3. ``Signer._insert_marker`` appends a marker to the queue when ``Schedule`` (keys.py) wants one. The
   marker comes back by step 1 and closes the epoch.
4. ``EpochWork.finish`` publishes the remaining records, then the signed head, and then commits locally.
5. ``Signer._acknowledge`` acknowledges the events below the committed queue position.

After any error of the log, ``run_forever`` makes a new ``Signer``. Like every start, it begins at the last
commit, by ``recover``.

Threads: ``Signer``, ``EpochWork`` and the ledger belong to the thread that calls ``run_forever``
(service.py), and need no lock. ``signer-inbox`` only moves deliveries into a bounded queue; ``reloading``
replaces the limits, which are frozen; scrapes read ``SignerMetrics``.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import structlog

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import ANY, Event, EventLog, GroupSubscription, NewEvent, StreamNames
from kt_es.formats.queue import EPOCH_MARKER, Marker
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.ledger import Ledger, check_pinned, last_head
from kt_es.ledger.replay import Replay
from kt_es.ledger.verifiers import Verifiers
from signer.keys import KeyRing, Schedule
from signer.limits import Effects, EpochLimits
from signer.metrics import SignerMetrics, SignerProgress, last_published
from signer.outages import Step
from signer.patrol import Patrol, check_published
from signer.work import EpochWork

# How many events are read from the stream before the schedule is looked at again.
READ_AHEAD = 64

_LOG = structlog.get_logger("signer")


class Signer:
    """The signer over one connection: ``recover``, ``join``, then ``deliver`` and ``advance`` by turns.

    ``limits`` is asked at each use, because another thread may replace the limits. Every method raises
    ``UnavailableError`` when the log goes away and ``DivergenceError`` when it holds other events than this
    signer would write. The signer is of no use after that.

    Attributes:
        step: What the signer does. After an error this is what failed.
        done: How often each step succeeded.
    """

    def __init__(
        self,
        log: EventLog,
        names: StreamNames,
        ledger: Ledger,
        keys: KeyRing,
        *,
        effects: Effects,
        limits: Callable[[], EpochLimits],
        metrics: SignerMetrics | None = None,
        verifiers: Verifiers | None = None,
    ) -> None:
        self._log = log
        self._names = names
        self._ledger = ledger
        self._keys = keys
        self._effects = effects
        self._limits = limits
        self._metrics = metrics or SignerMetrics(effects.now, effects.monotonic)
        # Events are offered from their delivery on, or as they are read.
        self._verifiers = verifiers or Verifiers.none()
        self._verifiers.begin()
        self.step = Step.START
        self.done: Counter[Step] = Counter()
        # Before ``_begin_epoch``, which reads the stored head.
        check_commit(ledger)
        self._begin_epoch()
        self._unacknowledged: list[Event] = []  # without their data
        self._group: GroupSubscription | None = None
        # Whether more events can be read from the stream at once, without waiting for deliveries. Deliveries
        # begin where acknowledgements ended.
        self.is_behind = True
        self._last_marker_at = self._last_heard_at = self._patrolled_at = effects.monotonic()
        self._patrol = Patrol(log, names, ledger, int.from_bytes(effects.nonce()[:8]))
        # Revision of the last event that the subscription delivered. Events after it are still expected.
        self._delivered = -1

    def recover(self) -> None:
        """Bring the ledger to the last published head: by a replay, or from the state in a shared store.

        In a replay verdicts are decided, roots computed and heads verified again. The signatures of mutations
        are not verified: the head that this signer signed covers their verdicts.
        """
        goal = last_published(self._log, self._names.heads)
        progress = SignerProgress(self._effects.monotonic, self._ledger.committed.log.size, goal)
        check_published(self._log, self._names, self._ledger)
        following: Replay | Adoption
        if self._ledger.store.is_shared:
            following = Adoption(self._log, self._names, self._ledger, completes=True)
        else:
            following = Replay(self._log, self._names, self._ledger, progress.record, verify_signatures=False)
        for epoch in following.catch_up():
            progress.epoch(epoch.head)
            # An epoch that was published, and whose commit failed, is done now.
            self.done[Step.EPOCH] += 1
        progress.end()
        check_pinned(self._ledger)
        self._begin_epoch()
        if (config := self._work.config) is not None:
            # The key is looked up here and not at the next marker: a signer without its key must not join the
            # group.
            self._keys.key_for(config.signer_key)
        self._metrics.sealed(self._ledger.committed.queue_next)
        self.done[Step.START] += 1

    def join(self, group: GroupSubscription) -> int:
        """Become active as the only member of the group, and return the committed epoch."""
        self._group = group
        # Another signer may have advanced while this one waited.
        self.recover()
        self._metrics.role(active=True)
        self._delivered = self._log.last_revision(self._names.queue)
        self._metrics.seen(self._delivered)
        self._last_marker_at = self._last_heard_at = self._effects.monotonic()
        return self._ledger.committed.epoch

    def foresee(self, event: Event) -> None:
        """Note that ``event`` will be delivered. Any thread may call this."""
        self._verifiers.offer(event)

    def deliver(self, event: Event) -> None:
        """Process a delivered event: the next one, an old one, or one after a gap."""
        self._metrics.seen(event.revision)
        self._delivered = max(self._delivered, event.revision)
        # Without the data, which would hold a whole epoch in memory.
        self._unacknowledged.append(replace(event, data=b""))
        gap = event.revision - self._work.queue_next
        if gap > 0:
            self._read(min(gap, READ_AHEAD))
        if event.revision == self._work.queue_next:
            self._process(event)
        elif event.revision < self._ledger.committed.queue_next:
            self._acknowledge()
        else:
            self.is_behind = self.is_behind or gap > 0
        self._last_heard_at = self._effects.monotonic()

    def advance(self) -> None:
        """Do what is due between deliveries: read what is missing, watch, patrol, insert a marker."""
        if self.is_behind or self._expects_more():
            started = self._effects.monotonic()
            self.is_behind = self._read(READ_AHEAD) == READ_AHEAD
            # The signer takes no deliveries while it reads, so this time does not count as silence.
            self._last_heard_at += self._effects.monotonic() - started
        if self._is_group_full():
            self._last_heard_at = self._effects.monotonic()
        self._watch()
        if self._effects.monotonic() - self._patrolled_at >= self._limits().patrol:
            self.patrol()
        self._insert_marker()

    def patrol(self) -> None:
        """Compare a few published events with the committed state."""
        self.step = Step.PATROL
        self._patrol.step()
        self.step, self.done[Step.PATROL] = Step.START, self.done[Step.PATROL] + 1
        self._patrolled_at = self._effects.monotonic()

    def _read(self, limit: int) -> int:
        """Process up to ``limit`` events of the stream; return how many there were."""
        count = 0
        events = self._log.read(self._names.queue, self._work.queue_next, limit)
        for event in self._verifiers.ahead(events):
            self._process(event)
            count += 1
        return count

    def _expects_more(self) -> bool:
        waited = self._effects.monotonic() - self._last_marker_at
        lost = self._marker is not None and waited > self._limits().patience
        return lost or self._is_group_full()

    def _is_group_full(self) -> bool:
        """Return whether the group has delivered about all that it may before the next acknowledgement."""
        return len(self._unacknowledged) >= self._limits().unacknowledged

    def _process(self, event: Event) -> None:
        """Decide one queue event, the next one, and end the epoch if it is the marker."""
        self.step = Step.EPOCH
        self._work.process(event)
        self._metrics.decided(event.revision, self._work.size)
        if self._work.is_closed:
            self._finish_epoch()
            self.done[Step.EPOCH] += 1
        self.step = Step.START

    def _begin_epoch(self) -> None:
        outbox, clock = self._limits().outbox, self._effects.monotonic
        self._work = EpochWork(
            self._log,
            self._names,
            self._ledger,
            self._keys,
            outbox,
            verifiers=self._verifiers,
            monotonic=clock,
        )
        self._marker: NewEvent | None = None
        config, epoch = self._work.config, self._ledger.committed.epoch
        self._new_config = (
            config is not None and epoch > 0 and last_head(self._ledger)[1].config_hash != config.hash
        )
        if config is not None:
            self._metrics.configured(config)

    def _finish_epoch(self) -> None:
        """Publish records, then the head, commit locally, then acknowledge and truncate."""
        started = self._effects.monotonic()
        head = self._work.finish()
        _LOG.info(
            "epoch",
            epoch=head.epoch,
            items=self._work.size,
            entries=head.map_size,
            seconds=round(self._effects.monotonic() - started, 3),
            verdicts=self._work.verdicts,
        )
        self._last_marker_at = self._effects.monotonic()
        self._metrics.sealed(head.queue_next)
        done = self._work
        self._begin_epoch()
        self._acknowledge()
        phases = {**done.phases, "acknowledge": self._effects.monotonic() - self._last_marker_at}
        self._metrics.finished(head, done.size, done.verdicts, phases)
        if self._limits().truncate:
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
        if (config := self._work.config) is None or self._marker is not None:
            return
        schedule = Schedule.of(config, self._limits().batch_limit)
        since_marker = self._effects.monotonic() - self._last_marker_at
        since_head = (self._effects.now() - self._ledger.committed.standing.timestamp) / 1000
        if not schedule.wants_marker(since_marker, since_head, self._work.size, new_config=self._new_config):
            return
        # Later than the last head, even if the wall clock has stepped back.
        issued_at = max(self._effects.now(), self._ledger.committed.standing.timestamp + 1)
        key = self._keys.key_for(config.signer_key)
        marker = Marker.sign(self._effects.nonce(), issued_at, config.origin, key)
        self._marker = NewEvent(EPOCH_MARKER, marker.encode(), uuid.UUID(bytes=marker.nonce))
        self._log.append(self._names.queue, ANY, [self._marker])
        self._last_marker_at = self._effects.monotonic()

    def _watch(self) -> None:
        """Ask a fresh client after a long silence whether the queue has grown: a hung server is silent.

        Raises ``UnavailableError`` if the queue has events that the subscription did not deliver. Events that
        were read from the stream are no exception: without a delivery they cannot be acknowledged.
        """
        if self._effects.monotonic() - self._last_heard_at < self._limits().watchdog:
            return
        with closing(self._effects.connect()) as fresh:
            last = fresh.last_revision(self._names.queue)
        self._metrics.seen(last)
        if last >= self._work.queue_next or last > self._delivered:
            self._metrics.outage("silence")
            raise UnavailableError(
                f"{self._names.queue} has revision {last}, but the subscription is silent after revision "
                f"{self._delivered}: connecting again"
            )
        self._last_heard_at = self._effects.monotonic()
