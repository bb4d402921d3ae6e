"""Endpoints for operators and their tools: health, readiness, metrics, the OpenAPI document."""

from __future__ import annotations

from kt_es.api import operations
from kt_es.api.codec import present_members
from kt_es.api.models import HealthBody, ReadyBody
from kt_es.api.operations import Operation, ProblemReason
from kt_es.process.exposition import MEDIA_TYPE
from kt_es.server.asgi import Scope
from kt_es.server.contract import document
from kt_es.server.endpoints.common import Endpoints, Frontend, answer_of, json_answer
from kt_es.server.registration.gate import OPEN_WARNING
from kt_es.server.responses import Answer, Problem, without_streams

_DOCUMENT = Operation("/openapi.json", "openapi", "This document.", "OpenAPI document")
LENIENT = (operations.HEALTH, operations.METRICS, operations.READY, _DOCUMENT)
"""Monitoring tools add parameters of their own, and no answer of these depends on them."""


class OperatingEndpoints:
    """Say how this front end is."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._document = json_answer(document())

    def by_operation(self) -> Endpoints:
        return [
            (operations.HEALTH, self._health),
            (operations.READY, self._ready),
            (operations.METRICS, self._metrics),
            (_DOCUMENT, self._openapi),
        ]

    async def _health(self, _: None, __: Scope) -> Answer:
        return answer_of(HealthBody("ok"))

    async def _ready(self, _: None, __: Scope) -> Answer:
        troubles = self._frontend.troubles()
        if not troubles:
            refusing = self._frontend.refusing()
            warning = OPEN_WARNING if self._frontend.exposed and self._frontend.registration.is_open else None
            ready = ReadyBody("ready", None if refusing is None else without_streams(refusing), warning)
            return json_answer(present_members(ready))
        problems = tuple(trouble.sentence for trouble in troubles)
        more = {"problems": problems, "reasons": tuple(trouble.reason for trouble in troubles)}
        detail = "; ".join(problems)
        return Problem(503, ProblemReason.NOT_READY, detail, retry_after=2.0, more=more).answer

    async def _metrics(self, _: None, __: Scope) -> Answer:
        return Answer(await self._frontend.metrics.page(), MEDIA_TYPE)

    async def _openapi(self, _: None, __: Scope) -> Answer:
        return self._document
