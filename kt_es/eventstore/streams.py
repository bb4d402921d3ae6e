"""The event log as kt-es uses it: stream names, expected revisions and one small interface.

A revision is the number of an event in its stream, from 0. A position orders the events of all streams.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from kt_es.errors import KtError, UnavailableError

# Expected revisions of an append: an exact one (0 or more), or one of these.
NO_STREAM = -1
ANY = -2

# The largest append in bytes, for any number of events. The server refuses larger ones.
MAX_APPEND = 1024 * 1024

_EVENT_IDS = uuid.UUID("8f0d1f8e-6f0b-5d0e-9d0b-2b1d6f6f7a51")


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The names of the streams of one directory."""

    directory: str

    @property
    def queue(self) -> str:
        return f"kt_queue-{self.directory}"

    @property
    def mutations(self) -> str:
        return f"kt_mutations-{self.directory}"

    @property
    def heads(self) -> str:
        return f"kt_heads-{self.directory}"

    @property
    def cosignatures(self) -> str:
        return f"kt_cosignatures-{self.directory}"

    @property
    def openings_prefix(self) -> str:
        return f"kt_openings-{self.directory}."

    def openings(self, index: bytes) -> str:
        """Return the name of the private stream of profiles and openings of one index.

        Each index has its own stream, so its openings can be erased as a whole.
        """
        return self.openings_prefix + index.hex()


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. The ``id`` lets the server recognize a repeated append of the same event."""

    type: str
    data: bytes
    id: uuid.UUID


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was read. ``ack_id`` acknowledges the event to the group that delivered it."""

    stream: str
    revision: int
    type: str
    data: bytes
    id: uuid.UUID
    position: int | None = None
    ack_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of a stream that a server accepts, and their revision (``NO_STREAM`` if none exist)."""

    values: Mapping[str, object] = field(default_factory=dict)
    revision: int = NO_STREAM


def content_event(stream: str, kind: str, data: bytes) -> NewEvent:
    """Return an event whose id is a UUIDv5 of its stream, type and data. A retry has the same id."""
    name = f"{stream}\n{kind}\n{sha256(data).hexdigest()}"
    return NewEvent(kind, data, uuid.uuid5(_EVENT_IDS, name))


@dataclass(frozen=True, slots=True)
class Append:
    """One of many appends. With ``metadata``, it replaces the metadata of ``stream`` instead.

    ``expected`` is as in ``EventLog.append``, and as in ``EventLog.set_metadata``.
    """

    stream: str
    expected: int
    events: Sequence[NewEvent] = ()
    metadata: Mapping[str, object] | None = None


class Subscription(Protocol):
    """An iterator of events that ends only when it is stopped.

    Iterating raises ``UnavailableError`` if the log becomes unavailable. A server that hangs looks like a
    server without new events, so a caller that depends on progress needs a watchdog.
    """

    def __iter__(self) -> Iterator[Event]: ...

    def stop(self) -> None:
        """End the iteration, from any thread."""


class GroupSubscription(Subscription, Protocol):
    """The only consumer of a persistent subscription. Unacknowledged events are delivered again."""

    def ack(self, event: Event) -> None: ...


class EventLog(Protocol):
    """An EventStoreDB, the embedded node or another server with the same protocol.

    Every call except an iteration has a deadline. An append must be repeated with the same ids and the same
    expected revision.

    Raises:
        AccessDeniedError: By any call; the error names the stream and the missing right.
        UnavailableError: By any call; the outcome is unknown, and the call may be repeated.
    """

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        """Append all of ``events`` or none. They are durable when the call returns.

        Raises:
            WrongRevisionError: The stream is not at ``expected``, and these events do not already follow it.
        """

    def append_all(self, appends: Sequence[Append]) -> Sequence[KtError | None]:
        """Make many appends, which may be under way at the same time: none may depend on another one.

        Returns for each append None if it is durable, and otherwise the error that ``append`` or
        ``set_metadata`` raises. Raises none itself.
        """

    def last_revision(self, stream: str) -> int:
        """Return the revision of the last event, or -1 if there is none."""

    def last_event(self, stream: str) -> Event | None: ...

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        """Yield events from ``start`` to the current end. A missing stream has no events."""

    def subscribe(self, stream: str, after: int = -1) -> Subscription:
        """Subscribe to the events after revision ``after``, including future ones."""

    def subscribe_prefix(self, prefix: str, after: int | None = None) -> Subscription:
        """Subscribe to the events after position ``after`` of all streams whose names begin with ``prefix``.

        From time to time the subscription yields an event of type ``""``. It only reports a position from
        which a later subscription can continue.
        """

    def join_group(self, stream: str, group: str) -> GroupSubscription | None:
        """Become the only consumer of a persistent subscription. Return None while there is another consumer.

        A missing group is created and begins at the start of the stream.
        """

    def truncate(self, stream: str, before: int) -> None:
        """Allow the server to remove the events below revision ``before`` (``$tb``)."""

    def metadata(self, stream: str) -> Metadata:
        """Return the metadata of a stream. The stream need not exist."""

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        """Replace the metadata of a stream, which need not exist. They are durable when the call returns.

        Raises:
            WrongRevisionError: The metadata are not at revision ``expected``.
        """

    def close(self) -> None: ...


def append_one_by_one(log: EventLog, appends: Sequence[Append]) -> list[KtError | None]:
    """Implement ``append_all`` by calls of ``append`` and ``set_metadata``.

    The first ``UnavailableError`` is the outcome of the appends after it as well: they are not tried.
    """
    outcomes: list[KtError | None] = []
    for append in appends:
        try:
            make_append(log, append)
        except UnavailableError as error:
            return outcomes + [error] * (len(appends) - len(outcomes))
        except KtError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)
    return outcomes


def make_append(log: EventLog, append: Append) -> None:
    """Make one append. Raises what ``EventLog.append`` and ``EventLog.set_metadata`` raise."""
    if append.metadata is None:
        log.append(append.stream, append.expected, append.events)
    else:
        log.set_metadata(append.stream, append.metadata, append.expected)
