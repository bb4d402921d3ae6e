"""An event log for commands that run once. It waits while a server restarts or elects a leader."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from kt_es.errors import KtError, MisfitError, UnavailableError
from kt_es.eventstore.streams import (
    Append,
    Event,
    EventLog,
    GroupSubscription,
    Metadata,
    NewEvent,
    Subscription,
    append_one_by_one,
)

PAUSE = 0.5

_T = TypeVar("_T")


class Patience:
    """How long a command waits for a log that is unavailable.

    The limit applies to each outage: it starts again after the log has answered.

    Args:
        seconds: The longest outage.
        say: Called with a message at the first failure only.
        source: What is waited for, as the message calls it.
    """

    def __init__(
        self,
        seconds: float,
        say: Callable[[str], None],
        *,
        source: str = "the event log",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = source
        self._seconds = seconds
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._until: float | None = None
        self._has_said = False

    def failed(self, error: UnavailableError) -> None:
        """Wait before another attempt.

        Raises:
            UnavailableError: ``error`` itself, if waiting cannot help or the outage has lasted too long.
        """
        if isinstance(error, MisfitError):
            raise error
        now = self._clock()
        if self._until is None:
            self._until = now + self._seconds
        if now + PAUSE > self._until:
            raise error
        if not self._has_said:
            self._has_said = True
            self._say(f"waiting up to {self._seconds:g} s for {self._source}: {error}")
        self._sleep(PAUSE)

    def reached(self) -> None:
        """Note that the log has answered, which ends an outage."""
        self._until = None

    def until_done(self, attempt: Callable[[], _T]) -> _T:
        """Call ``attempt`` until the log is available, and return the result."""
        while True:
            try:
                done = attempt()
            except UnavailableError as error:
                self.failed(error)
            else:
                self.reached()
                return done


class PatientLog:
    """``EventLog`` that repeats each failed call with a new client of ``connect`` while ``patience`` allows.

    A read continues after the last event that it yielded. For a subscription, only opening it is repeated.
    """

    def __init__(self, connect: Callable[[], EventLog], patience: Patience) -> None:
        self._connect = connect
        self._patience = patience
        self._log: EventLog | None = None

    def _connected(self) -> EventLog:
        if self._log is None:
            self._log = self._connect()
        return self._log

    def _done(self, call: Callable[[EventLog], _T]) -> _T:
        def attempt() -> _T:
            try:
                return call(self._connected())
            except UnavailableError:
                self.close()
                raise

        return self._patience.until_done(attempt)

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        self._done(lambda log: log.append(stream, expected, events))

    def append_all(self, appends: Sequence[Append]) -> Sequence[KtError | None]:
        return append_one_by_one(self, appends)

    def last_revision(self, stream: str) -> int:
        return self._done(lambda log: log.last_revision(stream))

    def last_event(self, stream: str) -> Event | None:
        return self._done(lambda log: log.last_event(stream))

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        while limit is None or limit > 0:
            try:
                for event in self._connected().read(stream, start, limit):
                    self._patience.reached()
                    start = event.revision + 1
                    limit = None if limit is None else limit - 1
                    yield event
            except UnavailableError as error:
                self.close()
                self._patience.failed(error)
            else:
                self._patience.reached()
                return

    def subscribe(self, stream: str, after: int = -1) -> Subscription:
        return self._done(lambda log: log.subscribe(stream, after))

    def subscribe_prefix(self, prefix: str, after: int | None = None) -> Subscription:
        return self._done(lambda log: log.subscribe_prefix(prefix, after))

    def join_group(self, stream: str, group: str) -> GroupSubscription | None:
        return self._done(lambda log: log.join_group(stream, group))

    def truncate(self, stream: str, before: int) -> None:
        self._done(lambda log: log.truncate(stream, before))

    def metadata(self, stream: str) -> Metadata:
        return self._done(lambda log: log.metadata(stream))

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        self._done(lambda log: log.set_metadata(stream, values, expected))

    def close(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()
