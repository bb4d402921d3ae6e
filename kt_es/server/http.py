"""HTTP/JSON over the handlers: the operations of ``kt_es.api``, and problem documents for errors.

Labels travel in bodies, never in URLs, because URLs get logged on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import structlog

from kt_es.api import operations
from kt_es.api.codec import encode_model, present_members
from kt_es.api.models import (
    ConsistencyBody,
    ConsistencyParameters,
    ErasureRequest,
    HeadParameters,
    HealthBody,
    HistoryRequest,
    LatestHeadParameters,
    LookupRequest,
    MutationRequest,
    RangeRequest,
    ReadyBody,
    ReceiptBody,
)
from kt_es.api.operations import Operation, ProblemReason
from kt_es.errors import DivergenceError, KtError, UnverifiedRowError
from kt_es.process.exposition import MEDIA_TYPE
from kt_es.server.answers import SlowError
from kt_es.server.asgi import ASGIApp, Scope
from kt_es.server.clients import Clients
from kt_es.server.contract import document, parameter_names, read_parameters, read_request
from kt_es.server.guard import Guard, check_media, read_body, read_query, release_slot
from kt_es.server.handlers import DirectoryReader
from kt_es.server.health import Metrics, Trouble
from kt_es.server.responses import (
    STORE_ROWS,
    Answer,
    NotNowError,
    Problem,
    http_problem,
    problem_of,
    without_streams,
)
from kt_es.server.submission import Submissions, run_in

_LOG = structlog.get_logger("kt_es.server")

_TEXT_MEDIA = "text/plain; charset=utf-8"
_DOCUMENT = Operation("/openapi.json", "openapi", "This document.", "OpenAPI document")
# Monitoring tools add parameters of their own, and no answer of these depends on them.
_LENIENT = (operations.HEALTH, operations.METRICS, operations.READY, _DOCUMENT)


@dataclass(frozen=True, slots=True)
class Frontend:
    """What the routes serve.

    Lookups and heads block threads of ``reads``, histories and ranges those of ``large``, submissions those
    of ``writes``. ``troubles`` gives the reasons why this front end is not ready. ``refusing`` gives the
    reason why submissions are refused although it is ready. ``failed`` is called with an error after which
    this process should not go on.
    """

    directory: DirectoryReader
    submissions: Submissions
    metrics: Metrics
    clients: Clients
    reads: Executor
    large: Executor
    writes: Executor
    troubles: Callable[[], list[Trouble]]
    refusing: Callable[[], str | None]
    failed: Callable[[KtError], None]


def create_app(frontend: Frontend) -> ASGIApp:
    router = _Router(_Endpoints(frontend).by_operation(), frontend)
    return Guard(router.answer, frontend.clients, frontend.metrics.requests, frontend.metrics.refused)


_Endpoint = Callable[[Any, Scope], Awaitable[Answer]]
"""Answers an operation, given its body or its parameters as ``kt_es.api`` models them, and the scope."""


class _Router:
    """Finds the operation of a request, and reads what it asks for."""

    def __init__(self, endpoints: list[tuple[Operation, _Endpoint]], frontend: Frontend) -> None:
        self._frontend = frontend
        self._exact = {operation.path: (operation, endpoint) for operation, endpoint in endpoints}
        self._patterns = [
            (re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", operation.path)), (operation, endpoint))
            for operation, endpoint in endpoints
            if "{" in operation.path
        ]

    async def answer(self, scope: Scope, body: bytes) -> Answer:
        found, named = self._found(scope["path"])
        if found is None:
            return http_problem(404).answer
        operation, endpoint = found
        scope["route"] = operation
        if scope["method"] != operation.method:
            return http_problem(405, allow=operation.method).answer
        try:
            return await endpoint(_asked(operation, scope, named, body), scope)
        except KtError as error:
            return _failed(self._frontend, error).answer

    def _found(self, path: str) -> tuple[tuple[Operation, _Endpoint] | None, Mapping[str, str]]:
        if path in self._exact:
            return self._exact[path], {}
        for pattern, found in self._patterns:
            if (named := pattern.fullmatch(path)) is not None:
                return found, named.groupdict()
        return None, {}


def _asked(operation: Operation, scope: Scope, named: Mapping[str, str], body: bytes) -> object:
    """Read the body or the parameters of a request, None for an operation that has neither.

    Raises ``RefusedError`` and ``AmbiguousError``.
    """
    names = [name for name in parameter_names(operation.parameters) if f"{{{name}}}" not in operation.path]
    if operation.request is not None:
        check_media(scope["headers"])
    value = read_body(body) if operation.request is not None else None
    given = read_query(scope["query_string"], None if operation in _LENIENT else names)
    if operation.request is not None:
        return read_request(operation.request, value)
    return None if operation.parameters is None else read_parameters(operation.parameters, {**given, **named})


def _public(frontend: Frontend, error: KtError) -> KtError:
    """Return ``error`` as clients see it: a wrong row of a shared store is an outage to them."""
    if isinstance(error, UnverifiedRowError) and frontend.directory.ledger.store.is_shared:
        return NotNowError(f"{STORE_ROWS}; try again later")
    return error


def _failed(frontend: Frontend, error: KtError) -> Problem:
    public = _public(frontend, error)
    if public is not error:
        # Nothing is answered from the row, and everything else is.
        _LOG.error("a row of the shared store is missing or wrong", problem=str(error))
        frontend.metrics.rows.inc()
        error = public
    problem = problem_of(error)
    if problem.status >= 500 and problem.retry_after is None:
        _LOG.error("a request failed", error=str(error))
    if isinstance(error, DivergenceError):
        frontend.failed(error)
    return problem


def _answer(model: object, status: int = 200) -> Answer:
    return _json(encode_model(model), status)


def _json(body: object, status: int = 200) -> Answer:
    return Answer(json.dumps(body, separators=(",", ":")).encode(), status=status)


class _Endpoints:
    """The answers to all operations."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._directory = frontend.directory
        self._document = _json(document())

    def by_operation(self) -> list[tuple[Operation, _Endpoint]]:
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
            (operations.MUTATIONS, self._submit),
            (operations.ERASURES, self._erase),
            (operations.HEALTH, self._health),
            (operations.READY, self._ready),
            (operations.METRICS, self._metrics),
            (_DOCUMENT, self._openapi),
        ]

    async def _read(self, call: Callable[[], object]) -> Answer:
        return await run_in(self._frontend.reads, lambda: _answer(call()))

    async def _describe(self, _: None, __: Scope) -> Answer:
        return await self._read(self._directory.describe)

    async def _lookup(self, asked: LookupRequest, _: Scope) -> Answer:
        def answer(*, waits: bool = True) -> Answer:
            found = self._directory.lookup(
                asked.label, asked.epoch, asked.since, profile=asked.profile, waits=waits
            )
            self._frontend.metrics.lookups.labels(found.result).inc()
            return _answer(found.body)

        try:
            # A thread costs more than most lookups.
            return answer(waits=False)
        except SlowError:
            return await run_in(self._frontend.reads, answer)

    async def _history(self, asked: HistoryRequest, _: Scope) -> Answer:
        def answer() -> Answer:
            return _answer(self._directory.history(asked.label, profiles=asked.profiles, after=asked.after))

        return await run_in(self._frontend.large, answer)

    async def _range(self, asked: RangeRequest, _: Scope) -> Answer:
        def answer() -> Answer:
            return _answer(self._directory.range(asked.label, asked.first, asked.last, asked.since))

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
        return Answer(head.heads_checkpoint.encode(), _TEXT_MEDIA)

    async def _mutations_checkpoint(self, _: None, __: Scope) -> Answer:
        head = await run_in(self._frontend.reads, self._directory.head)
        return Answer(head.mutations_checkpoint.encode(), _TEXT_MEDIA)

    async def _submit(self, asked: MutationRequest, scope: Scope) -> Answer:
        frontend, verdicts = self._frontend, self._frontend.metrics.submissions
        try:
            taken = await frontend.submissions.take(asked, frontend.writes, lambda: release_slot(scope))
        except KtError as error:
            verdicts.labels(problem_of(_public(frontend, error)).reason).inc()
            raise
        match taken:
            case Problem():
                verdicts.labels(taken.reason).inc()
                return taken.answer
            case ReceiptBody():
                verdicts.labels("queued").inc()
                return _answer(taken, 202)
        verdicts.labels(taken.verdict).inc()
        return _answer(taken)

    async def _erase(self, asked: ErasureRequest, _: Scope) -> Answer:
        frontend = self._frontend
        taken = await run_in(frontend.writes, lambda: frontend.submissions.submit_erasure(asked.erasure))
        return _answer(taken, 202 if taken.epoch is None else 200)

    async def _health(self, _: None, __: Scope) -> Answer:
        return _answer(HealthBody("ok"))

    async def _ready(self, _: None, __: Scope) -> Answer:
        troubles = self._frontend.troubles()
        if not troubles:
            refusing = self._frontend.refusing()
            ready = ReadyBody("ready", None if refusing is None else without_streams(refusing))
            return _json(present_members(ready))
        problems = tuple(trouble.sentence for trouble in troubles)
        more = {"problems": problems, "reasons": tuple(trouble.reason for trouble in troubles)}
        detail = "; ".join(problems)
        return Problem(503, ProblemReason.NOT_READY, detail, retry_after=2.0, more=more).answer

    async def _metrics(self, _: None, __: Scope) -> Answer:
        return Answer(self._frontend.metrics.render(), MEDIA_TYPE)

    async def _openapi(self, _: None, __: Scope) -> Answer:
        return self._document
