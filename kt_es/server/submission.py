"""Submissions of mutations and erasures: refuse early what the signer would refuse, queue the rest.

The opening of a mutation is stored before the mutation is queued, in a stream that is known to be private. So
the profile of an entry is available from the epoch that has the entry. If the mutation then does not reach
the queue, an opening without an entry stays in the private stream. The same submission again is the same
event.

An erased opening is taken out of its stream when an epoch has accepted the erasure (``privacy.Sweeper``).

Submitting blocks a thread of a pool. Waiting for the verdict blocks none.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from kt_es.api.codec import encode_model
from kt_es.api.models import ErasureBody, MutationRequest, ReceiptBody, RecordBody, VerdictBody
from kt_es.api.operations import ProblemReason
from kt_es.crypto.hashes import opens
from kt_es.epochs import Current, Epoch, decide
from kt_es.errors import MalformedError, RefusedError
from kt_es.eventstore.streams import StreamNames, content_event
from kt_es.formats.codec import take_bytes
from kt_es.formats.entries import (
    MAX_MUTATION,
    MAX_PROFILE,
    OPENING,
    OPENING_LENGTH,
    Mutation,
    Opening,
    check_submittable,
    decode_profile,
)
from kt_es.formats.erasures import MAX_ERASURE, Erasure
from kt_es.formats.labels import normalize_label
from kt_es.formats.queue import ERASURE, Verdict
from kt_es.ledger.authorized import accepted_in
from kt_es.ledger.proofs import proven_erasure
from kt_es.ledger.rows import Committed
from kt_es.merkle.map import LeafRef
from kt_es.server.availability import Appender, Backlog, LogWatch
from kt_es.server.batcher import Batcher, Outcome, Waiters
from kt_es.server.handlers import DirectoryReader
from kt_es.server.privacy import PrivateStreams
from kt_es.server.responses import Problem

_T = TypeVar("_T")

# Meanings of failed verdicts for the submitter. The verdicts of the signer mean the same.
_MEANING = {
    Verdict.STALE: "the entry does not follow the current one: look it up and make the next version",
    Verdict.UNAUTHORIZED: "a signature is missing or invalid: one key of the new entry must sign, and one "
    "of the current entry where there is one",
    Verdict.CONFLICT: "another entry for this label came first in the same epoch: look it up and try again",
    Verdict.REPLAY: "this entry was accepted in an earlier epoch",
}


@dataclass(frozen=True, slots=True)
class Queued:
    """The mutation is in the queue, in the event ``event``.

    If its entry is the current one already, nothing is queued: ``event`` is None, and ``epoch`` has accepted
    the entry.
    """

    entry_hash: bytes
    event: uuid.UUID | None = None
    epoch: int | None = None


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
            queued = await run_in(pool, lambda: self.submit(submission))
            if queued.epoch is not None:
                return _accepted(queued, queued.epoch)
            waiting()
            outcome = None
            if waiter is not None:
                with suppress(TimeoutError):
                    outcome = await asyncio.wait_for(asyncio.wrap_future(waiter), submission.wait)
        finally:
            if waiter is not None:
                self.waiters.discard(submission.mutation, waiter)
        if outcome is None:
            return ReceiptBody(queued.entry_hash.hex(), str(queued.event))
        if outcome.record.verdict is Verdict.REPLAY:
            # Another attempt of the same client was accepted between the check and the decision.
            accepted = await run_in(pool, lambda: self._accepted_in(submission))
            if accepted is not None:
                return _accepted(queued, accepted)
        return _verdict_of(queued, outcome)

    def submit(self, submission: MutationRequest) -> Queued:
        """Check and queue one submission.

        Raises:
            RefusedError: The signer would refuse it.
            MalformedError: The label is invalid.
            UnavailableError: The log cannot be reached. Then the outcome is unknown, and the same bytes may
                be submitted again. Or the queue or the disk is full. Then nothing was queued.
            AccessDeniedError: A right is missing; the submission is not in the queue.
        """
        committed = self.directory.committed()
        mutation = self._checked(committed, submission)
        accepted = self._decided(committed, mutation)
        if accepted is not None:
            return Queued(mutation.entry_hash, epoch=accepted)
        self._check_queue()
        deadline = self.appender.deadline()
        stream = self.names.openings(mutation.entry.index)
        opening = Opening(mutation.entry_hash, submission.opening, submission.profile)
        previous = mutation.entry.previous
        self.appender.repeat(lambda: self.private.protect(stream, previous), deadline)
        self.appender.append(stream, content_event(stream, OPENING, opening.encode()), deadline)
        event = self.batcher.append(submission.mutation, deadline)
        self.backlog.added()
        return Queued(mutation.entry_hash, event=event)

    def submit_erasure(self, data: bytes) -> ErasureBody:
        """Check and queue one encoded erasure. Raises what ``submit`` raises."""
        committed = self.directory.committed()
        erasure = self._checked_erasure(committed, data)
        index, entry_hash = erasure.index, erasure.entry_hash
        erased = proven_erasure(self.directory.ledger, committed, index, entry_hash)
        if erased is not None:
            return ErasureBody(entry_hash.hex(), None, erased.epoch)
        self._check_queue()
        event = content_event(self.names.queue, ERASURE, data)
        self.appender.append(self.names.queue, event, self.appender.deadline())
        self.backlog.added()
        return ErasureBody(entry_hash.hex(), str(event.id), None)

    def _accepted_in(self, submission: MutationRequest) -> int | None:
        """Return the epoch that accepted the entry, if it is the current one now."""
        mutation = Mutation.decode(submission.mutation)
        committed = self.directory.committed()
        held = self.directory.current(committed, mutation.entry.index)
        if held is None or held[0].entry_hash != mutation.entry_hash:
            return None
        return accepted_in(self.directory.ledger, committed, held[1], held[0])

    def _checked(self, committed: Committed, submission: MutationRequest) -> Mutation:
        """Return the mutation, after checks that it is about this label and this profile."""
        if len(submission.mutation) > MAX_MUTATION:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_MUTATION} bytes", "mutation")
        if len(submission.profile) > MAX_PROFILE:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_PROFILE} bytes", "profile")
        label = normalize_label(submission.label, self.directory.config(committed).label_policy)
        mutation = _field("mutation", lambda: Mutation.decode(submission.mutation))
        _field("mutation", lambda: check_submittable(mutation.entry))
        _field("opening", lambda: take_bytes(submission.opening, "opening", OPENING_LENGTH))
        _field("profile", lambda: decode_profile(submission.profile))
        entry = mutation.entry
        if entry.index != self.directory.indexer.locate(label)[0]:
            raise RefusedError(
                ProblemReason.MALFORMED, "its entry's index is not that of the label", "mutation"
            )
        if not opens(entry.commitment, submission.opening, label, entry.version, submission.profile):
            raise RefusedError(
                ProblemReason.MALFORMED,
                "the entry's commitment does not open to this label, version and profile",
                "opening",
            )
        return mutation

    def _decided(self, committed: Committed, mutation: Mutation) -> int | None:
        """Decide as the next epoch would; return the epoch of the entry if it is the current one.

        Other submissions of the coming epoch are unknown here, so only the signer finds conflicts.
        """
        verdict, held = self._verdict(committed, mutation, mutation.entry.index)
        if verdict is Verdict.REPLAY and held is not None:
            return accepted_in(self.directory.ledger, committed, held, mutation)
        if verdict is not Verdict.ACCEPTED:
            raise RefusedError(verdict.label, _meaning(verdict), "mutation")
        return None

    def _checked_erasure(self, committed: Committed, data: bytes) -> Erasure:
        if len(data) > MAX_ERASURE:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_ERASURE} bytes", "erasure")
        erasure = _field("erasure", lambda: Erasure.decode(data))
        verdict, _ = self._verdict(committed, erasure, erasure.index)
        if verdict is not Verdict.ERASED:
            raise RefusedError(
                verdict.label,
                "must be signed by a key of the current entry of its index, or by the signer key in force",
                "erasure",
            )
        # The signer accepts any hash, so the log would keep an erasure without an entry for ever.
        if all(
            mutation.entry_hash != erasure.entry_hash
            for _, mutation in self.directory.ledger.history(committed, erasure.index)
        ):
            problem = "it names no entry of its index; give the entry hash of one in its history"
            raise RefusedError(ProblemReason.MALFORMED, problem, "erasure")
        return erasure

    def _verdict(
        self, committed: Committed, content: Mutation | Erasure, index: bytes
    ) -> tuple[Verdict, LeafRef | None]:
        """Return the verdict of the next epoch, and the leaf of the current entry at ``index``."""
        held = self.directory.current(committed, index)
        before = None if held is None else Current(held[0].entry, held[0].entry_hash)
        verdict = decide(Epoch.after(committed.standing), content, before)
        return verdict, None if held is None else held[1]

    def _check_queue(self) -> None:
        """Raise ``UnavailableError`` while nothing more can be queued."""
        self.directory.check_submissions()
        self.watch.check()
        self.backlog.check()


def _meaning(verdict: Verdict) -> str:
    return _MEANING.get(verdict, f"the signer decided: {verdict.label}")


def _field(name: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except MalformedError as error:
        raise RefusedError(ProblemReason.MALFORMED, str(error), name) from None


async def run_in(pool: Executor, call: Callable[[], _T]) -> _T:
    """Return what ``call`` returns in a thread of ``pool``.

    If cancelled, a call without a thread is given up. A call that has a thread cannot be stopped: the request
    continues until the call ends, and keeps its slot among the requests of its client. So a client that hangs
    up again and again uses no more threads than a client that waits for its answers.
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


def _accepted(queued: Queued, epoch: int) -> VerdictBody:
    return VerdictBody(queued.entry_hash.hex(), Verdict.ACCEPTED.label, epoch, None)


def _verdict_of(queued: Queued, outcome: Outcome) -> VerdictBody | Problem:
    record, verdict = outcome.record, outcome.record.verdict
    where = RecordBody(record.sequence, record.item.revision, record.item.position)
    body = VerdictBody(queued.entry_hash.hex(), verdict.label, outcome.epoch, where)
    if verdict.succeeded:
        return body
    return Problem(409, verdict.label, _meaning(verdict), "mutation", more=encode_model(body))
