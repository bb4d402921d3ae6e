"""A thread that runs until it is stopped, and reports when an error ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kt_es.errors import KtError


class Worker:
    """Runs ``run(stop)`` in a thread. ``run`` must return soon after the event ``stop`` is set.

    If an error ends ``run``, that thread calls ``failed`` with the error, unless ``stop`` is set already.
    """

    def __init__(
        self, name: str, run: Callable[[threading.Event], None], failed: Callable[[KtError], None]
    ) -> None:
        self.name = name
        self._run = run
        self._failed = failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, from any thread. ``join`` waits for the end."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end of the thread; return whether it has ended."""
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        error: KtError
        try:
            self._run(self._stop)
        except KtError as known:
            error = known
        except Exception as unknown:  # noqa: BLE001 - a thread that dies unseen would look like silence
            error = KtError(f"{self.name} failed: {type(unknown).__name__}: {unknown}")
        else:
            return
        # Errors are expected while the things that the thread uses are being closed.
        if not self.stopping:
            self._failed(error)
