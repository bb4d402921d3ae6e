"""Endpoints that read: directory, lookups, histories, heads, proofs of consistency, checkpoints."""

from __future__ import annotations

from dataclasses import replace

from kt_es.api import operations
from kt_es.api.batches import LookupsRequest
from kt_es.api.models import (
    ConsistencyParameters,
    HeadParameters,
    HistoryRequest,
    LatestHeadParameters,
    LookupRequest,
    RangeRequest,
)
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.answering import Answering
from kt_es.server.endpoints.common import TEXT_MEDIA, Endpoints, answer_of
from kt_es.server.guard import charge_slot
from kt_es.server.responses import Answer


class ReadingEndpoints:
    """Answer from the committed state of the replica."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def by_operation(self) -> Endpoints:
        return [
            (operations.DIRECTORY, self._describe),
            (operations.LOOKUP, self._lookup),
            (operations.LOOKUPS, self._lookups),
            (operations.HISTORY, self._history),
            (operations.RANGE, self._range),
            (operations.LATEST_HEAD, self._head),
            (operations.HEAD, self._head),
            (operations.CONSISTENCY, self._consistency),
            (operations.HEADS_CHECKPOINT, self._heads_checkpoint),
            (operations.MUTATIONS_CHECKPOINT, self._mutations_checkpoint),
        ]

    async def _describe(self, _: None, __: Scope) -> Answer:
        return await self._answering.describe(answer_of)

    async def _lookup(self, asked: LookupRequest, _: Scope) -> Answer:
        return await self._answering.lookup(asked, answer_of)

    async def _lookups(self, asked: LookupsRequest, scope: Scope) -> Answer:
        return await self._answering.lookups(asked, lambda cost: charge_slot(scope, cost), answer_of)

    async def _history(self, asked: HistoryRequest, _: Scope) -> Answer:
        return await self._answering.history(asked, answer_of)

    async def _range(self, asked: RangeRequest, _: Scope) -> Answer:
        return await self._answering.range(asked, answer_of)

    async def _head(self, asked: LatestHeadParameters | HeadParameters, _: Scope) -> Answer:
        return await self._answering.head(asked, answer_of)

    async def _consistency(self, asked: ConsistencyParameters, _: Scope) -> Answer:
        return await self._answering.consistency(asked, lambda body: replace(answer_of(body), lasts=True))

    async def _heads_checkpoint(self, _: None, __: Scope) -> Answer:
        return await self._answering.head(LatestHeadParameters(), lambda head: _text(head.heads_checkpoint))

    async def _mutations_checkpoint(self, _: None, __: Scope) -> Answer:
        return await self._answering.head(
            LatestHeadParameters(), lambda head: _text(head.mutations_checkpoint)
        )


def _text(checkpoint: str) -> Answer:
    return Answer(checkpoint.encode(), TEXT_MEDIA)
