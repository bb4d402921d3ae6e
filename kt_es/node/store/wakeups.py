"""Who wants to know when a stream, or $all, has grown.

Only the fact is passed on, never the events: a subscriber that is slow or stuck reads on from storage
when it can, so it costs the same memory as an idle one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

ALL = ""  # no stream has an empty name


class Wakeups:
    """Callbacks by stream name. Everything happens on the event loop's thread."""

    def __init__(self) -> None:
        self._callbacks: dict[str, set[Callable[[], None]]] = {}

    def add(self, name: str, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every durable append to stream ``name`` (``ALL``: to any)."""
        self._callbacks.setdefault(name, set()).add(callback)

    def remove(self, name: str, callback: Callable[[], None]) -> None:
        """Undo ``add``."""
        callbacks = self._callbacks.get(name)
        if callbacks is not None:
            callbacks.discard(callback)
            if not callbacks:
                del self._callbacks[name]

    def grown(self, names: Iterable[str]) -> None:
        """These streams have grown."""
        for name in (*names, ALL):
            for callback in tuple(self._callbacks.get(name, ())):
                callback()
