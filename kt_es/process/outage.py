"""Waiting out an outage: the attempts, the pauses between them, and how long a process waits, in its log.

There is one line at the beginning of an outage, one each minute, and one at the end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from kt_es.errors import DiskFullError, KtError, StoreAwayError, UnavailableError, UnverifiedRowError

REMINDER = 60.0
"""Seconds between two lines of one outage."""
BEGINNINGS = 3
"""Number of outages that are logged, of all that begin within ``REMINDER`` seconds."""

PAUSE = 1.0
"""Seconds between two attempts of ``patiently``."""

MEND = "if it stays, run `kt store rebuild`, which fills the shared store from the log"
"""What the log says of rows that a shared store lacks or has wrong. They may only be late."""

_T = TypeVar("_T")


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


@dataclass(frozen=True, slots=True)
class Lasting:
    """A problem that lasts, and when it began, in seconds of ``time.monotonic``."""

    problem: str
    since: float


def kind_of(error: Exception | str) -> str:
    """Return what an outage is of: ``disk``, ``store`` (cannot be used, or has wrong rows) or ``log``."""
    match error:
        case DiskFullError():
            return "disk"
        case StoreAwayError() | UnverifiedRowError():
            return "store"
    return "log"


@dataclass(slots=True)
class _Kind:
    begins: str
    goes_on: str
    ends: str
    since: float | None = None
    count: int = 0
    logged_at: float = 0.0
    # Times of the last beginnings that were logged.
    begun: deque[float] = field(default_factory=lambda: deque(maxlen=BEGINNINGS))
    quiet: bool = False


class Outage:
    """The outages of one part of a process that needs the event log or the disk, and retries by itself.

    Each outage has a number, so that its first line does not count as a repetition of an earlier line. Safe
    for threads.

    Args:
        part: The name of the part in each line. A process has several parts, each with its own connection.
        on_begin: Called with ``kind_of`` the error once for each outage, when it begins.
        source: What is followed, as the log calls it. An outage of it is of the kind ``log``.
    """

    def __init__(
        self,
        part: str,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
        *,
        on_begin: Callable[[str], None] = lambda _: None,
        source: str = "the event log",
    ) -> None:
        self._part = part
        self._log = log
        self._clock = clock
        self._on_begin = on_begin
        self._lock = threading.Lock()
        self._away = _Kind(
            f"{source} cannot be reached",
            f"{source} still cannot be reached",
            f"{source} can be reached again",
        )
        self._store = _Kind(
            "the shared store cannot be used",
            "the shared store still cannot be used",
            "the shared store can be used again",
        )
        self._rows = _Kind(
            "rows of the shared store are missing or wrong",
            "rows of the shared store are still missing or wrong",
            "the rows of the shared store are right again",
        )
        self._full = _Kind(
            "the disk is full; waiting for space", "the disk is still full", "the disk has space again"
        )

    def failed(self, error: Exception | str) -> None:
        """Note that an attempt to use the log, the disk or the store failed. Call it for every attempt."""
        with self._lock:
            if self._is_new(error):
                self._on_begin(kind_of(error))
            if isinstance(error, DiskFullError):
                # The data that had no space came from the log, so the log can be reached.
                self._end(self._away)
                self._begin_or_remind(self._full, error)
            elif isinstance(error, UnverifiedRowError):
                # The store has answered.
                self._end(self._store)
                self._begin_or_remind(self._rows, error, mend=MEND)
            elif isinstance(error, StoreAwayError):
                self._begin_or_remind(self._store, error)
            else:
                self._begin_or_remind(self._away, error)

    def over(self) -> None:
        """Note that everything works. Without an outage this has no effect."""
        self.log_over()
        with self._lock:
            self._end(self._store)
            self._end(self._rows)

    def log_over(self) -> None:
        """Note that the event log and the disk work. An outage of the shared store goes on."""
        with self._lock:
            self._end(self._away)
            self._end(self._full)

    def _is_new(self, error: Exception | str) -> bool:
        """Return whether no outage of this kind lasts. A store may fail in both of its ways by turns."""
        match kind_of(error):
            case "disk":
                return self._full.since is None
            case "store":
                return self._store.since is None and self._rows.since is None
        return self._away.since is None

    def _begin_or_remind(self, kind: _Kind, error: Exception | str, **more: str) -> None:
        now, problem = self._clock(), str(error)
        if kind.since is None:
            kind.since = now
            kind.count += 1
            # Frequent short outages get few lines a minute. The number in the next line shows how many there
            # were.
            kind.quiet = len(kind.begun) == BEGINNINGS and now - kind.begun[0] < REMINDER
            if not kind.quiet:
                kind.logged_at = now
                kind.begun.append(now)
                self._log.warning(kind.begins, part=self._part, outage=kind.count, problem=problem, **more)
        elif now - kind.logged_at >= REMINDER:
            kind.logged_at, kind.quiet = now, False
            seconds = round(now - kind.since, 1)
            self._log.warning(kind.goes_on, part=self._part, seconds=seconds, problem=problem, **more)

    def _end(self, kind: _Kind) -> None:
        if kind.since is not None:
            seconds = round(self._clock() - kind.since, 1)
            kind.since = None
            if kind.quiet:
                return
            self._log.info(kind.ends, part=self._part, seconds=seconds)


def keep_trying(
    attempt: Callable[[], _T | None],
    stop: threading.Event,
    outage: Outage,
    backoff: Backoff,
    *,
    on_failure: Callable[[KtError], None] = lambda _: None,
    passing: tuple[type[KtError], ...] = (UnavailableError,),
) -> _T | None:
    """Call ``attempt`` until ``stop`` or until it returns a result, with the pauses of ``backoff`` between.

    An error of a class in ``passing`` is an outage: it is noted, and the next attempt follows. Every other
    error is raised.

    Args:
        attempt: Opens a connection, works with it until ``stop`` or an error, and closes it. It calls
            ``outage.over`` once the connection works, and ``backoff.reset`` after any progress.
        on_failure: Called with the error of each outage, before the outage is logged.

    Returns:
        The result, None if ``stop`` came first.
    """
    while not stop.is_set():
        try:
            if (result := attempt()) is not None:
                return result
        except passing as error:
            on_failure(error)
            # Errors are expected while the things that the attempt uses are being closed.
            if not stop.is_set():
                outage.failed(error)
        stop.wait(backoff.pause())
    return None


def patiently(
    make: Callable[[], _T],
    stop: threading.Event,
    outage: Outage,
    on_failure: Callable[[KtError], None] = lambda _: None,
) -> _T | None:
    """Return what ``make`` returns. Wait during outages; return None if ``stop`` is set first.

    A full disk is an outage, and so is a shared store that cannot be used. ``on_failure`` is called as by
    ``keep_trying``.
    """

    def attempt() -> _T:
        made = make()
        outage.over()
        return made

    return keep_trying(attempt, stop, outage, Backoff(PAUSE, PAUSE), on_failure=on_failure)
