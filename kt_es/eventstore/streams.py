"""The event log as kt-es uses it: stream names, expected revisions and one small interface.

A revision is an event's place in its stream, from 0; a position is its place among all streams.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

# Expected revisions of an append: an exact one (0 or more), or one of these.
NO_STREAM = -1
ANY = -2

# The server refuses more in one append, however many events it has.
MAX_APPEND = 1024 * 1024

_EVENT_IDS = uuid.UUID("8f0d1f8e-6f0b-5d0e-9d0b-2b1d6f6f7a51")


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The streams of one directory ``D``."""

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
    def openings_prefix(self) -> str:
        return f"kt_openings-{self.directory}."

    def openings(self, index: bytes) -> str:
        """The private stream of one index: profiles and openings, erasable as a whole."""
        return self.openings_prefix + index.hex()


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. The same ``id`` makes a repeated append the same event."""

    type: str
    data: bytes
    id: uuid.UUID


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was read. ``ack_id`` acknowledges it to the group that delivered it."""

    stream: str
    revision: int
    type: str
    data: bytes
    id: uuid.UUID
    position: int | None = None
    ack_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of a stream, as far as a server takes them, and their own revision or ``NO_STREAM``."""

    values: Mapping[str, object] = field(default_factory=dict)
    revision: int = NO_STREAM


def content_event(stream: str, kind: str, data: bytes) -> NewEvent:
    """An event whose id is a UUIDv5 of its stream, type and data, so that a retry is the same event."""
    name = f"{stream}\n{kind}\n{sha256(data).hexdigest()}"
    return NewEvent(kind, data, uuid.uuid5(_EVENT_IDS, name))


class Subscription(Protocol):
    """An endless iterator of events; it ends when stopped.

    Raises ``UnavailableError`` when the log goes away. A server that hangs looks like silence: whoever
    depends on progress needs a watchdog beside it.
    """

    def __iter__(self) -> Iterator[Event]: ...

    def stop(self) -> None:
        """End the iteration, from any thread."""


class GroupSubscription(Subscription, Protocol):
    """The one place of a persistent subscription. What is not acknowledged comes again."""

    def ack(self, event: Event) -> None: ...


class EventLog(Protocol):
    """An EventStoreDB, the embedded node or another server that answers alike.

    Any call raises ``AccessDeniedError`` with the stream and the right that is missing.

    Every call but an iteration has a deadline. ``UnavailableError`` says that the outcome is unknown
    and that the call may be repeated; an append is repeated with the same ids and expected revision.
    """

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        """Append all of ``events`` or none; they are durable on return.

        Raises ``WrongRevisionError`` if the stream is not at ``expected`` (and these events do not
        already follow it).
        """

    def last_revision(self, stream: str) -> int:
        """The revision of the last event, -1 if there is none."""

    def last_event(self, stream: str) -> Event | None: ...

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        """Events from ``start`` on, to the end as it is now; nothing for a missing stream."""

    def subscribe(self, stream: str, after: int = -1) -> Subscription:
        """Events after revision ``after``, and then new ones as they come."""

    def subscribe_prefix(self, prefix: str, after: int | None = None) -> Subscription:
        """Events of all streams whose names begin with ``prefix``, after position ``after``.

        Now and then an event of type ``""`` comes, with nothing but a position to go on from.
        """

    def join_group(self, stream: str, group: str) -> GroupSubscription | None:
        """Take the one place of a persistent subscription; None while another consumer holds it.

        A group that is missing is created, from the start of the stream.
        """

    def truncate(self, stream: str, before: int) -> None:
        """Let the server forget the events below revision ``before`` (``$tb``)."""

    def metadata(self, stream: str) -> Metadata:
        """The metadata of a stream, which need not exist."""

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        """Replace the metadata of a stream, which need not exist; they are durable on return.

        Raises ``WrongRevisionError`` if the metadata are not at revision ``expected``.
        """

    def close(self) -> None: ...
