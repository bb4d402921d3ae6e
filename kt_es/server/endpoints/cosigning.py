"""Endpoints of cosigned checkpoints: for everybody who reads, and for monitors that have cosigned."""

from __future__ import annotations

from kt_es.api import operations
from kt_es.api.cosigned import CosignaturesBody, CosignaturesRequest
from kt_es.server.asgi import Scope
from kt_es.server.cosigning import Cosigning
from kt_es.server.endpoints.common import Endpoints, Frontend, answer_of
from kt_es.server.responses import Answer
from kt_es.server.submission import run_in


class CosigningEndpoints:
    """Answer with the cosignatures that were verified here, and take those of monitors."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._cosigning: Cosigning = frontend.cosigning

    def by_operation(self) -> Endpoints:
        return [(operations.COSIGNED, self._cosigned), (operations.COSIGNATURES, self._take)]

    async def _cosigned(self, _: None, __: Scope) -> Answer:
        return answer_of(self._cosigning.heads.answer())

    async def _take(self, asked: CosignaturesRequest, _: Scope) -> Answer:
        new = await run_in(self._frontend.writes, lambda: self._cosigning.publish(asked.note))
        return answer_of(CosignaturesBody(new))
