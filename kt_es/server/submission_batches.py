"""Many submissions of one request: each has its own outcome, and together they cost little more than a few.

The steps of a submission are those of ``submission``. Here each step is made for all submissions at once: one
thread checks them, they pass through the rounds of the batcher together and become full events of the queue,
and one wait is for all verdicts. A submission that fails at a step takes no part in the next one, and the
others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from kt_es.api.batches import BatchedMutation, Malformed
from kt_es.api.models import MutationRequest, ReceiptBody, VerdictBody
from kt_es.api.operations import ProblemReason
from kt_es.errors import AccessDeniedError, KtError, MalformedError, RefusedError, UnavailableError
from kt_es.formats.entries import Mutation
from kt_es.formats.queue import Verdict
from kt_es.server.batcher import Step, UnprotectedError
from kt_es.server.responses import Problem
from kt_es.server.submission import (
    Accepted,
    Checked,
    Queued,
    Submissions,
    held,
    run_in,
    verdict_at,
    verdict_of,
)
from kt_es.server.waiters import Outcome

Taken: TypeAlias = ReceiptBody | VerdictBody | Problem | KtError
"""What became of a submission. An error is that of its checks or of its appends."""

_Waiter: TypeAlias = Future[Outcome | None]

# Errors of one submission. Any other error is one of this front end, and ends the request.
_OWN = (RefusedError, MalformedError, UnavailableError, AccessDeniedError)
PROTECTORS = 4
"""Threads that one batch has at a time for streams whose rights must be read first."""


@dataclass(slots=True)
class _Item:
    """One submission of a batch on its way.

    Attributes:
        request: None if it could not be read.
        waiter: Gets the verdict; None if nobody waits for it.
        state: The outcome of its last step.
        outcome: The verdict, if it came in time.
    """

    request: MutationRequest | None
    waiter: _Waiter | None = None
    state: Checked | Accepted | Queued | KtError | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class SubmissionBatches:
    """Takes batches of submissions for the directory of ``submissions``. Safe for threads."""

    submissions: Submissions

    async def take(
        self,
        batch: Sequence[BatchedMutation | Malformed],
        wait: float,
        pool: Executor,
        waiting: Callable[[], None],
    ) -> list[Taken]:
        """Submit all of ``batch``, and wait up to ``wait`` seconds for their verdicts.

        Args:
            batch: The submissions, each of which is checked as if it came alone.
            wait: Seconds, for all verdicts together.
            pool: Its threads check the submissions.
            waiting: Called before the wait begins.

        Returns:
            What became of each submission, in their order.

        Raises:
            UnavailableError: Nothing can be queued now, and nothing was.
            KtError: This front end cannot go on, or its rows are wrong. The outcomes are unknown.
        """
        items = [_item(one) for one in batch]
        waiters = self.submissions.waiters
        try:
            if wait > 0:
                # Registered before the checks, so that no verdict between check and append is missed.
                for item in items:
                    if item.request is not None:
                        item.waiter = waiters.register(item.request.mutation)
            await run_in(pool, partial(self._check, items))
            await self._queue(items, pool)
            waiting()
            await _decided(items, wait)
        finally:
            for item in items:
                if item.waiter is not None and item.request is not None:
                    waiters.discard(item.request.mutation, item.waiter)
        unsure = [item for item in items if _is_unsure(item)]
        accepted = await run_in(pool, partial(self._accepted, unsure)) if unsure else {}
        return [_taken(item, accepted.get(id(item))) for item in items]

    def _check(self, items: Sequence[_Item]) -> None:
        """Set the state of each item: checked, accepted already, or refused. Runs in a thread."""
        submissions = self.submissions
        committed = submissions.directory.committed()
        config = submissions.directory.config(committed)
        readable = [(item, item.request) for item in items if item.request is not None]
        read = submissions.checks.mutations(committed, [request for _, request in readable])
        found: list[tuple[_Item, MutationRequest, Mutation]] = []
        for (item, request), mutation in zip(readable, read, strict=True):
            if isinstance(mutation, Mutation):
                found.append((item, request, mutation))
            else:
                item.state = mutation
        decided = submissions.checks.decided_many(
            committed,
            [mutation for _, _, mutation in found],
            [request.mutation for _, request, _ in found],
        )
        deadline = submissions.appender.deadline()
        is_queued = False
        for (item, request, mutation), accepted in zip(found, decided, strict=True):
            if isinstance(accepted, KtError):
                item.state = accepted
            elif accepted is not None:
                item.state = Accepted(mutation.entry_hash, accepted)
            else:
                try:
                    registration = submissions.registration.admit(config, mutation.entry, request)
                except _OWN as error:
                    item.state = error
                    continue
                is_queued = True
                item.state = submissions.checked(request, mutation, registration, deadline)
        if is_queued:
            submissions.check_queue()

    async def _queue(self, items: Sequence[_Item], pool: Executor) -> None:
        """Append the openings and mutations of all checked items; each is durable then, or has an error."""
        later = [
            item
            for item in items
            if isinstance(item.state, Checked) and item.state.mutation.entry.previous is not None
        ]
        await self._protect(later, pool)
        await self._put(items, is_first=True)
        # A stream that was there already, or the rights of which were set by somebody else.
        exposed = [item for item in items if isinstance(item.state, Checked)]
        await self._protect(exposed, pool)
        await self._put(exposed, is_first=False)

    async def _protect(self, items: Sequence[_Item], pool: Executor) -> None:
        """Make sure that the streams of ``items`` are private; those that may not be get an error."""
        parts = [items[first::PROTECTORS] for first in range(min(PROTECTORS, len(items)))]
        await asyncio.gather(*(run_in(pool, partial(self._protect_each, part)) for part in parts))

    def _protect_each(self, items: Sequence[_Item]) -> None:
        away: UnavailableError | None = None
        for item in items:
            if not isinstance(item.state, Checked):
                continue
            try:
                if away is not None:
                    raise away
                self.submissions.protect(item.state)
            except UnavailableError as error:
                # A log that does not answer would cost the same time again for each of the others.
                item.state = away = error
            except AccessDeniedError as error:
                item.state = error

    async def _put(self, items: Sequence[_Item], *, is_first: bool) -> None:
        """Append what is checked. An item whose stream turns out not to be private stays checked."""
        checked_items = [(item, item.state) for item in items if isinstance(item.state, Checked)]
        # The same mutation twice is one item of the queue, as the same submission again is the same event.
        steps: dict[bytes, Step] = {}
        for _, checked in checked_items:
            if checked.item not in steps:
                step = steps[checked.item] = checked.first_step if is_first else checked.step
                step.event.add_done_callback(self.submissions.note_queued)
        if not steps:
            return
        await held(self.submissions.batcher.put_all(list(steps.values())))
        for item, checked in checked_items:
            step = steps[checked.item]
            error = step.event.exception()
            if error is None:
                event = step.event.result()
                item.state = Queued(checked.mutation.entry_hash, event, checked.registration)
            elif isinstance(error, UnprotectedError) and is_first:
                continue
            elif isinstance(error, KtError):
                item.state = error
            else:
                raise error

    def _accepted(self, items: Iterable[_Item]) -> dict[int, int]:
        """Return the epoch of each of ``items`` whose entry is the current one now. Runs in a thread."""
        found: dict[int, int] = {}
        # A receipt is true in any case.
        with suppress(UnavailableError):
            for item in items:
                if item.request is not None:
                    epoch = self.submissions.checks.accepted_in(item.request)
                    if epoch is not None:
                        found[id(item)] = epoch
        return found


def _item(submitted: BatchedMutation | Malformed) -> _Item:
    if isinstance(submitted, Malformed):
        refusal = RefusedError(ProblemReason.MALFORMED, submitted.problem, submitted.field)
        return _Item(None, state=refusal)
    return _Item(submitted.alone)


async def _decided(items: Sequence[_Item], wait: float) -> None:
    """Wait until the verdicts on all queued items are there, or until the time is over."""
    awaited = [
        asyncio.wrap_future(item.waiter)
        for item in items
        if item.waiter is not None and isinstance(item.state, Queued)
    ]
    if awaited:
        await asyncio.wait(awaited, timeout=wait)
    for item in items:
        if item.waiter is not None and item.waiter.done():
            item.outcome = item.waiter.result()


def _is_unsure(item: _Item) -> bool:
    """Return whether the replica may know more about an item that waited than its outcome says.

    Its record may have been replayed before the wait began, in an epoch that was committed later; and another
    attempt of the same client may have been accepted between check and decision.
    """
    if item.waiter is None or not isinstance(item.state, Queued):
        return False
    return item.outcome is None or item.outcome.record.verdict is Verdict.REPLAY


def _taken(item: _Item, accepted: int | None) -> Taken:
    match item.state:
        case Queued() as queued:
            if accepted is not None:
                return verdict_at(Accepted(queued.entry_hash, accepted))
            if item.outcome is not None:
                return verdict_of(queued, item.outcome)
            return ReceiptBody(queued.entry_hash.hex(), str(queued.event), queued.registration)
        case Accepted() as known:
            return verdict_at(known)
        case KtError() as error:
            return error
    raise TypeError(f"{type(item.state).__name__} is no outcome of a submission")
