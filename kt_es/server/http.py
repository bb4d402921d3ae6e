"""HTTP/JSON over the handlers: routes, request validation, OpenAPI 3.1, problem documents (RFC 9457).

Labels travel in bodies, never in URLs: URLs get logged on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, Literal

import structlog
from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from kt_es import __version__
from kt_es.errors import DivergenceError, KtError
from kt_es.server import declared, schemas
from kt_es.server import metrics as prometheus
from kt_es.server.answers import Published
from kt_es.server.clients import Clients
from kt_es.server.erasing import Erasures
from kt_es.server.guard import Guard, leave_place
from kt_es.server.handlers import Directory
from kt_es.server.health import Trouble
from kt_es.server.metrics import Metrics
from kt_es.server.pools import run_in
from kt_es.server.problems import (
    MEDIA_TYPE,
    Problem,
    http_problem,
    internal_problem,
    problem_of,
    without_streams,
)
from kt_es.server.receipts import ReceiptDesk
from kt_es.server.schemas import from_base64, to_base64
from kt_es.server.strict import UnsupportedMediaError, check_media, check_request
from kt_es.server.submission import Submission

_LOG = structlog.get_logger("kt_es.server")
_UNSUPPORTED = Problem(415, "unsupported-media", "send JSON in UTF-8 as content-type application/json")


def _plain(value: object) -> object:
    """Refuse a number in an address that is not written in its one form, which ``int`` would take."""
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise PydanticCustomError("int_parsing", "must be a decimal number without sign and leading zeros")
    return value


_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_Plain = BeforeValidator(_plain)

Size = Annotated[int, Field(ge=0, le=2**63 - 1), _Plain]
Epoch = Annotated[int, Field(ge=1, le=2**63 - 1), _Plain]
Since = Annotated[Size | None, Query()]
"""The size of the log of map heads that the client trusts."""


@dataclass(frozen=True, slots=True)
class Frontend:
    """What the routes serve. ``reads``, ``large`` and ``writes`` are the pools that their handlers block.

    ``troubles`` says what is missing to be ready, nothing if it is; ``refusing`` why submissions are refused
    although it is. ``failed`` is told of an error after which this process should not go on.
    """

    directory: Directory
    desk: ReceiptDesk
    erasures: Erasures
    metrics: Metrics
    clients: Clients
    reads: Executor
    large: Executor
    writes: Executor
    troubles: Callable[[], list[Trouble]]
    refusing: Callable[[], str | None]
    failed: Callable[[KtError], None]


def create_app(frontend: Frontend) -> ASGIApp:
    """The ASGI application."""
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
    _add_erasing(app, frontend)
    _add_operations(app, frontend)
    declared.describe(app)
    return Guard(app, frontend.clients, frontend.metrics.requests, frontend.metrics.refused)


def _answer(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body, separators=(",", ":")), status, media_type="application/json")


def _refusal(problem: Problem) -> Response:
    return Response(problem.encode(), problem.status, problem.headers, MEDIA_TYPE)


def _add_errors(app: FastAPI, frontend: Frontend) -> None:
    @app.exception_handler(KtError)
    async def known(_: Request, error: KtError) -> Response:
        problem = problem_of(error)
        if problem.status >= 500 and problem.retry_after is None:
            _LOG.error("a request failed", error=str(error))
        if isinstance(error, DivergenceError):
            frontend.failed(error)
        return _refusal(problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        if request.method == "POST":
            # A body that cannot be read as JSON comes here before its type was looked at.
            try:
                check_media(request)
            except UnsupportedMediaError:
                return _refusal(_UNSUPPORTED)
        # Names the first wrong field, and never repeats what was sent: it may hold a label.
        first = error.errors()[0]
        names = [str(part)[:64] for part in first["loc"][1:] if isinstance(part, str)]
        field = names[-1] if names and first["type"] != "json_invalid" else None
        return _refusal(Problem(400, "malformed", str(first["msg"]), field))

    @app.exception_handler(UnsupportedMediaError)
    async def media(_: Request, __: UnsupportedMediaError) -> Response:
        return _refusal(_UNSUPPORTED)

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

    @app.get("/v1/directory", responses=declared.reading(schemas.DirectoryBody))
    async def describe() -> Response:
        """Origin, name and label policy of the directory, and the chain of its signed configs."""
        info = await run_in(frontend.reads, directory.describe)
        return _answer(
            {
                "origin": info.origin,
                "directory": info.directory,
                "label_policy": info.label_policy,
                "configs": to_base64(info.configs),
            }
        )

    @app.post("/v1/lookup", responses=declared.reading(schemas.LookupBody, has_body=True, of_epochs=True))
    async def lookup(body: schemas.LookupRequest) -> Response:
        """What stands at a label, with every proof; absence, too, is an answer."""

        def answer() -> Response:
            found = directory.lookup(body.label, body.epoch, body.since, profile=body.profile)
            frontend.metrics.lookups.labels(found.result).inc()
            return _answer(
                {
                    "epoch": found.epoch,
                    "answer": to_base64(found.answer.encode()),
                    "profile": _optional(found.profile),
                    "consistency": [to_base64(value) for value in found.consistency],
                }
            )

        return await run_in(frontend.reads, answer)

    @app.post("/v1/history", responses=declared.reading(schemas.HistoryBody, has_body=True))
    async def history(body: schemas.HistoryRequest) -> Response:
        """The versions of a label, the oldest first, in pages."""

        def answer() -> Response:
            page = directory.history(body.label, profiles=body.profiles, after=body.after)
            versions = [
                {
                    "version": version.mutation.entry.version,
                    "epoch": version.epoch,
                    "mutation": to_base64(version.mutation.encode()),
                    "opening": _optional(version.opening),
                    "profile": _optional(version.profile),
                }
                for version in page.versions
            ]
            return _answer({"versions": versions, "more": page.more})

        return await run_in(frontend.large, answer)

    @app.post("/v1/range", responses=declared.reading(schemas.RangeBody, has_body=True, of_epochs=True))
    async def epochs(body: schemas.RangeRequest) -> Response:
        """What stood at a label in each epoch of a range, with every proof."""

        def answer() -> Response:
            found = directory.range(body.label, body.first, body.last, body.since)
            return _answer(
                {
                    "first": found.first,
                    "last": found.last,
                    "answer": to_base64(found.answer.encode()),
                    "consistency": [to_base64(value) for value in found.consistency],
                }
            )

        return await run_in(frontend.large, answer)


def _optional(data: bytes | None) -> str | None:
    return None if data is None else to_base64(data)


def _add_logs(app: FastAPI, frontend: Frontend) -> None:
    directory = frontend.directory

    def head(published: Published) -> Response:
        event = published.event
        return _answer(
            {
                "epoch": published.epoch,
                "smh": to_base64(event.smh_bytes),
                "heads_checkpoint": event.heads_checkpoint,
                "mutations_checkpoint": event.mutations_checkpoint,
                "inclusion": [to_base64(value) for value in published.inclusion],
                "latest_checkpoint": published.checkpoint,
            }
        )

    @app.get("/v1/heads/latest", responses=declared.reading(schemas.HeadBody))
    async def latest_head(since: Since = None) -> Response:
        """The latest signed map head with both checkpoints."""
        return head(await run_in(frontend.reads, lambda: directory.head(since=since)))

    @app.get("/v1/heads/{epoch}", responses=declared.reading(schemas.HeadBody, of_epochs=True))
    async def past_head(epoch: Annotated[Epoch, Path()], since: Since = None) -> Response:
        """The signed map head of one epoch with both checkpoints."""
        return head(await run_in(frontend.reads, lambda: directory.head(epoch, since)))

    @app.get("/v1/consistency", responses=declared.reading(schemas.ConsistencyBody, of_epochs=True))
    async def consistency(
        log: Annotated[Literal["heads", "mutations"], Query()],
        size1: Annotated[Size, Query(alias="from")],
        size2: Annotated[Size, Query(alias="to")],
    ) -> Response:
        """The consistency proof between two sizes of a log (RFC 6962, 2.1.2)."""
        hashes = await run_in(frontend.reads, lambda: directory.consistency(log, size1, size2))
        return _answer({"hashes": [to_base64(value) for value in hashes]})

    @app.get("/heads/checkpoint", responses=declared.text("C2SP checkpoint"), response_class=Response)
    async def heads_checkpoint() -> Response:
        """The latest checkpoint of the log of map heads."""
        published = await run_in(frontend.reads, directory.head)
        return Response(published.event.heads_checkpoint, media_type="text/plain")

    @app.get("/mutations/checkpoint", responses=declared.text("C2SP checkpoint"), response_class=Response)
    async def mutations_checkpoint() -> Response:
        """The latest checkpoint of the log of mutations."""
        published = await run_in(frontend.reads, directory.head)
        return Response(published.event.mutations_checkpoint, media_type="text/plain")


def _add_writing(app: FastAPI, frontend: Frontend) -> None:
    responses = declared.submitting(schemas.VerdictBody, schemas.ReceiptBody)

    @app.post("/v1/mutations", responses=responses)
    async def submit(request: Request, body: schemas.MutationRequest) -> Response:
        """Submit a mutation: checked here, queued, and decided by the signer in the next epoch.

        A 503 says that the outcome is unknown; submit the same bytes again.
        """
        submissions = frontend.metrics.submissions
        try:
            submission = Submission(
                body.label,
                from_base64(body.mutation, "mutation"),
                from_base64(body.opening, "opening"),
                from_base64(body.profile, "profile"),
            )
            answer = await frontend.desk.take(
                submission, body.wait, frontend.writes, lambda: leave_place(request.scope)
            )
        except KtError as error:
            submissions.labels(problem_of(error).reason).inc()
            raise
        submissions.labels(answer.verdict).inc()
        if isinstance(answer.body, Problem):
            return _refusal(answer.body)
        return _answer(answer.body, answer.status)


def _add_erasing(app: FastAPI, frontend: Frontend) -> None:
    responses = declared.submitting(schemas.ErasureBody, schemas.ErasureBody)

    @app.post("/v1/erasures", responses=responses)
    async def erase(body: schemas.ErasureRequest) -> Response:
        """Submit the signed erasure of one entry's profile: checked here, and decided in the next epoch.

        A lookup of the entry then has the proof that it was erased. Submitting the same again is safe.
        """
        data = from_base64(body.erasure, "erasure")
        taken = await run_in(frontend.writes, lambda: frontend.erasures.submit(data))
        event = None if taken.event is None else str(taken.event)
        answer = {"entry": taken.entry_hash.hex(), "event": event, "epoch": taken.epoch}
        return _answer(answer, 202 if taken.epoch is None else 200)


def _add_operations(app: FastAPI, frontend: Frontend) -> None:
    @app.get("/healthz", responses=declared.reading(schemas.HealthBody))
    async def healthz() -> Response:
        """Whether the process lives."""
        return _answer({"status": "ok"})

    @app.get("/readyz", responses=declared.reading(schemas.ReadyBody))
    async def readyz() -> Response:
        """Whether the front end has a head to serve that clients take, agrees with the logs and reaches them.

        ``reasons`` names what is wrong for programs: ``rollback``, ``equivocation``, ``divergence``,
        ``no-epoch``, ``log-away``, ``denied``, ``silence``, ``behind`` and ``future-head``.

        It stays ready while too much waits in the queue: every front end sees the same queue, and taking
        them all out of service would end lookups. ``submissions`` says then why these are refused.
        """
        troubles = frontend.troubles()
        if not troubles:
            refusing = frontend.refusing()
            if refusing is not None:
                refusing = without_streams(refusing)
            return _answer({"status": "ready", **({} if refusing is None else {"submissions": refusing})})
        problems = [trouble.sentence for trouble in troubles]
        more = {"problems": problems, "reasons": [str(trouble.reason) for trouble in troubles]}
        return _refusal(Problem(503, "not-ready", "; ".join(problems), retry_after=2.0, more=more))

    @app.get("/metrics", response_class=Response, responses=declared.text("Prometheus text format"))
    async def metrics() -> Response:
        """Prometheus metrics; nothing in them is about a person."""
        return Response(frontend.metrics.render(), media_type=prometheus.MEDIA_TYPE)
