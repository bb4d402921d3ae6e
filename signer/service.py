"""The signer as a process: its data directory, its keys, and the loop, which begins again after an outage."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue

import structlog

from kt_es.errors import DiskFullError, KtError, UnavailableError
from kt_es.eventstore.connecting import Connector
from kt_es.eventstore.streams import Event, EventLog, GroupSubscription, StreamNames
from kt_es.formats.entries import PublicKey
from kt_es.ledger.convicting import keeping_evidence
from kt_es.ledger.stores import Sharing, opened_ledger
from kt_es.ledger.verifiers import Verifiers
from kt_es.process.clock import wall_clock
from kt_es.process.exposition import exposed
from kt_es.process.outage import Backoff, Outage, keep_trying, kind_of
from kt_es.process.signals import Reload, Reloaded, Worker, differing, reloading
from signer.keys import KeyRing
from signer.limits import Effects, EpochLimits
from signer.loop import Signer
from signer.metrics import SignerMetrics
from signer.outages import LoopOutages, Step

GROUP = "kt-signer"
# Bytes of delivered events that wait for the signer, and the bytes that each event counts beside its data.
INBOX_BYTES = 2 << 20
ENVELOPE = 1 << 10
GRACE = 5.0  # seconds
TICK = 0.05  # seconds that the signer waits for a delivery before it does what else is due
STANDBY = 0.5  # seconds between two attempts of a standby to join the group

_LOG = structlog.get_logger("signer")


def run_forever(
    connect: Callable[[], EventLog],
    new_signer: Callable[[EventLog], Signer],
    queue: str,
    stop: threading.Event,
    metrics: SignerMetrics,
    *,
    outage: Outage,
    passing: tuple[type[KtError], ...] = (UnavailableError,),
) -> None:
    """Run a signer until ``stop``. After an outage, a new signer continues.

    Args:
        connect: Makes a client of the event log, for each signer.
        new_signer: Makes a signer over a client.
        queue: The name of the queue's stream.
        stop: Ends the call.
        metrics: Gets what the signer waits for, and whether it is active.
        outage: Logs each outage.
        passing: The errors that are outages. Every other error is raised, because people have to look at a
            divergence or an unusable key.
    """
    backoff, outages, step = Backoff(), LoopOutages(outage, metrics), Step.START

    def attempt() -> None:
        nonlocal step
        step = Step.START
        with closing(connect()) as log:
            signer = new_signer(log)
            try:
                _run(log, signer, queue, stop, outages)
            finally:
                step = signer.step
                if signer.done[Step.EPOCH]:
                    # An outage after a time of work is a new one.
                    backoff.reset()

    def failed(error: KtError) -> None:
        outages.failed(error, step)

    keep_trying(attempt, stop, outage, backoff, on_failure=failed, passing=passing)


def _run(log: EventLog, signer: Signer, queue: str, stop: threading.Event, outages: LoopOutages) -> None:
    log.last_revision(queue)
    outages.reached()
    signer.recover()
    group = _join_when_free(log, signer, queue, stop, outages)
    if group is None:
        return
    with inbox_of(group, signer.foresee) as inbox:
        outages.became("active", epoch=signer.join(group))
        while not stop.is_set():
            with suppress(Empty):
                delivered = inbox.get(timeout=0 if signer.is_behind else TICK)
                if isinstance(delivered, KtError):
                    raise delivered
                signer.deliver(delivered)
            signer.advance()
            if outages.failing:
                outages.succeeded(signer.done)


def _join_when_free(
    log: EventLog, signer: Signer, queue: str, stop: threading.Event, outages: LoopOutages
) -> GroupSubscription | None:
    """Join the group, which has one member, once it is free; return None if ``stop`` is set first."""
    waiting = False
    while not stop.is_set():
        group = log.join_group(queue, GROUP)
        if group is not None:
            outages.succeeded(signer.done)
            return group
        if not waiting:
            outages.became("standby")
            waiting = True
        # A standby follows the logs, so it can take over quickly.
        signer.recover()
        if Step.PATROL in outages.failing:
            signer.patrol()
        # The active signer builds the epochs.
        outages.succeeded({**signer.done, Step.EPOCH: 1})
        stop.wait(STANDBY)
    return None


class _Inbox(Queue["Event | KtError"]):
    """A queue that is bounded in bytes: a bound on the number of events would let large ones fill a GB."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._size = 0

    def _qsize(self) -> int:
        return self._size

    def _put(self, item: Event | KtError) -> None:
        super()._put(item)
        self._size += _weight(item)

    def _get(self) -> Event | KtError:
        item: Event | KtError = super()._get()
        self._size -= _weight(item)
        return item


def _weight(item: Event | KtError) -> int:
    return ENVELOPE + (len(item.data) if isinstance(item, Event) else 0)


@contextmanager
def inbox_of(
    group: GroupSubscription, foresee: Callable[[Event], None] = lambda _: None
) -> Iterator[Queue[Event | KtError]]:
    """Yield a bounded queue of the deliveries of ``group``, filled by a thread. Its error comes last.

    The thread calls ``foresee`` with each delivery before it waits for room in the queue.
    The queue's own lock guards it: the thread ``signer-inbox`` puts, the signer's thread gets.
    """
    inbox = _Inbox(INBOX_BYTES)

    def put(thing: Event | KtError) -> None:
        while not worker.stopping:
            with suppress(Full):
                inbox.put(thing, timeout=0.5)
                return

    def receive(stop: threading.Event) -> None:
        for event in group:
            foresee(event)
            put(event)
            if stop.is_set():
                return
        raise UnavailableError("the subscription has ended")

    # Another subscription may work where a bug of the client library ended this one.
    worker = Worker("signer-inbox", receive, put, unforeseen=UnavailableError)
    worker.start()
    try:
        yield inbox
    finally:
        worker.stop()
        group.stop()
        worker.end(GRACE)


@dataclass(frozen=True, slots=True)
class SignerSettings:
    """``pinned`` is any signer key of the directory and begins a new one; ``keys`` has the private ones.

    ``log`` is a connection string (``esdb://...``).
    """

    names: StreamNames
    origin: str
    pinned: PublicKey
    log: str
    data: Path
    keys: Path
    limits: EpochLimits
    metrics: tuple[str, int] | None = None  # host and port to serve metrics at
    sharing: Sharing | None = None  # where the map is, if it is not in ``data``


def serve(
    settings: SignerSettings,
    stop: threading.Event,
    reread: Callable[[], SignerSettings] | None = None,
    *,
    connect: Callable[[], EventLog] | None = None,
) -> None:
    """Sign until ``stop``; while the disk is full, wait for space.

    After each SIGHUP ``reread`` returns the new settings, and their limits are in force. ``connect`` opens a
    client of the log; None does as ``settings`` say.

    Raises:
        ConfigError, LockedError: A key, the data directory or the connection string cannot be used.
        RollbackError: the log lost what was published.
        EquivocationError: the log holds another signed head; the evidence is saved.
        DivergenceError: the log or the data directory holds something else than it must.
    """
    connect = connect or Connector(settings.log)
    keys = KeyRing.load(settings.keys)
    reload = Reload(settings, reread, ("limits",), _changed_limits)
    effects = Effects(connect, wall_clock, time.monotonic, lambda: os.urandom(16))
    metrics = SignerMetrics(effects.now, effects.monotonic)
    outage = Outage("signer", _LOG, on_begin=metrics.outage)

    def waits(error: KtError) -> None:
        metrics.disk_full.set(isinstance(error, DiskFullError))
        metrics.waits(kind_of(error))

    with ExitStack() as stack:
        if settings.metrics is not None:
            stack.enter_context(exposed(metrics.registry, *settings.metrics))
        where = settings.data, settings.sharing, settings.origin, settings.pinned
        opening = opened_ledger(*where, stop=stop, outage=outage, on_failure=waits)
        ledger = stack.enter_context(opening)
        if ledger is None:
            return
        metrics.waits()
        metrics.disk_full.set_function(lambda: ledger.store.is_full)
        stack.enter_context(keeping_evidence(settings.data))
        verifiers = stack.enter_context(Verifiers(settings.origin))

        def signer(log: EventLog) -> Signer:
            # Before it joins the group: after a failure a standby on another disk may join instead.
            ledger.resume()
            return Signer(
                log,
                settings.names,
                ledger,
                keys,
                effects=effects,
                limits=lambda: reload.current.limits,
                metrics=metrics,
                verifiers=verifiers,
            )

        stack.enter_context(reloading(reload))
        queue = settings.names.queue
        run_forever(connect, signer, queue, stop, metrics, outage=outage, passing=ledger.passing)


def _changed_limits(before: SignerSettings, new: SignerSettings) -> Reloaded:
    """The signer's thread asks for the limits at each use, so new ones are in force at once."""
    return Reloaded(differing(before.limits, new.limits))
