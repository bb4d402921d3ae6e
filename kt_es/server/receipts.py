"""What a submitter is told: a receipt at once, or, asked to wait, what became of the mutation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from kt_es.formats.records import Verdict
from kt_es.server.pools import run_in
from kt_es.server.problems import Problem
from kt_es.server.submission import Receipt, Submission, Submissions, meaning
from kt_es.server.waiters import Outcome


@dataclass(frozen=True, slots=True)
class Told:
    """An answer to a submission; ``verdict`` names it in the metrics, ``queued`` while undecided."""

    verdict: str
    status: int
    body: dict[str, object] | Problem


class ReceiptDesk:
    """Takes submissions for an event loop: ``submit`` blocks a thread of a pool, waiting blocks none."""

    def __init__(self, submissions: Submissions) -> None:
        self._submissions = submissions

    async def take(
        self,
        submission: Submission,
        wait: float,
        pool: Executor,
        waiting: Callable[[], None] = lambda: None,
    ) -> Told:
        """Submit, and wait up to ``wait`` seconds for the verdict; ``waiting`` is called before that.

        Cancelled, it waits no longer. What is in the queue stays there.
        """
        # Before it is checked: a verdict that comes between check and append is not missed.
        waiter = self._submissions.wait_for(submission) if wait > 0 else None
        try:
            receipt = await run_in(pool, lambda: self._submissions.submit(submission))
            if receipt.epoch is not None:
                return _accepted(receipt, receipt.epoch)
            waiting()
            outcome = None if waiter is None else await _within(waiter, wait)
        finally:
            self._submissions.forget(submission, waiter)
        if outcome is None:
            return Told("queued", 202, {"mutation": receipt.entry_hash.hex(), "event": str(receipt.event)})
        if outcome.verdict is Verdict.REPLAY:
            # It was accepted between the check and the decision: another try of the same client.
            accepted = await run_in(pool, lambda: self._submissions.accepted_in(submission))
            if accepted is not None:
                return _accepted(receipt, accepted)
        return _decided(receipt, outcome)


async def _within(waiter: Future[Outcome | None], seconds: float) -> Outcome | None:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(waiter), seconds)
    except TimeoutError:
        return None


def _accepted(receipt: Receipt, epoch: int) -> Told:
    verdict = Verdict.ACCEPTED.label
    body = {"mutation": receipt.entry_hash.hex(), "verdict": verdict, "epoch": epoch, "record": None}
    return Told(verdict, 200, body)


def _decided(receipt: Receipt, outcome: Outcome) -> Told:
    verdict = outcome.verdict.label
    body: dict[str, object] = {
        "mutation": receipt.entry_hash.hex(),
        "verdict": verdict,
        "epoch": outcome.epoch,
        "record": {
            "sequence": outcome.sequence,
            "queue_revision": outcome.queue_revision,
            "position": outcome.position,
        },
    }
    if outcome.verdict.succeeded:
        return Told(verdict, 200, body)
    return Told(verdict, 409, Problem(409, verdict, meaning(outcome.verdict), "mutation", more=body))
