"""Endpoints that put items into the queue, and say what became of them."""

from __future__ import annotations

from typing import Any

from kt_es.api import operations
from kt_es.api.batches import MutationsRequest, OutcomeBody
from kt_es.api.codec import present_members
from kt_es.api.models import ErasureRequest, MutationRequest, ReceiptBody, VerdictBody
from kt_es.api.statuses import StatusRequest
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.answering import Answering
from kt_es.server.endpoints.common import Endpoints, answer_of, json_answer
from kt_es.server.guard import charge_slot, release_slot
from kt_es.server.responses import Answer, Problem


class SubmittingEndpoints:
    """Check submissions, append them to the queue, and wait for their verdicts."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def by_operation(self) -> Endpoints:
        return [
            (operations.MUTATIONS, self._submit),
            (operations.STATUS, self._status),
            (operations.MUTATIONS_BATCH, self._submit_many),
            (operations.ERASURES, self._erase),
        ]

    async def _submit(self, asked: MutationRequest, scope: Scope) -> Answer:
        taken = await self._answering.submit(asked, lambda: release_slot(scope))
        if isinstance(taken, Problem):
            return taken.answer
        return answer_of(taken, 202 if isinstance(taken, ReceiptBody) else 200)

    async def _status(self, asked: StatusRequest, _: Scope) -> Answer:
        return await self._answering.status(asked, answer_of)

    async def _submit_many(self, asked: MutationsRequest, scope: Scope) -> Answer:
        taken = await self._answering.submit_many(
            asked, lambda cost: charge_slot(scope, cost), lambda: release_slot(scope)
        )
        # As in answers to single submissions, documents of problems have only the members that say something.
        return json_answer({"outcomes": [_shown(outcome_of(one)) for one in taken]})

    async def _erase(self, asked: ErasureRequest, _: Scope) -> Answer:
        taken = await self._answering.erase(asked)
        return answer_of(taken, 202 if taken.epoch is None else 200)


def outcome_of(taken: ReceiptBody | VerdictBody | Problem) -> OutcomeBody:
    """Return what became of one submission of a batch as the answer has it."""
    match taken:
        case Problem():
            return OutcomeBody(problem=taken.body, retry_after=taken.wait)
        case ReceiptBody():
            return OutcomeBody(receipt=taken)
        case VerdictBody():
            return OutcomeBody(verdict=taken)


def _shown(outcome: OutcomeBody) -> dict[str, Any]:
    shown = present_members(outcome)
    if outcome.problem is not None:
        shown["problem"] = present_members(outcome.problem)
    return shown
