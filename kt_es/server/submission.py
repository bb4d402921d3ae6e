"""Submissions of mutations and erasures: refuse early what the signer would refuse, queue the rest.

The opening of a mutation is stored before the mutation is queued, in a stream that is known to be private. So
the profile of an entry is available from the epoch that has the entry. If the mutation then does not reach
the queue, an opening without an entry stays in the private stream. The same submission again is the same
event.

An erased opening is taken out of its stream when an epoch has accepted the erasure (``privacy.Sweeper``).

Checking blocks a thread of a pool. Waiting, for the log or for the verdict, blocks none.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from kt_es.api.codec import encode_model
from kt_es.api.models import ErasureBody, MutationRequest, ReceiptBody, RecordBody, VerdictBody
from kt_es.errors import UnavailableError
from kt_es.eventstore.rights import first_acl
from kt_es.eventstore.streams import ANY, Append, StreamNames, content_event
from kt_es.formats.entries import OPENING, Mutation, Opening
from kt_es.formats.queue import ERASURE, Verdict
from kt_es.ledger.proofs import proven_erasure
from kt_es.server.appender import Appender
from kt_es.server.availability import Backlog, LogWatch
from kt_es.server.batcher import Batcher, Step, UnprotectedError
from kt_es.server.checks import Checks, meaning
from kt_es.server.handlers import DirectoryReader
from kt_es.server.privacy import PrivateStreams
from kt_es.server.registration.gate import Registration
from kt_es.server.responses import Problem
from kt_es.server.waiters import Outcome, Waiters

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Queued:
    """The mutation is in the queue, in the event ``event``."""

    entry_hash: bytes
    event: uuid.UUID
    registration: str | None = None  # how a new label was let in


@dataclass(frozen=True, slots=True)
class Accepted:
    """The entry is the current one already: ``epoch`` accepted it, and nothing is queued."""

    entry_hash: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A submission that may be queued: its mutation, which is ``item`` in bytes, and its opening.

    ``registration`` says how a new label was let in.
    """

    mutation: Mutation
    item: bytes
    stream: str
    opening: Append
    deadline: float
    registration: str | None

    @property
    def first_step(self) -> Step:
        """What is appended. The stream of a first opening is made private before."""
        is_first = self.mutation.entry.previous is None
        protection = first_acl(self.stream) if is_first else None
        return Step(self.item, self.deadline, protection, self.opening)

    @property
    def step(self) -> Step:
        """What is appended once the stream is known to be private."""
        return Step(self.item, self.deadline, None, self.opening)


@dataclass(frozen=True, slots=True)
class Submissions:
    """Takes submissions for one directory. Safe for threads."""

    directory: DirectoryReader
    names: StreamNames
    waiters: Waiters
    watch: LogWatch
    backlog: Backlog
    appender: Appender
    batcher: Batcher
    private: PrivateStreams
    checks: Checks
    registration: Registration

    async def take(
        self, submission: MutationRequest, pool: Executor, waiting: Callable[[], None]
    ) -> ReceiptBody | VerdictBody | Problem:
        """Submit in a thread of ``pool``, and wait for the verdict as long as ``submission`` asks for.

        ``waiting`` is called before the wait begins. A cancelled call stops waiting, and a mutation in the
        queue stays there.
        """
        # Registered before the check, so that no verdict between check and append is missed.
        waiter = self.waiters.register(submission.mutation) if submission.wait > 0 else None
        try:
            checked = await run_in(pool, lambda: self._check(submission))
            if isinstance(checked, Accepted):
                return verdict_at(checked)
            queued = await self._queue(checked, pool)
            waiting()
            outcome = None
            if waiter is not None:
                with suppress(TimeoutError):
                    outcome = await asyncio.wait_for(asyncio.wrap_future(waiter), submission.wait)
        finally:
            if waiter is not None:
                self.waiters.discard(submission.mutation, waiter)
        accepted = None
        if outcome is None and waiter is not None:
            # The record may have been replayed before the wait began, in an epoch that was committed later.
            # A receipt is true in any case.
            with suppress(UnavailableError):
                accepted = await run_in(pool, lambda: self.checks.accepted_in(submission))
        elif outcome is not None and outcome.record.verdict is Verdict.REPLAY:
            # Another attempt of the same client was accepted between the check and the decision.
            accepted = await run_in(pool, lambda: self.checks.accepted_in(submission))
        if accepted is not None:
            return verdict_at(Accepted(queued.entry_hash, accepted))
        if outcome is None:
            return ReceiptBody(queued.entry_hash.hex(), str(queued.event), queued.registration)
        return verdict_of(queued, outcome)

    def _check(self, submission: MutationRequest) -> Checked | Accepted:
        """Check a submission, and make sure that the stream of an opening that is not the first is private.

        Raises:
            RefusedError: The signer would refuse it, or the label may not be registered.
            MalformedError: The label is invalid.
            UnavailableError: The log cannot be reached, or the queue or the disk is full. Nothing was queued.
            AccessDeniedError: A right is missing; the submission is not in the queue.
        """
        committed = self.directory.committed()
        mutation = self.checks.mutation(committed, submission)
        accepted = self.checks.decided(committed, mutation, submission.mutation)
        if accepted is not None:
            return Accepted(mutation.entry_hash, accepted)
        registration = self.registration.admit(self.directory.config(committed), mutation.entry, submission)
        self.check_queue()
        checked = self.checked(submission, mutation, registration, self.appender.deadline())
        if mutation.entry.previous is not None:
            self.protect(checked)
        return checked

    def checked(
        self, submission: MutationRequest, mutation: Mutation, registration: str | None, deadline: float
    ) -> Checked:
        """Return a submission that passed all checks, with the append of its opening."""
        stream = self.names.openings(mutation.entry.index)
        opening = Opening(mutation.entry_hash, submission.opening, submission.profile)
        append = Append(stream, ANY, [content_event(stream, OPENING, opening.encode())])
        return Checked(mutation, submission.mutation, stream, append, deadline, registration)

    async def _queue(self, checked: Checked, pool: Executor) -> Queued:
        """Append opening and mutation, and return when both are durable.

        Raises:
            UnavailableError: The outcome is unknown, and the same bytes may be submitted again.
            AccessDeniedError: A right is missing; the submission is not in the queue.
        """
        try:
            event = await self._put(checked.first_step)
        except UnprotectedError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # The requester has hung up, and ``held`` raised this error in the place of the cancellation.
                raise asyncio.CancelledError from None
            await run_in(pool, lambda: self.protect(checked))
            event = await self._put(checked.step)
        return Queued(checked.mutation.entry_hash, event, checked.registration)

    async def _put(self, step: Step) -> uuid.UUID:
        queued = self.batcher.put(step)
        queued.add_done_callback(self.note_queued)
        return await held(queued)

    def note_queued(self, queued: Future[uuid.UUID]) -> None:
        """Count what is in the queue now."""
        # The requester may have hung up, and the item counts nevertheless.
        if queued.exception() is None:
            self.backlog.added()

    def protect(self, checked: Checked) -> None:
        """Return when the stream of the opening is private. Raises as ``_check`` does."""
        previous = checked.mutation.entry.previous
        self.appender.repeat(lambda: self.private.protect(checked.stream, previous), checked.deadline)

    def submit_erasure(self, data: bytes) -> ErasureBody:
        """Check and queue one encoded erasure. Raises what ``submit`` raises."""
        committed = self.directory.committed()
        erasure = self.checks.erasure(committed, data)
        index, entry_hash = erasure.index, erasure.entry_hash
        erased = proven_erasure(self.directory.ledger, committed, index, entry_hash)
        if erased is not None:
            return ErasureBody(entry_hash.hex(), None, erased.epoch)
        self.check_queue()
        event = content_event(self.names.queue, ERASURE, data)
        self.appender.append(self.names.queue, event, self.appender.deadline())
        self.backlog.added()
        return ErasureBody(entry_hash.hex(), str(event.id), None)

    def check_queue(self) -> None:
        """Raise ``UnavailableError`` while nothing more can be queued."""
        self.directory.check_submissions()
        self.watch.check()
        self.backlog.check()


async def run_in(pool: Executor, call: Callable[[], _T]) -> _T:
    """Return what ``call`` returns in a thread of ``pool``.

    If cancelled, a call without a thread is given up. A call that has a thread cannot be stopped: the request
    continues until the call ends, and keeps its slot among the requests of its client. So a client that hangs
    up again and again uses no more threads than a client that waits for its answers.
    """
    working = pool.submit(call)
    return await held(working)


async def held(working: Future[_T]) -> _T:
    """Return the result of ``working``. If cancelled, wait for its end unless it has not begun."""
    try:
        return await asyncio.wrap_future(working)
    except asyncio.CancelledError:
        if not working.cancel():
            # An error of the call is raised, because it may concern every request.
            await asyncio.wait([ended := asyncio.ensure_future(asyncio.wrap_future(working))])
            ended.result()
        raise


def verdict_at(accepted: Accepted) -> VerdictBody:
    """Return the verdict on an entry that an epoch accepted."""
    return VerdictBody(accepted.entry_hash.hex(), Verdict.ACCEPTED.label, accepted.epoch, None)


def verdict_of(queued: Queued, outcome: Outcome) -> VerdictBody | Problem:
    """Return the verdict that the signer recorded, as a problem if the mutation failed."""
    record, verdict = outcome.record, outcome.record.verdict
    where = RecordBody(record.sequence, record.item.revision, record.item.position)
    body = VerdictBody(queued.entry_hash.hex(), verdict.label, outcome.epoch, where, queued.registration)
    if verdict.succeeded:
        return body
    return Problem(409, verdict.label, meaning(verdict), "mutation", more=encode_model(body))
