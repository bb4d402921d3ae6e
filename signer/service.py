"""The signer as a process: its data directory, its keys, and the loop until it is told to stop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.keys import PublicKey
from kt_es.ledger.convicting import keeping_evidence
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rocks import open_patiently
from kt_es.ledger.tables import FAMILIES
from kt_es.process.exposition import exposed
from kt_es.process.outage import Outage
from kt_es.process.signals import Reloaded, differing, reloading
from signer.keys import KeyRing
from signer.loop import Effects, EpochLimits, Signer
from signer.metrics import SignerMetrics
from signer.runner import run_forever

_LOG = structlog.get_logger("signer")


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


class _CurrentLimits:
    """The limits in force, for the signer at work and for those after it.

    Used by the thread ``reloading`` and by the signer's thread. The lock guards all fields.
    """

    def __init__(self, started: SignerSettings, reread: Callable[[], SignerSettings]) -> None:
        self._lock = threading.Lock()
        self.now = started.limits
        self._signer: Signer | None = None
        self._started = started
        self._reread = reread

    def reload(self) -> Reloaded:
        new = self._reread()
        with self._lock:
            changed = differing(self.now, new.limits)
            self.now = new.limits
            if self._signer is not None:
                self._signer.limits = new.limits
        return Reloaded(changed, differing(self._started, new, but=("limits",)))

    def follow(self, signer: Signer) -> Signer:
        """Keep the limits of ``signer`` current from now on, instead of those of the signer before it."""
        with self._lock:
            signer.limits = self.now
            self._signer = signer
        return signer


def serve(
    settings: SignerSettings,
    connect: Callable[[], EventLog],
    stop: threading.Event,
    reread: Callable[[], SignerSettings] | None = None,
) -> None:
    """Sign until ``stop``; while the disk is full, wait for space.

    After each SIGHUP ``reread`` returns the new settings, and their limits are in force.

    Raises ``ConfigError`` for keys and directories that cannot be used, ``LockedError`` if another
    process has the data directory, ``RollbackError`` if the log lost what was published,
    ``EquivocationError`` with saved evidence if it holds another signed head, ``DivergenceError`` if what
    is published is not what must be.
    """
    keys = KeyRing.load(settings.keys)
    effects = Effects(connect, lambda: time.time_ns() // 1_000_000, time.monotonic, lambda: os.urandom(16))
    metrics = SignerMetrics(effects.now, effects.monotonic)
    with ExitStack() as stack:
        if settings.metrics is not None:
            stack.enter_context(exposed(metrics.registry, *settings.metrics))
        outage = Outage("signer", _LOG)
        store = open_patiently(settings.data, FAMILIES, stop, outage, metrics.disk_waits)
        if store is None:
            return
        stack.callback(store.close)
        metrics.disk_is_full = lambda: store.is_full
        stack.enter_context(keeping_evidence(settings.data))
        ledger = Ledger(store, settings.origin, settings.pinned)

        limits = _CurrentLimits(settings, reread or (lambda: settings))

        def signer(log: EventLog) -> Signer:
            # Before it joins the group: after a failure a standby on another disk may join instead.
            ledger.resume()
            return limits.follow(
                Signer(
                    log, settings.names, ledger, keys, effects=effects, limits=limits.now, observer=metrics
                )
            )

        stack.enter_context(reloading(limits.reload))
        run_forever(connect, signer, settings.names.queue, stop, metrics, outage=outage)
