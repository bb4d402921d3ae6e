"""The HTTP interface of a witness: ``add-checkpoint``, and the latest cosigned checkpoint of each log."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from kt_es.api.operations import HEALTH, ProblemReason
from kt_es.errors import KtError
from kt_es.formats.witnessing import ADD_CHECKPOINT
from kt_es.server.asgi import ASGIApp, Scope
from kt_es.server.guard import Guard
from kt_es.server.responses import Answer, Problem, http_problem
from kt_es.server.slots import Slots
from kt_es.server.streams import EventStream
from kt_es.server.submission import run_in
from kt_es.witness.witness import Reply, Witness

Work = Callable[[], Reply]

RETRY_AFTER: Final = 10.0

_LOG = structlog.get_logger("witness")
_MONITORED = re.compile(r"/([0-9a-f]{64})/checkpoint")


class _Route:
    """The template of a route, which metrics and log have in place of the address."""

    def __init__(self, path: str) -> None:
        self.path = path


_ADD = _Route(f"/{ADD_CHECKPOINT}")
_CHECKPOINT = _Route("/{origin hash}/checkpoint")


def create_witness_app(
    witness: Witness, threads: Executor, slots: Slots, results: Counter, seconds: Histogram
) -> ASGIApp:
    """Return the application. ``results`` counts answers by result; ``threads`` sign and write."""

    async def answer(scope: Scope, body: bytes) -> Answer | EventStream:
        path, method = scope["path"], scope["method"]
        if path == HEALTH.path and method == "GET":
            return Answer(b'{"status":"ok"}')
        if path == _ADD.path:
            scope["route"] = _ADD
            if method != "POST":
                return http_problem(405, allow="POST").answer
            return await _replied(lambda: witness.add_checkpoint(body))
        if (found := _MONITORED.fullmatch(path)) is not None:
            scope["route"] = _CHECKPOINT
            if method != "GET":
                return http_problem(405, allow="GET").answer
            return await _replied(lambda: witness.monitored(found[1]))
        return http_problem(404).answer

    async def _replied(work: Work) -> Answer:
        try:
            reply = await run_in(threads, work)
        except KtError as error:
            # Nothing was cosigned: the answer follows the sync of the disk.
            _LOG.error("a checkpoint was not stored", problem=str(error))
            results.labels("failed").inc()
            detail = "this witness cannot store checkpoints now; try again later"
            return Problem(503, ProblemReason.UNAVAILABLE, detail, retry_after=RETRY_AFTER).answer
        results.labels(reply.result).inc()
        return Answer(reply.body, reply.media, int(reply.status))

    return Guard(answer, slots, seconds, slots.refused)
