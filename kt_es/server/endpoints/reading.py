"""Endpoints that read: directory, lookups, histories, heads, proofs of consistency, checkpoints."""

from __future__ import annotations

from collections.abc import Callable

from kt_es.api import operations
from kt_es.api.models import (
    ConsistencyBody,
    ConsistencyParameters,
    HeadParameters,
    HistoryRequest,
    LatestHeadParameters,
    LookupRequest,
    RangeRequest,
)
from kt_es.server.answers import SlowError
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.common import TEXT_MEDIA, Endpoints, Frontend, answer_of
from kt_es.server.responses import Answer
from kt_es.server.submission import run_in


class ReadingEndpoints:
    """Answer from the committed state of the replica."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._directory = frontend.directory

    def by_operation(self) -> Endpoints:
        return [
            (operations.DIRECTORY, self._describe),
            (operations.LOOKUP, self._lookup),
            (operations.HISTORY, self._history),
            (operations.RANGE, self._range),
            (operations.LATEST_HEAD, self._latest_head),
            (operations.HEAD, self._head),
            (operations.CONSISTENCY, self._consistency),
            (operations.HEADS_CHECKPOINT, self._heads_checkpoint),
            (operations.MUTATIONS_CHECKPOINT, self._mutations_checkpoint),
        ]

    async def _read(self, call: Callable[[], object]) -> Answer:
        return await run_in(self._frontend.reads, lambda: answer_of(call()))

    async def _describe(self, _: None, __: Scope) -> Answer:
        return await self._read(self._directory.describe)

    async def _lookup(self, asked: LookupRequest, _: Scope) -> Answer:
        def answer(*, waits: bool = True) -> Answer:
            found = self._directory.lookup(
                asked.label, asked.epoch, asked.since, profile=asked.profile, waits=waits
            )
            self._frontend.metrics.lookups.labels(found.result).inc()
            return answer_of(found.body)

        try:
            # A thread costs more than most lookups.
            return answer(waits=False)
        except SlowError:
            return await run_in(self._frontend.reads, answer)

    async def _history(self, asked: HistoryRequest, _: Scope) -> Answer:
        def answer() -> Answer:
            return answer_of(self._directory.history(asked.label, profiles=asked.profiles, after=asked.after))

        return await run_in(self._frontend.large, answer)

    async def _range(self, asked: RangeRequest, _: Scope) -> Answer:
        def answer() -> Answer:
            return answer_of(self._directory.range(asked.label, asked.first, asked.last, asked.since))

        return await run_in(self._frontend.large, answer)

    async def _latest_head(self, asked: LatestHeadParameters, _: Scope) -> Answer:
        return await self._read(lambda: self._directory.head(since=asked.since))

    async def _head(self, asked: HeadParameters, _: Scope) -> Answer:
        return await self._read(lambda: self._directory.head(asked.epoch, asked.since))

    async def _consistency(self, asked: ConsistencyParameters, _: Scope) -> Answer:
        return await self._read(
            lambda: ConsistencyBody(self._directory.consistency(asked.log, asked.size1, asked.size2))
        )

    async def _heads_checkpoint(self, _: None, __: Scope) -> Answer:
        head = await run_in(self._frontend.reads, self._directory.head)
        return Answer(head.heads_checkpoint.encode(), TEXT_MEDIA)

    async def _mutations_checkpoint(self, _: None, __: Scope) -> Answer:
        head = await run_in(self._frontend.reads, self._directory.head)
        return Answer(head.mutations_checkpoint.encode(), TEXT_MEDIA)
