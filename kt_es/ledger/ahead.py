"""Events that are read, and offered to the processes that verify, some time before they are decided."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from kt_es.eventstore.streams import Event

WINDOW: Final = 2 << 20
"""Bytes of events that are read before the first of them is decided."""
MORE: Final = 512 << 10
"""Bytes of events that one call of ``read_on`` reads."""
AHEAD: Final = 12 << 20
"""Bytes of events that wait for the decision, at most: about what two processors verify while 100,000 entries
are put into a map of a million."""


class Ahead:
    """Yields ``events`` in their order. An error of theirs is raised after the events that came before it."""

    def __init__(self, events: Iterable[Event], offer: Callable[[Event], None]) -> None:
        self._events: Iterator[Event] | None = iter(events)
        self._offer = offer
        self._read: deque[Event] = deque()
        self._size = 0
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        self._fill(WINDOW)
        if self._read:
            event = self._read.popleft()
            self._size -= len(event.data)
            return event
        failure, self._failure = self._failure, None
        raise failure or StopIteration

    def read_on(self) -> None:
        """Read a few more events, for a decision that takes long over something else."""
        self._fill(min(self._size + MORE, AHEAD - MORE))

    def _fill(self, size: int) -> None:
        while self._events is not None and self._size <= size:
            try:
                event = next(self._events, None)
            except Exception as error:  # noqa: BLE001 - raised by ``__next__``, in its order
                event, self._failure = None, error
            if event is None:
                self._events = None
                return
            self._offer(event)
            self._read.append(event)
            self._size += len(event.data)
