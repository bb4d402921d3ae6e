"""The signer as a process: its data directory, its keys, and the loop until it is told to stop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.keys import PublicKey
from projections.convicting import keeping_evidence
from projections.exposition import exposed
from projections.ledger import FAMILIES, Ledger
from projections.rocks import Store
from signer.keys import KeyRing
from signer.loop import Effects, Limits, Signer
from signer.metrics import SignerMetrics
from signer.runner import run_forever


@dataclass(frozen=True, slots=True)
class SignerSettings:
    """``pinned`` is any signer key of the directory and begins a new one; ``keys`` has the private ones."""

    names: StreamNames
    origin: str
    pinned: PublicKey
    data: Path
    keys: Path
    limits: Limits
    metrics: tuple[str, int] | None = None  # host and port, where figures are wanted


def serve(settings: SignerSettings, connect: Callable[[], EventLog], stop: threading.Event) -> None:
    """Sign until ``stop``.

    Raises ``ConfigError`` for keys and directories that cannot be used, ``LockedError`` if another
    process has the data directory, ``RollbackError`` if the log lost what was published,
    ``EquivocationError`` with saved evidence if it holds another signed head, ``DivergenceError`` if what
    is published is not what must be.
    """
    keys = KeyRing.load(settings.keys)
    effects = Effects(connect, lambda: time.time_ns() // 1_000_000, time.monotonic, lambda: os.urandom(16))
    metrics = SignerMetrics(effects.now, effects.monotonic)
    with ExitStack() as stack:
        store = Store.open(settings.data, FAMILIES)
        stack.callback(store.close)
        if settings.metrics is not None:
            stack.enter_context(exposed(metrics.registry, *settings.metrics))
        stack.enter_context(keeping_evidence(settings.data))
        ledger = Ledger(store, settings.origin, settings.pinned)

        def signer(log: EventLog) -> Signer:
            return Signer(
                log, settings.names, ledger, keys, effects=effects, limits=settings.limits, observer=metrics
            )

        run_forever(connect, signer, settings.names.queue, stop, metrics)
