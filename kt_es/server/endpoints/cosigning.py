"""Endpoints of cosigned checkpoints: for everybody who reads, and for monitors that have cosigned."""

from __future__ import annotations

from kt_es.api import operations
from kt_es.api.cosigned import CosignaturesRequest, WatchersBody
from kt_es.formats.heads import heads_origin
from kt_es.formats.notes import verifier_key
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.answering import Answering
from kt_es.server.endpoints.common import Endpoints, Frontend, answer_of
from kt_es.server.responses import Answer


class CosigningEndpoints:
    """Answer with the cosignatures that were verified here, and take those of monitors."""

    def __init__(self, answering: Answering, frontend: Frontend) -> None:
        self._answering = answering
        self._frontend = frontend

    def by_operation(self) -> Endpoints:
        return [
            (operations.COSIGNED, self._cosigned),
            (operations.COSIGNATURES, self._take),
            (operations.WATCHERS, self._watchers),
        ]

    async def _watchers(self, _: None, __: Scope) -> Answer:
        ledger = self._frontend.directory.ledger
        origin = ledger.committed.standing.origin
        vkey = verifier_key(heads_origin(origin), ledger.pinned.raw).encode()
        return answer_of(WatchersBody(origin, vkey, self._frontend.cosigning.watchers))

    async def _cosigned(self, _: None, __: Scope) -> Answer:
        return await self._answering.cosigned(answer_of)

    async def _take(self, asked: CosignaturesRequest, _: Scope) -> Answer:
        return await self._answering.cosign(asked, answer_of)
