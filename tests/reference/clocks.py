"""Clocks that only a test or the client's own pauses move, so that a busy machine uses up no timeout."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

_MODULES = (
    *("transport", "attempts", "publishing", "session", "directory", "submitting", "bulk"),
    *("checkpoints", "vouching"),
)


class Clock:
    """The time ``now``, in seconds, which the test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Pauses:
    """The time of a client: it stands still while the client works, and a pause takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass, also where a server in memory takes them."""
        with self._lock:
            self.now += seconds

    @classmethod
    def installed(cls, patch: pytest.MonkeyPatch) -> Pauses:
        pauses = cls()
        time = SimpleNamespace(monotonic=lambda: pauses.now, sleep=pauses.sleep)
        for module in _MODULES:
            patch.setattr(f"kt_es.client.{module}.time", time)
        return pauses
