"""Submission: refuse early what the signer would refuse, keep the opening, queue the mutation.

The opening is stored first, in a stream that is known to be private: whoever sees the entry in an epoch can
then be shown its profile. If the queue is not reached after that, an opening of no entry stays in its private
stream; submitting again is the same event.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from kt_es.api.models import MutationRequest
from kt_es.api.operations import ProblemReason
from kt_es.crypto.commitments import opens
from kt_es.epochs import Current, Epoch, decide
from kt_es.errors import MalformedError, RefusedError
from kt_es.eventstore.streams import StreamNames, content_event
from kt_es.formats.codec import take_bytes
from kt_es.formats.entries import MAX_MUTATION, Mutation, check_submittable
from kt_es.formats.labels import normalize_label
from kt_es.formats.profiles import MAX_PROFILE, OPENING, OPENING_LENGTH, Opening, decode_profile
from kt_es.formats.records import Verdict
from kt_es.ledger.state import Committed
from kt_es.server.availability import Appender, LogWatch
from kt_es.server.backlog import Backlog
from kt_es.server.batcher import Batcher
from kt_es.server.handlers import DirectoryReader
from kt_es.server.rights import PrivateStreams
from kt_es.server.waiters import Outcome, Waiters

_T = TypeVar("_T")

# What a refusal means to the one who submitted; the signer's verdicts are the same.
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


class Submissions:
    """The writing side of one directory. Safe for threads; ``submit`` blocks while the log works."""

    def __init__(
        self,
        directory: DirectoryReader,
        names: StreamNames,
        waiters: Waiters,
        *,
        watch: LogWatch,
        backlog: Backlog,
        appender: Appender,
        batcher: Batcher,
        private: PrivateStreams,
    ) -> None:
        self._directory = directory
        self._names = names
        self._waiters = waiters
        self._watch = watch
        self._backlog = backlog
        self._appender = appender
        self._batcher = batcher
        self._private = private

    def wait_for(self, submission: MutationRequest) -> Future[Outcome | None] | None:
        """A future of what becomes of it, to be asked for before ``submit``; None if too many wait."""
        return self._waiters.register(submission.mutation)

    def forget(self, submission: MutationRequest, waiter: Future[Outcome | None] | None) -> None:
        """Wait no longer; always to be called after ``wait_for``."""
        if waiter is not None:
            self._waiters.discard(submission.mutation, waiter)

    def submit(self, submission: MutationRequest) -> Queued:
        """Check and queue one submission.

        Raises ``RefusedError`` with reason and field, ``MalformedError`` for the label, and
        ``UnavailableError`` while the log is away: then the outcome is unknown, and the same bytes may
        be submitted again. The same while too much waits in the queue, or the disk is full: then
        nothing was taken. Where a right is missing it raises ``AccessDeniedError``: then it is not in the
        queue.
        """
        committed = self._directory.committed()
        mutation = self._checked(committed, submission)
        accepted = self._decided(committed, mutation)
        if accepted is not None:
            return Queued(mutation.entry_hash, epoch=accepted)
        self._directory.check_submissions()
        self._watch.check()
        self._backlog.check()
        deadline = self._appender.deadline()
        stream = self._names.openings(mutation.entry.index)
        opening = Opening(mutation.entry_hash, submission.opening, submission.profile)
        previous = mutation.entry.previous
        self._appender.repeat(lambda: self._private.protect(stream, previous), deadline)
        self._appender.append(stream, content_event(stream, OPENING, opening.encode()), deadline)
        event = self._batcher.append(submission.mutation, deadline)
        self._backlog.added()
        return Queued(mutation.entry_hash, event=event)

    def accepted_in(self, submission: MutationRequest) -> int | None:
        """The epoch that accepted the entry, if it is the current one now."""
        mutation = Mutation.decode(submission.mutation)
        held = self._directory.current(self._directory.committed(), mutation.entry.index)
        return held[1] if held is not None and held[0].entry_hash == mutation.entry_hash else None

    def _checked(self, committed: Committed, submission: MutationRequest) -> Mutation:
        """The mutation, if it is about this label and this profile."""
        if len(submission.mutation) > MAX_MUTATION:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_MUTATION} bytes", "mutation")
        if len(submission.profile) > MAX_PROFILE:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_PROFILE} bytes", "profile")
        label = normalize_label(submission.label, self._directory.config(committed).label_policy)
        mutation = _field("mutation", lambda: Mutation.decode(submission.mutation))
        _field("mutation", lambda: check_submittable(mutation.entry))
        _field("opening", lambda: take_bytes(submission.opening, "opening", OPENING_LENGTH))
        _field("profile", lambda: decode_profile(submission.profile))
        entry = mutation.entry
        if entry.index != self._directory.indexer.locate(label)[0]:
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
        """The decision as the next epoch would make it; the epoch of the entry if it is the current one.

        What other submissions the coming epoch has is not known here, so conflicts are the signer's.
        """
        held = self._directory.current(committed, mutation.entry.index)
        before = None if held is None else Current(held[0].entry, held[0].entry_hash)
        verdict = decide(Epoch.after(committed.standing), mutation, before)
        if verdict is Verdict.REPLAY and held is not None:
            return held[1]
        if verdict is not Verdict.ACCEPTED:
            raise RefusedError(verdict.label, meaning(verdict), "mutation")
        return None


def meaning(verdict: Verdict) -> str:
    """What a failed verdict means, in a sentence."""
    return _MEANING.get(verdict, f"the signer decided: {verdict.label}")


def _field(name: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except MalformedError as error:
        raise RefusedError(ProblemReason.MALFORMED, str(error), name) from None
