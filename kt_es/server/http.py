"""HTTP/JSON over the handlers: the operations of ``kt_es.api``, and problem documents for errors.

Labels travel in bodies, never in URLs, because URLs get logged on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import structlog
from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from kt_es import __version__
from kt_es.api import operations
from kt_es.api.codec import encode_model, present_members
from kt_es.api.models import (
    ConsistencyBody,
    ErasureRequest,
    HealthBody,
    HistoryRequest,
    LookupRequest,
    MutationRequest,
    RangeRequest,
    ReadyBody,
    ReceiptBody,
)
from kt_es.api.operations import JSON_MEDIA, PROBLEM_MEDIA, ProblemReason
from kt_es.errors import DivergenceError, KtError, RefusedError, UnverifiedRowError
from kt_es.process.exposition import MEDIA_TYPE
from kt_es.server.clients import Clients
from kt_es.server.contract import Epoch, Since, Size, complete_document, read_request, route
from kt_es.server.guard import Guard, check_media, check_request, release_slot
from kt_es.server.handlers import DirectoryReader
from kt_es.server.health import Metrics, Trouble
from kt_es.server.responses import (
    STORE_ROWS,
    NotNowError,
    Problem,
    http_problem,
    internal_problem,
    problem_of,
    without_streams,
)
from kt_es.server.submission import Submissions, run_in

_LOG = structlog.get_logger("kt_es.server")


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
    app = FastAPI(
        title="kt-es front end",
        version=__version__,
        summary="Key transparency: submit mutations, look up labels with proofs",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(check_request)],
    )
    _add_errors(app, frontend)
    _add_reading(app, frontend)
    _add_logs(app, frontend)
    _add_writing(app, frontend)
    _add_operations(app, frontend)
    complete_document(app)
    return Guard(app, frontend.clients, frontend.metrics.requests, frontend.metrics.refused)


def _answer(model: object, status: int = 200) -> Response:
    return _json(encode_model(model), status)


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(body, separators=(",", ":")), status, media_type=JSON_MEDIA)


def _refusal(problem: Problem) -> Response:
    return Response(problem.encode(), problem.status, problem.headers, PROBLEM_MEDIA)


def _told(frontend: Frontend, error: KtError) -> KtError:
    """Return ``error``, for a wrong row of a shared store the outage that clients are told."""
    if isinstance(error, UnverifiedRowError) and frontend.directory.ledger.store.is_shared:
        return NotNowError(f"{STORE_ROWS}; try again later")
    return error


def _add_errors(app: FastAPI, frontend: Frontend) -> None:
    @app.exception_handler(KtError)
    async def known(_: Request, error: KtError) -> Response:
        told = _told(frontend, error)
        if told is not error:
            # Nothing is answered from the row, and everything else is.
            _LOG.error("a row of the shared store is missing or wrong", problem=str(error))
            frontend.metrics.rows.inc()
            error = told
        problem = problem_of(error)
        if problem.status >= 500 and problem.retry_after is None:
            _LOG.error("a request failed", error=str(error))
        if isinstance(error, DivergenceError):
            frontend.failed(error)
        return _refusal(problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        if request.method == "POST":
            # The framework reads a body as JSON before ``check_request`` has seen its content type.
            try:
                check_media(request)
            except RefusedError as refused:
                return _refusal(problem_of(refused))
        # The problem names the first wrong member. It never repeats a value, which may be a label.
        first = error.errors()[0]
        names = [str(part)[:64] for part in first["loc"][1:] if isinstance(part, str)]
        field = names[-1] if names and first["type"] != "json_invalid" else None
        return _refusal(Problem(400, ProblemReason.MALFORMED, str(first["msg"]), field))

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        problem = http_problem(error.status_code)
        answer = _refusal(problem)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return _refusal(internal_problem())


def _add_reading(app: FastAPI, frontend: Frontend) -> None:
    directory = frontend.directory

    @route(app, operations.DIRECTORY)
    async def describe() -> Response:
        """Origin, name and label policy of the directory, and the chain of its signed configs."""
        return _answer(await run_in(frontend.reads, directory.describe))

    @route(app, operations.LOOKUP)
    async def lookup(body: BaseModel) -> Response:
        """What stands at a label, with every proof; absence, too, is an answer."""
        asked = read_request(LookupRequest, body)

        def answer() -> Response:
            found = directory.lookup(asked.label, asked.epoch, asked.since, profile=asked.profile)
            frontend.metrics.lookups.labels(found.result).inc()
            return _answer(found.body)

        return await run_in(frontend.reads, answer)

    @route(app, operations.HISTORY)
    async def history(body: BaseModel) -> Response:
        """The versions of a label, the oldest first, in pages."""
        asked = read_request(HistoryRequest, body)
        return await run_in(
            frontend.large,
            lambda: _answer(directory.history(asked.label, profiles=asked.profiles, after=asked.after)),
        )

    @route(app, operations.RANGE)
    async def epochs(body: BaseModel) -> Response:
        """What stood at a label in each epoch of a range, with every proof."""
        asked = read_request(RangeRequest, body)
        return await run_in(
            frontend.large,
            lambda: _answer(directory.range(asked.label, asked.first, asked.last, asked.since)),
        )


def _add_logs(app: FastAPI, frontend: Frontend) -> None:
    directory = frontend.directory

    @route(app, operations.LATEST_HEAD)
    async def latest_head(since: Since = None) -> Response:
        """The latest signed map head with both checkpoints."""
        return _answer(await run_in(frontend.reads, lambda: directory.head(since=since)))

    @route(app, operations.HEAD)
    async def past_head(epoch: Annotated[Epoch, Path()], since: Since = None) -> Response:
        """The signed map head of one epoch with both checkpoints."""
        return _answer(await run_in(frontend.reads, lambda: directory.head(epoch, since)))

    @route(app, operations.CONSISTENCY)
    async def consistency(
        log: Annotated[Literal["heads", "mutations"], Query()],
        size1: Annotated[Size, Query(alias="from")],
        size2: Annotated[Size, Query(alias="to")],
    ) -> Response:
        """The consistency proof between two sizes of a log (RFC 6962, 2.1.2)."""
        hashes = await run_in(frontend.reads, lambda: directory.consistency(log, size1, size2))
        return _answer(ConsistencyBody(hashes))

    @route(app, operations.HEADS_CHECKPOINT)
    async def heads_checkpoint() -> Response:
        """The latest checkpoint of the log of map heads."""
        head = await run_in(frontend.reads, directory.head)
        return Response(head.heads_checkpoint, media_type="text/plain")

    @route(app, operations.MUTATIONS_CHECKPOINT)
    async def mutations_checkpoint() -> Response:
        """The latest checkpoint of the log of mutations."""
        head = await run_in(frontend.reads, directory.head)
        return Response(head.mutations_checkpoint, media_type="text/plain")


def _add_writing(app: FastAPI, frontend: Frontend) -> None:
    submissions, verdicts = frontend.submissions, frontend.metrics.submissions

    @route(app, operations.MUTATIONS)
    async def submit(request: Request, body: BaseModel) -> Response:
        """Submit a mutation: checked here, queued, and decided by the signer in the next epoch.

        A 503 says that the outcome is unknown; submit the same bytes again.
        """
        try:
            mutation = read_request(MutationRequest, body)
            answer = await submissions.take(mutation, frontend.writes, lambda: release_slot(request.scope))
        except KtError as error:
            verdicts.labels(problem_of(_told(frontend, error)).reason).inc()
            raise
        match answer:
            case Problem():
                verdicts.labels(answer.reason).inc()
                return _refusal(answer)
            case ReceiptBody():
                verdicts.labels("queued").inc()
                return _answer(answer, 202)
        verdicts.labels(answer.verdict).inc()
        return _answer(answer)

    @route(app, operations.ERASURES)
    async def erase(body: BaseModel) -> Response:
        """Submit the signed erasure of one entry's profile: checked here, and decided in the next epoch.

        A lookup of the entry then has the proof that it was erased. Submitting the same again is safe.
        """
        asked = read_request(ErasureRequest, body)
        answer = await run_in(frontend.writes, lambda: submissions.submit_erasure(asked.erasure))
        return _answer(answer, 202 if answer.epoch is None else 200)


def _add_operations(app: FastAPI, frontend: Frontend) -> None:
    @route(app, operations.HEALTH)
    async def healthz() -> Response:
        """Whether the process lives."""
        return _answer(HealthBody("ok"))

    @route(app, operations.READY)
    async def readyz() -> Response:
        """Whether the front end has a head to serve that clients take, agrees with the logs and reaches them.

        ``reasons`` names what is wrong for programs: ``rollback``, ``equivocation``, ``divergence``,
        ``no-epoch``, ``log-away``, ``store-away``, ``store-rows``, ``disk-full``, ``denied``, ``silence``,
        ``behind`` and ``future-head``.

        It stays ready while too much waits in the queue: every front end sees the same queue, and taking
        them all out of service would end lookups. ``submissions`` says then why these are refused.
        """
        troubles = frontend.troubles()
        if not troubles:
            refusing = frontend.refusing()
            ready = ReadyBody("ready", None if refusing is None else without_streams(refusing))
            return _json(present_members(ready))
        problems = tuple(trouble.sentence for trouble in troubles)
        more = {"problems": problems, "reasons": tuple(trouble.reason for trouble in troubles)}
        detail = "; ".join(problems)
        return _refusal(Problem(503, ProblemReason.NOT_READY, detail, retry_after=2.0, more=more))

    @route(app, operations.METRICS)
    async def metrics() -> Response:
        """Prometheus metrics; nothing in them is about a person."""
        return Response(frontend.metrics.render(), media_type=MEDIA_TYPE)
