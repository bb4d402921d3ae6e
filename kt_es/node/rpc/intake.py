"""Appends that come in pieces: putting them together, within limits for one append, one call and all calls.

What is complete waits in the log's queue, which has its own limit (``commits``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kt_es.eventstore.driver import streams_pb2
from kt_es.node.refusals import Refusal, append_too_large, invalid, too_much_unfinished
from kt_es.node.rpc.append import MAX_EVENTS, proposals
from kt_es.node.store.log import EVENT_COST
from kt_es.node.store.records import Proposed

UNFINISHED = 16  # batches of one call of which pieces are missing


class Intake:
    """Bytes of unfinished appends, over all calls, and how many there may be.

    More is refused, not held back: what it would wait for may be waiting, too.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0

    def take(self, size: int) -> None:
        """Raises ``Refusal`` if there is no room for ``size`` bytes."""
        if self._held + size > self.limit:
            raise too_much_unfinished()
        self._held += size

    def give(self, size: int) -> None:
        """Undo ``take``."""
        self._held -= size


@dataclass(slots=True)
class Pieces:
    """What came of one append so far; ``refusal``: why it will not be made."""

    limit: int  # bytes of the whole
    events: list[Proposed] = field(default_factory=list)
    size: int = 0
    refusal: Refusal | None = None

    @property
    def held(self) -> int:
        """What it counts in memory, in bytes."""
        return self.size + EVENT_COST * len(self.events)

    def add(self, messages: Iterable[Any]) -> None:
        """Raises ``Refusal`` for what is no event, and at the first one that is too much."""
        events, size = self.events, self.size
        for event, more in proposals(messages):
            size += more
            if size > self.limit or len(events) == MAX_EVENTS:
                raise append_too_large(self.limit)
            events.append(event)
        self.size = size


@dataclass(slots=True)
class Batch:
    """A batch of ``BatchAppend`` as it is known from its first request, and its pieces."""

    first: streams_pb2.BatchAppendReq
    pieces: Pieces


class Batches:
    """Puts the batches of one call together, at most ``limit`` bytes of each."""

    def __init__(self, limit: int, intake: Intake) -> None:
        self._limit = limit
        self._intake = intake
        self._open: dict[bytes, Batch] = {}

    def add(self, request: streams_pb2.BatchAppendReq) -> Batch | None:
        """The batch that ``request`` completes, if it does.

        Raises:
            Refusal: it names no batch, or too many are unfinished.
        """
        if not request.HasField("correlation_id"):
            raise invalid("a batch has no correlation id")
        key = request.correlation_id.SerializeToString()
        batch = self._open.pop(key, None)
        if batch is None:
            batch = Batch(request, Pieces(self._limit))
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
