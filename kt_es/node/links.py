"""Links: events of type ``$>`` whose data, ``revision@stream``, names another event."""

from __future__ import annotations

from esdbclient.protos.Grpc import streams_pb2

from kt_es.node.log import EventLog
from kt_es.node.reading import stored_at
from kt_es.node.records import parsed, type_of

LINK = "$>"
ReadEvent = streams_pb2.ReadResp.ReadEvent


def resolve(log: EventLog, stored: bytes) -> ReadEvent | None:
    """The event that ``stored`` links to, with its link; ``None`` if ``stored`` is not a link.

    If the linked event is gone, the message has the link only.
    """
    if type_of(stored) != LINK:
        return None
    link = parsed(stored)
    resolved = ReadEvent(link=link.event, commit_position=link.commit_position)
    revision, _, name = link.event.data.decode(errors="replace").partition("@")
    target = stored_at(log, name, int(revision)) if revision.isascii() and revision.isdigit() else None
    if target is not None:
        resolved.event.CopyFrom(parsed(target).event)
    return resolved
