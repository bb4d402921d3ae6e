"""Pauses between attempts that fail: each is twice as long as the one before, up to a bound."""

from __future__ import annotations


class Backoff:
    """The pauses of one thread, in seconds. Not safe for use by several threads."""

    def __init__(self, first: float = 0.2, last: float = 2.0) -> None:
        """Begin with a pause of ``first``. No pause is longer than ``last``."""
        self._first = self._next = first
        self._last = last

    def pause(self) -> float:
        """Return how long to wait now, and double the next pause."""
        pause, self._next = self._next, min(2 * self._next, self._last)
        return pause

    def reset(self) -> None:
        """Return to the shortest pause, after an attempt that succeeded."""
        self._next = self._first
