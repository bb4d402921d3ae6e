"""What a process logs while the event log cannot be reached: the beginning, each minute, and the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

REMINDER = 60.0
"""Seconds between two lines of one outage."""


class Outage:
    """The outages of one part of a process that needs the log and tries again by itself.

    ``part`` names it in each line: a process has several, and each has its own connection. Each outage has a
    number, so that its first line is no repetition of another one's. ``clock`` is
    monotonic, in seconds. May be used from any thread.
    """

    def __init__(
        self, part: str, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._part = part
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._count = 0
        self._told = 0.0

    def failed(self, problem: str) -> None:
        """The log could not be reached; to be called at every attempt."""
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since = self._told = now
                self._count += 1
                self._log.warning("the log is away", part=self._part, outage=self._count, problem=problem)
            elif now - self._told >= REMINDER:
                self._told = now
                self._log.warning(
                    "the log is still away", part=self._part, seconds=self._lasted(now), problem=problem
                )

    def over(self) -> None:
        """The log was reached; of no effect where there is no outage."""
        with self._lock:
            if self._since is not None:
                seconds = self._lasted(self._clock())
                self._since = None
                self._log.info("the log is reachable again", part=self._part, seconds=seconds)

    def _lasted(self, now: float) -> float:
        return round(now - (now if self._since is None else self._since), 1)
