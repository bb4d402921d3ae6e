"""Whether the event log can be reached, as failed calls and a regular probe show.

While the log is away, submissions are refused at once instead of waiting for deadlines. A probe that succeeds
ends this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from kt_es.errors import AccessDeniedError, UnavailableError
from kt_es.eventstore.streams import ANY, NewEvent
from kt_es.process.outage import Outage
from kt_es.server.late import RequestLog
from kt_es.server.problems import AWAY, NotNowError, denial
from kt_es.server.rights import Denials

AWAY_INTERVAL = 0.5
PROBE_INTERVAL = 2.0
DEADLINE = 8.0
PAUSE = 0.2

_AWAY = f"{AWAY}; the log of this front end says why"

_LOG = structlog.get_logger("kt_es.server")


def _ignore(_: int) -> None:
    return


class LogWatch:
    """The state of the event log. Before the first probe it counts as away.

    ``run`` probes, in a thread of its own; any thread may call the rest. Each successful probe calls
    ``looked`` with the last revision of ``stream``. ``denials`` holds the missing rights, and each probe asks
    for them again. ``clock`` is monotonic.
    """

    def __init__(
        self,
        log: RequestLog,
        stream: str,
        looked: Callable[[int], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._stream = stream
        self._looked = looked
        self.denials = Denials(log, stream)
        self._outage = Outage("requests", _LOG, clock)
        self._problem: str | None = "the event log was not reached yet"

    @property
    def problem(self) -> str | None:
        """The reason why the log cannot be reached, in words for clients; None while it can."""
        return self._problem

    def check(self) -> None:
        """Raise ``UnavailableError`` while the log is away or denies the queue."""
        if self._problem is not None:
            raise NotNowError("the event log is away; lookups go on, try again later")
        self.denials.check()

    def failed(self, error: UnavailableError | AccessDeniedError) -> None:
        """A call failed: the log is away until a probe succeeds."""
        self._outage.failed(str(error))
        self._problem = denial(error) if isinstance(error, AccessDeniedError) else _AWAY

    def probe(self) -> None:
        """Send the log a small request, and note whether it answers."""
        try:
            self._looked(self._log.last_revision(self._stream))
            self.denials.probe()
        except AccessDeniedError as error:
            self.denials.denied(error)
            self.failed(error)
            return
        except UnavailableError as error:
            self.failed(error)
            return
        self._outage.over()
        self._problem = None

    def run(self, stop: threading.Event) -> None:
        """Probe until ``stop``: every 2 seconds, and every half second while the log is away."""
        self.probe()
        probed = time.monotonic()
        while not stop.wait(AWAY_INTERVAL):
            is_well = self._problem is None and self.denials.problem is None
            if not is_well or time.monotonic() - probed >= PROBE_INTERVAL:
                self.probe()
                probed = time.monotonic()


class Appender:
    """Appends single events at the end of streams, and repeats appends whose outcome is unknown.

    Denied appends are not repeated; the denials of ``watch`` remember them.
    """

    def __init__(self, log: RequestLog, watch: LogWatch, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._watch = watch
        self._clock = clock
        self._stop = threading.Event()

    def deadline(self) -> float:
        """The time by the clock at which an append that begins now is given up."""
        return self._clock() + DEADLINE

    def stop(self) -> None:
        """Give up the repetitions under way."""
        self._stop.set()

    def append(self, stream: str, event: NewEvent, deadline: float) -> None:
        """Append ``event``, which is durable on return.

        Its id depends on its content alone, so repeating the append is safe. Raises ``UnavailableError``
        after ``deadline``: the event may be in the stream nevertheless.
        """
        self.repeat(lambda: self._log.append(stream, ANY, [event]), deadline)

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
