"""Log lines that repeat: the first is written at once, those after it are counted.

A warning or an error that stands in the log is written again no sooner than ``WINDOW`` seconds later. What
came meanwhile is one line more, at the end of that time or of the process, with ``repeated``: how often.
Lines are the same if every member is: no error hides another one. Lines of a lower level say what a process
did, and each is written.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from structlog.typing import EventDict

WINDOW = 60.0
KEPT = 256
"""Different lines that are remembered; with one more, the count of the oldest is written early."""

_COUNTED = ("warning", "error", "critical")


@dataclass(slots=True)
class _Line:
    event: EventDict
    until: float
    repeated: int = 0


class Repeats:
    """A processor of structlog, behind those that make a line what it is and before its timestamp.

    ``write`` is given the lines that say how often another one came; it must not log. ``clock`` is monotonic,
    in seconds. May be used from any thread; somebody calls ``tick`` now and then, and ``end`` at the end.
    """

    def __init__(self, write: Callable[[EventDict], None], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        # Reentrant: a finalizer may run, and log, wherever memory is taken.
        self._lock = threading.RLock()
        # The oldest first.
        self._lines: dict[str, _Line] = {}

    def __call__(self, _: object, __: str, event: EventDict) -> EventDict:
        if event.get("level") not in _COUNTED:
            self.tick()
            return event
        key = json.dumps(event, sort_keys=True, default=repr)
        with self._lock:
            over = self._pop_due(self._clock())
            line = self._lines.get(key)
            if line is not None:
                line.repeated += 1
            else:
                self._lines[key] = _Line(dict(event), self._clock() + WINDOW)
                if len(self._lines) > KEPT:
                    over.append(self._lines.pop(next(iter(self._lines))))
        self._write_counts(over)
        if line is not None:
            raise structlog.DropEvent
        return event

    def tick(self) -> None:
        """Write the counts that are due."""
        with self._lock:
            over = self._pop_due(self._clock())
        self._write_counts(over)

    def end(self) -> None:
        """Write all counts: the process ends."""
        with self._lock:
            over = list(self._lines.values())
            self._lines.clear()
        self._write_counts(over)

    def _pop_due(self, now: float) -> list[_Line]:
        due = [key for key, line in list(self._lines.items()) if line.until <= now]
        return [self._lines.pop(key) for key in due]

    def _write_counts(self, lines: list[_Line]) -> None:
        for line in lines:
            if line.repeated:
                self._write({**line.event, "repeated": line.repeated})
