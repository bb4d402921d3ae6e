"""Links: events of type ``$>`` whose data, ``revision@stream``, names another event."""

from __future__ import annotations

from collections.abc import Callable

from kt_es.eventstore.driver import streams_pb2
from kt_es.node.store.log import EventLog
from kt_es.node.store.reading import stored_at
from kt_es.node.store.records import parsed, type_of

LINK = "$>"
_DIGITS = 19  # of the highest revision
ReadEvent = streams_pb2.ReadResp.ReadEvent


def target(stored: bytes) -> tuple[int, str]:
    """Revision and stream that a link names; revision -1 if it names none."""
    revision, _, name = parsed(stored).event.data.decode(errors="replace").partition("@")
    usable = revision.isascii() and revision.isdigit() and len(revision) <= _DIGITS
    return int(revision) if usable else -1, name


def linked(log: EventLog, stored: bytes) -> bytes | None:
    """The stored event that a link names, if it is still there."""
    revision, name = target(stored)
    return stored_at(log, name, revision)


def resolve(
    log: EventLog, stored: bytes, may_read: Callable[[str], bool] = lambda _stream: True
) -> ReadEvent | None:
    """The event that ``stored`` links to, with its link; ``None`` if ``stored`` is not a link.

    If the linked event is gone, or in a stream that the reader ``may_read`` not, the message has the
    link only: whoever may write anywhere could otherwise read everything through links.
    """
    if type_of(stored) != LINK:
        return None
    link = parsed(stored)
    resolved = ReadEvent(link=link.event, commit_position=link.commit_position)
    event = linked(log, stored) if may_read(target(stored)[1]) else None
    if event is not None:
        resolved.event.CopyFrom(parsed(event).event)
    return resolved
