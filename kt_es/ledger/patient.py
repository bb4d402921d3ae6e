"""Opens the storage of a process that goes on for good: where its disk has no space, it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from kt_es.errors import DiskFullError
from kt_es.ledger.rocks import Store
from kt_es.process.outage import Outage

PAUSE = 1.0


def _ignore() -> None:
    return


def open_patiently(
    directory: Path,
    families: Sequence[str],
    stop: threading.Event,
    outage: Outage,
    waits: Callable[[], None] = _ignore,
) -> Store | None:
    """``Store.open`` as soon as there is space for it; None if ``stop`` came first.

    ``waits`` is told while there is none. Storage that is there already opens on a full disk as well. Raises
    what ``Store.open`` raises.
    """
    while not stop.is_set():
        try:
            store = Store.open(directory, families)
        except DiskFullError as error:
            outage.failed(error)
            waits()
            stop.wait(PAUSE)
        else:
            outage.over()
            return store
    return None
