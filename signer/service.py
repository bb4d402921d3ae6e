"""The signer as a process: its data directory, its keys, and the loop, which begins again after an outage."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Full, Queue

import structlog

from kt_es.errors import DiskFullError, KtError, StoreAwayError, UnavailableError, UnverifiedRowError
from kt_es.eventstore.streams import Event, EventLog, GroupSubscription, StreamNames
from kt_es.formats.entries import PublicKey
from kt_es.ledger.convicting import keeping_evidence
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.pages import CACHE_BYTES
from kt_es.ledger.stores import Sharing, open_store
from kt_es.process.clock import wall_clock
from kt_es.process.exposition import exposed
from kt_es.process.outage import Backoff, Outage, keep_trying, patiently
from kt_es.process.signals import Reloaded, differing, reloading
from signer.keys import KeyRing
from signer.loop import Effects, EpochLimits, Signer
from signer.metrics import SignerMetrics

GROUP = "kt-signer"
# Bytes of delivered events that wait for the signer, and the bytes that each event counts beside its data.
INBOX_BYTES = 2 << 20
ENVELOPE = 1 << 10
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
        metrics: Gets the outages and whether the signer is active.
        outage: Logs each outage.
        passing: The errors that are outages. Every other error is raised, because people have to look at a
            divergence or an unusable key.
    """
    backoff = Backoff()

    def attempt() -> None:
        with closing(connect()) as log:
            signer = new_signer(log)
            try:
                _run(log, signer, queue, stop, outage)
            finally:
                if signer.finished:
                    # An outage after a time of work is a new one.
                    backoff.reset()

    def failed(error: KtError) -> None:
        metrics.role(active=False)
        metrics.outage(_kind(error))

    keep_trying(attempt, stop, outage, backoff, on_failure=failed, passing=passing)


def _kind(error: KtError) -> str:
    match error:
        case DiskFullError():
            return "disk"
        case StoreAwayError() | UnverifiedRowError():
            return "store"
    return "log"


def _run(log: EventLog, signer: Signer, queue: str, stop: threading.Event, outage: Outage) -> None:
    signer.recover()
    group = _join_when_free(log, signer, queue, stop, outage)
    if group is None:
        return
    with inbox_of(group) as inbox:
        signer.join(group)
        while not stop.is_set():
            with suppress(Empty):
                delivered = inbox.get(timeout=0 if signer.is_behind else TICK)
                if isinstance(delivered, KtError):
                    raise delivered
                signer.deliver(delivered)
            signer.advance()


def _join_when_free(
    log: EventLog, signer: Signer, queue: str, stop: threading.Event, outage: Outage
) -> GroupSubscription | None:
    """Join the group, which has one member, once it is free; return None if ``stop`` is set first."""
    waiting = False
    while not stop.is_set():
        group = log.join_group(queue, GROUP)
        outage.over()
        if group is not None:
            return group
        if not waiting:
            _LOG.info("standby")
            waiting = True
        # A standby follows the logs, so it can take over quickly.
        signer.recover()
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
def inbox_of(group: GroupSubscription) -> Iterator[Queue[Event | KtError]]:
    """Yield a bounded queue of the deliveries of ``group``, filled by a thread. Its error comes last.

    The queue's own lock guards it: the thread ``signer-inbox`` puts, the signer's thread gets.
    """
    inbox = _Inbox(INBOX_BYTES)
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
        except Exception as error:  # noqa: BLE001 - a thread that dies unseen would look like silence
            put(UnavailableError(f"the subscription failed: {type(error).__name__}: {error}"))

    thread = threading.Thread(target=receive, name="signer-inbox", daemon=True)
    thread.start()
    try:
        yield inbox
    finally:
        closed.set()
        group.stop()
        thread.join(timeout=5)


@dataclass(frozen=True, slots=True)
class SignerSettings:
    """``pinned`` is any signer key of the directory and begins a new one; ``keys`` has the private ones."""

    names: StreamNames
    origin: str
    pinned: PublicKey
    data: Path
    keys: Path
    limits: EpochLimits
    metrics: tuple[str, int] | None = None  # host and port to serve metrics at
    sharing: Sharing | None = None  # where the map is, if it is not in ``data``


@dataclass(slots=True)
class _Reloading:
    """Brings limits into force when the settings are read again. The signer's thread reads ``limits``."""

    started: SignerSettings
    limits: EpochLimits
    reread: Callable[[], SignerSettings]

    def __call__(self) -> Reloaded:
        new = self.reread()
        changed, self.limits = differing(self.limits, new.limits), new.limits
        return Reloaded(changed, differing(self.started, new, but=("limits",)))


def serve(
    settings: SignerSettings,
    connect: Callable[[], EventLog],
    stop: threading.Event,
    reread: Callable[[], SignerSettings] | None = None,
) -> None:
    """Sign until ``stop``; while the disk is full, wait for space.

    After each SIGHUP ``reread`` returns the new settings, and their limits are in force.

    Raises:
        ConfigError, LockedError: A key or the data directory cannot be used.
        RollbackError: The log lost published events.
        EquivocationError: The log holds another signed head; the evidence is saved.
        DivergenceError: The log or the data directory differs from what this signer committed.
    """
    keys = KeyRing.load(settings.keys)
    reload = _Reloading(settings, settings.limits, reread or (lambda: settings))
    effects = Effects(connect, wall_clock, time.monotonic, lambda: os.urandom(16))
    metrics = SignerMetrics(effects.now, effects.monotonic)
    outage = Outage("signer", _LOG)

    def waits(error: KtError) -> None:
        metrics.disk_full.set(isinstance(error, DiskFullError))
        metrics.waits(_kind(error))

    with ExitStack() as stack:
        if settings.metrics is not None:
            stack.enter_context(exposed(metrics.registry, *settings.metrics))
        opening = partial(open_store, settings.data, settings.sharing)
        store = patiently(opening, stop, outage, waits)
        if store is None:
            return
        stack.callback(store.close)
        metrics.disk_full.set_function(lambda: store.is_full)
        stack.enter_context(keeping_evidence(settings.data))
        cache = CACHE_BYTES if settings.sharing is None else settings.sharing.cache
        ledger = patiently(
            partial(Ledger, store, settings.origin, settings.pinned, cache_bytes=cache), stop, outage, waits
        )
        if ledger is None:
            return
        writer: Ledger = ledger

        def signer(log: EventLog) -> Signer:
            # Before the signer joins the group: if this fails, a standby on another disk may join instead.
            writer.resume()
            return Signer(
                log,
                settings.names,
                writer,
                keys,
                effects=effects,
                limits=lambda: reload.limits,
                metrics=metrics,
            )

        stack.enter_context(reloading(reload))
        run_forever(
            connect, signer, settings.names.queue, stop, metrics, outage=outage, passing=writer.passing
        )
