"""What all endpoints share: what they serve, and how an answer is made of a model."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog

from kt_es.api.codec import encode_model
from kt_es.api.operations import Operation
from kt_es.errors import DivergenceError, KtError, UnverifiedRowError
from kt_es.server.asgi import Scope
from kt_es.server.cosigning import Cosigning
from kt_es.server.feed import EpochFeed
from kt_es.server.handlers import DirectoryReader
from kt_es.server.health import Metrics, Trouble
from kt_es.server.registration.gate import Registration
from kt_es.server.responses import STORE_ROWS, Answer, NotNowError, Problem, problem_of
from kt_es.server.slots import Slots
from kt_es.server.statuses import StatusReader
from kt_es.server.streams import EventStream
from kt_es.server.submission import Submissions
from kt_es.server.tiles import TileReader

_LOG = structlog.get_logger("kt_es.server")
TEXT_MEDIA = "text/plain; charset=utf-8"


Endpoint: TypeAlias = Callable[[Any, Scope], Awaitable[Answer | EventStream]]
"""Answers an operation, given its body or its parameters as ``kt_es.api`` models them, and the scope."""
Endpoints: TypeAlias = list[tuple[Operation, Endpoint]]


@dataclass(frozen=True, slots=True)
class Frontend:
    """What the routes serve.

    Lookups, heads and tiles block threads of ``reads``, histories, ranges and entries of tiles those of
    ``large``, submissions those of ``writes``, registration mails those of ``mails``. ``exposed`` says
    whether other machines can reach this front end. ``troubles`` gives the reasons why this front end is not
    ready. ``refusing`` gives the reason why submissions are refused although it is ready. ``failed`` is
    called with an error after which this process should not go on.
    """

    directory: DirectoryReader
    submissions: Submissions
    statuses: StatusReader
    feed: EpochFeed
    tiles: TileReader
    cosigning: Cosigning
    metrics: Metrics
    slots: Slots
    reads: Executor
    large: Executor
    writes: Executor
    mails: Executor
    registration: Registration
    exposed: bool
    troubles: Callable[[], list[Trouble]]
    refusing: Callable[[], str | None]
    failed: Callable[[KtError], None]


def public_error(frontend: Frontend, error: KtError) -> KtError:
    """Return ``error`` as clients see it: a wrong row of a shared store is an outage to them."""
    if isinstance(error, UnverifiedRowError) and frontend.directory.ledger.store.is_shared:
        return NotNowError(f"{STORE_ROWS}; try again later")
    return error


def problem_for(frontend: Frontend, error: KtError) -> Problem:
    """Return the problem of a request that failed with ``error``. Log it, and stop the process if it must."""
    public = public_error(frontend, error)
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


def answer_of(model: object, status: int = 200) -> Answer:
    return json_answer(encode_model(model), status)


def json_answer(body: object, status: int = 200) -> Answer:
    return Answer(json.dumps(body, separators=(",", ":")).encode(), status=status)
