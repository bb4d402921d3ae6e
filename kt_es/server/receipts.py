"""Answers to submissions: a receipt, or the verdict after a wait. And blocking calls for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

from kt_es.api.codec import encode_model
from kt_es.api.models import MutationRequest, ReceiptBody, RecordBody, VerdictBody
from kt_es.formats.queue import Verdict
from kt_es.server.batcher import Outcome
from kt_es.server.problems import Problem
from kt_es.server.submission import Queued, Submissions, meaning

_T = TypeVar("_T")


async def run_in(pool: Executor, call: Callable[[], _T]) -> _T:
    """Return what ``call`` returns in a thread of ``pool``.

    If cancelled, a call without a thread is given up. A call that has a thread cannot be stopped: the request
    goes on until the call ends, and keeps its slot among the requests of its client. So a client that asks
    and hangs up again and again has no more threads at work than one that waits for its answers.
    """
    working = pool.submit(call)
    try:
        return await asyncio.wrap_future(working)
    except asyncio.CancelledError:
        if not working.cancel():
            # An error of the call is raised, because it may concern every request.
            await asyncio.wait([ended := asyncio.ensure_future(asyncio.wrap_future(working))])
            ended.result()
        raise


class ReceiptDesk:
    """Takes submissions for an event loop: ``submit`` blocks a thread of a pool, waiting blocks none."""

    def __init__(self, submissions: Submissions) -> None:
        self._submissions = submissions

    async def take(
        self, submission: MutationRequest, pool: Executor, waiting: Callable[[], None] = lambda: None
    ) -> ReceiptBody | VerdictBody | Problem:
        """Submit, and wait for the verdict as long as ``submission`` asks for.

        A cancelled call stops waiting. What is in the queue stays there.

        Args:
            pool: the threads in which ``submit`` blocks.
            waiting: called before the wait begins.
        """
        # Registered before the check, so that no verdict between check and append is missed.
        waiter = self._submissions.wait_for(submission) if submission.wait > 0 else None
        try:
            queued = await run_in(pool, lambda: self._submissions.submit(submission))
            if queued.epoch is not None:
                return _accepted(queued, queued.epoch)
            waiting()
            outcome = None if waiter is None else await _within(waiter, submission.wait)
        finally:
            self._submissions.forget(submission, waiter)
        if outcome is None:
            return ReceiptBody(queued.entry_hash.hex(), str(queued.event))
        if outcome.verdict is Verdict.REPLAY:
            # Another attempt of the same client was accepted between the check and the decision.
            accepted = await run_in(pool, lambda: self._submissions.accepted_in(submission))
            if accepted is not None:
                return _accepted(queued, accepted)
        return _decided(queued, outcome)


async def _within(waiter: Future[Outcome | None], seconds: float) -> Outcome | None:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(waiter), seconds)
    except TimeoutError:
        return None


def _accepted(queued: Queued, epoch: int) -> VerdictBody:
    return VerdictBody(queued.entry_hash.hex(), Verdict.ACCEPTED.label, epoch, None)


def _decided(queued: Queued, outcome: Outcome) -> VerdictBody | Problem:
    verdict = outcome.verdict.label
    record = RecordBody(outcome.sequence, outcome.queue_revision, outcome.position)
    body = VerdictBody(queued.entry_hash.hex(), verdict, outcome.epoch, record)
    if outcome.verdict.succeeded:
        return body
    return Problem(409, verdict, meaning(outcome.verdict), "mutation", more=encode_model(body))
