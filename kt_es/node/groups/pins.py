"""Which consumer of a pinned strategy an event belongs to, as a number to be shared out.

``Pinned`` goes by the stream, of a link by that of the event it names; ``PinnedByCorrelation`` by the
``$correlationId`` in the event's metadata, and by the stream where there is none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from kt_es.eventstore.metadata import json_object
from kt_es.node.groups.values import Strategy
from kt_es.node.store.links import LINK, linked, target
from kt_es.node.store.log import EventLog
from kt_es.node.store.records import name_of, parsed, type_of

CORRELATION = "$correlationId"


def pinner(log: EventLog, strategy: Strategy) -> Callable[[bytes], int]:
    """A function from a stored event to its number; 0 for all where nothing is pinned."""
    if strategy is Strategy.PINNED:
        return lambda stored: _number(_stream(stored))
    if strategy is Strategy.PINNED_BY_CORRELATION:
        return lambda stored: _number(_correlation(log, stored) or _stream(stored))
    return lambda _stored: 0


def _number(text: str) -> int:
    # Half a surrogate pair is text in JSON, but not in UTF-8.
    return zlib.crc32(text.encode(errors="surrogatepass"))


def _stream(stored: bytes) -> str:
    if type_of(stored) != LINK:
        return name_of(stored)
    _, name = target(stored)
    return name


def _correlation(log: EventLog, stored: bytes) -> str | None:
    event = linked(log, stored) if type_of(stored) == LINK else stored
    if event is None:
        return None
    found = json_object(parsed(event).event.custom_metadata).get(CORRELATION)
    return found if isinstance(found, str) else None
