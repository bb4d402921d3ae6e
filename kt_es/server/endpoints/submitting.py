"""Endpoints that put items into the queue, and say what became of them."""

from __future__ import annotations

from kt_es.api import operations
from kt_es.api.models import ErasureRequest, MutationRequest, ReceiptBody
from kt_es.api.statuses import StatusRequest
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.answering import Answering
from kt_es.server.endpoints.common import Endpoints, answer_of
from kt_es.server.guard import release_slot
from kt_es.server.responses import Answer, Problem


class SubmittingEndpoints:
    """Check submissions, append them to the queue, and wait for their verdicts."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def by_operation(self) -> Endpoints:
        return [
            (operations.MUTATIONS, self._submit),
            (operations.STATUS, self._status),
            (operations.ERASURES, self._erase),
        ]

    async def _submit(self, asked: MutationRequest, scope: Scope) -> Answer:
        taken = await self._answering.submit(asked, lambda: release_slot(scope))
        if isinstance(taken, Problem):
            return taken.answer
        return answer_of(taken, 202 if isinstance(taken, ReceiptBody) else 200)

    async def _status(self, asked: StatusRequest, _: Scope) -> Answer:
        return await self._answering.status(asked, answer_of)

    async def _erase(self, asked: ErasureRequest, _: Scope) -> Answer:
        taken = await self._answering.erase(asked)
        return answer_of(taken, 202 if taken.epoch is None else 200)
