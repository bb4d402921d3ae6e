"""Puts appends together that come in pieces, within limits for one append, one call and all calls.

Complete appends wait in the queue of the log, which has a limit of its own (``commits``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kt_es.node.protocol import streams_pb2
from kt_es.node.refusals import Refusal, append_too_large, invalid, too_much_unfinished
from kt_es.node.rpc.append_messages import MAX_EVENTS, proposals
from kt_es.node.store.log import EVENT_COST
from kt_es.node.store.records import Proposed

UNFINISHED = 16  # incomplete batches of one call


class Intake:
    """Limits the bytes of incomplete appends over all calls.

    More is refused and not held back, because the pieces that would make room may be held back as well.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0

    def take(self, size: int) -> None:
        """Reserve ``size`` bytes; raise ``Refusal`` if there is no room."""
        if self._held + size > self.limit:
            raise too_much_unfinished()
        self._held += size

    def give(self, size: int) -> None:
        """Undo ``take``."""
        self._held -= size


@dataclass(slots=True)
class Pieces:
    """The pieces of one append so far; ``refusal`` is why it will not be made."""

    limit: int  # bytes of the whole
    events: list[Proposed] = field(default_factory=list)
    size: int = 0
    refusal: Refusal | None = None

    @property
    def held(self) -> int:
        """Bytes that it counts in memory."""
        return self.size + EVENT_COST * len(self.events)

    def add(self, messages: Iterable[Any]) -> None:
        """Add events; raise ``Refusal`` for an invalid one, and for the first one beyond a limit."""
        events, size = self.events, self.size
        for event, more in proposals(messages):
            size += more
            if size > self.limit or len(events) == MAX_EVENTS:
                raise append_too_large(self.limit)
            events.append(event)
        self.size = size


@dataclass(slots=True)
class AppendBatch:
    """A batch of ``BatchAppend``: its first request, and the pieces so far."""

    first: streams_pb2.BatchAppendReq
    pieces: Pieces


class Batches:
    """Puts the batches of one call together, each of at most ``limit`` bytes."""

    def __init__(self, limit: int, intake: Intake) -> None:
        self._limit = limit
        self._intake = intake
        self._open: dict[bytes, AppendBatch] = {}

    def add(self, request: streams_pb2.BatchAppendReq) -> AppendBatch | None:
        """The batch that ``request`` completes, if any.

        Raises:
            Refusal: it names no batch, or too many are unfinished.
        """
        if not request.HasField("correlation_id"):
            raise invalid("a batch has no correlation id")
        key = request.correlation_id.SerializeToString()
        batch = self._open.pop(key, None)
        if batch is None:
            batch = AppendBatch(request, Pieces(self._limit))
        else:
            self._intake.give(batch.pieces.held)
        _add_all(batch.pieces, request)
        if request.is_final:
            return batch
        if len(self._open) == UNFINISHED:
            raise invalid(f"more than {UNFINISHED} batches of one call are unfinished")
        self._intake.take(batch.pieces.held)
        self._open[key] = batch
        return None

    def close(self) -> None:
        """The call has ended."""
        for batch in self._open.values():
            self._intake.give(batch.pieces.held)
        self._open.clear()


def _add_all(pieces: Pieces, request: streams_pb2.BatchAppendReq) -> None:
    if pieces.refusal is not None:
        return
    try:
        pieces.add(request.proposed_messages)
    except Refusal as refusal:
        pieces.refusal, pieces.events, pieces.size = refusal, [], 0
