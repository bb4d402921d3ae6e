"""Endpoints that put items into the queue."""

from __future__ import annotations

from kt_es.api import operations
from kt_es.api.models import ErasureRequest, MutationRequest, ReceiptBody
from kt_es.errors import KtError
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.common import Endpoints, Frontend, answer_of, public_error
from kt_es.server.guard import release_slot
from kt_es.server.responses import Answer, Problem, problem_of
from kt_es.server.submission import run_in


class SubmittingEndpoints:
    """Check submissions, append them to the queue, and wait for their verdicts."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    def by_operation(self) -> Endpoints:
        return [
            (operations.MUTATIONS, self._submit),
            (operations.ERASURES, self._erase),
        ]

    async def _submit(self, asked: MutationRequest, scope: Scope) -> Answer:
        frontend, verdicts = self._frontend, self._frontend.metrics.submissions
        try:
            taken = await frontend.submissions.take(asked, frontend.writes, lambda: release_slot(scope))
        except KtError as error:
            verdicts.labels(problem_of(public_error(frontend, error)).reason).inc()
            raise
        match taken:
            case Problem():
                verdicts.labels(taken.reason).inc()
                return taken.answer
            case ReceiptBody():
                verdicts.labels("queued").inc()
                return answer_of(taken, 202)
        verdicts.labels(taken.verdict).inc()
        return answer_of(taken)

    async def _erase(self, asked: ErasureRequest, _: Scope) -> Answer:
        frontend = self._frontend
        taken = await run_in(frontend.writes, lambda: frontend.submissions.submit_erasure(asked.erasure))
        return answer_of(taken, 202 if taken.epoch is None else 200)
