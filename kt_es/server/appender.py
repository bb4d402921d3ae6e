"""Appends of a front end: repeated while their outcome is unknown, until a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from kt_es.errors import AccessDeniedError, KtError, UnavailableError
from kt_es.eventstore.streams import ANY, Append, EventLog, NewEvent
from kt_es.server.availability import LogWatch

DEADLINE = 8.0
PAUSE = 0.2


class Appender:
    """Appends single events at the end of streams, and repeats appends whose outcome is unknown.

    Denied appends are not repeated; the denials of ``watch`` remember them.
    """

    def __init__(
        self, log: Callable[[], EventLog], watch: LogWatch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._watch = watch
        self._clock = clock
        self._stop = threading.Event()

    def deadline(self) -> float:
        """Return the time by the clock at which an append that begins now is given up."""
        return self._clock() + DEADLINE

    def stop(self) -> None:
        """Give up the repetitions under way."""
        self._stop.set()

    def append(self, stream: str, event: NewEvent, deadline: float) -> None:
        """Append ``event``, which is durable on return.

        Its id depends on its content alone, so repeating the append is safe. Raises ``UnavailableError``
        after ``deadline``: the event may be in the stream nevertheless.
        """
        self.repeat(lambda: self._log().append(stream, ANY, [event]), deadline)

    def append_all(self, appends: Sequence[Append]) -> Sequence[KtError | None]:
        """Make many appends once, and return their outcomes (``EventLog.append_all``)."""
        try:
            return self._log().append_all(appends)
        except KtError as error:
            # The log could not be connected to.
            return [error] * len(appends)

    def denied(self, error: AccessDeniedError) -> None:
        """Note the missing right, which submissions are then refused for."""
        self._watch.denials.denied(error)

    def may_repeat(self, error: UnavailableError) -> bool:
        """Note that the outcome of an append is unknown, and wait; False if nothing is repeated any more."""
        self._watch.failed(error)
        return not self._stop.wait(PAUSE)

    def has_time(self, deadline: float) -> bool:
        """Return whether there is time for another attempt before ``deadline``."""
        return self._clock() + PAUSE < deadline

    def repeat(self, call: Callable[[], None], deadline: float) -> None:
        """Repeat an idempotent call until it succeeds or ``deadline`` comes."""
        while True:
            try:
                return call()
            except AccessDeniedError as error:
                self._watch.denials.denied(error)
                raise
            except UnavailableError as error:
                self._watch.failed(error)
                if self._clock() + PAUSE >= deadline or self._stop.wait(PAUSE):
                    raise
