"""Checks of submissions: what the signer would refuse is refused before it is queued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from kt_es.api.models import MutationRequest
from kt_es.api.operations import ProblemReason
from kt_es.crypto.hashes import opens, sha256
from kt_es.epochs import Current, Epoch, decide
from kt_es.errors import MalformedError, RefusedError
from kt_es.formats.codec import take_bytes
from kt_es.formats.entries import (
    MAX_MUTATION,
    MAX_PROFILE,
    OPENING_LENGTH,
    Mutation,
    check_submittable,
    decode_profile,
)
from kt_es.formats.erasures import MAX_ERASURE, Erasure
from kt_es.formats.labels import normalize_label
from kt_es.formats.queue import Verdict
from kt_es.ledger.authorized import accepted_in
from kt_es.ledger.decided import find_decision
from kt_es.ledger.rows import Committed
from kt_es.merkle.map import LeafRef
from kt_es.server.handlers import DirectoryReader

_T = TypeVar("_T")

# Meanings of failed verdicts for the submitter. The verdicts of the signer mean the same.
_MEANINGS = {
    Verdict.STALE: "the entry does not follow the current one: look it up and make the next version",
    Verdict.UNAUTHORIZED: "a signature is missing or invalid: one key of the new entry must sign, and one "
    "of the current entry where there is one",
    Verdict.CONFLICT: "another entry for this label came first in the same epoch: look it up and try again",
    Verdict.REPLAY: "this entry was accepted in an earlier epoch",
}


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks submissions against the committed state of one directory. Safe for threads."""

    directory: DirectoryReader

    def accepted_in(self, submission: MutationRequest) -> int | None:
        """Return the epoch that accepted the entry, if it is the current one now."""
        mutation = Mutation.decode(submission.mutation)
        committed = self.directory.committed()
        held = self.directory.current(committed, mutation.entry.index)
        if held is None or held[0].entry_hash != mutation.entry_hash:
            return None
        return accepted_in(self.directory.ledger, committed, held[1], held[0])

    def mutation(self, committed: Committed, submission: MutationRequest) -> Mutation:
        """Return the mutation, after checks that it is about this label and this profile."""
        read = self._read(committed, submission)
        return read.checked(self.directory.indexer.locate(read.label)[0])

    def mutations(
        self, committed: Committed, submissions: Sequence[MutationRequest]
    ) -> list[Mutation | RefusedError | MalformedError]:
        """Return what ``mutation`` returns or raises for each submission. All labels are located at once."""
        read = [_tried(partial(self._read, committed, submission)) for submission in submissions]
        labels = [one.label for one in read if isinstance(one, _Read)]
        indices = iter([index for index, _ in self.directory.indexer.locate_many(labels)])
        return [
            _tried(partial(one.checked, next(indices))) if isinstance(one, _Read) else one for one in read
        ]

    def _read(self, committed: Committed, submission: MutationRequest) -> _Read:
        """Decode a submission, and check what needs no index."""
        if len(submission.mutation) > MAX_MUTATION:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_MUTATION} bytes", "mutation")
        if len(submission.profile) > MAX_PROFILE:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_PROFILE} bytes", "profile")
        label = normalize_label(submission.label, self.directory.config(committed).label_policy)
        mutation = _field("mutation", lambda: Mutation.decode(submission.mutation))
        _field("mutation", lambda: check_submittable(mutation.entry))
        _field("opening", lambda: take_bytes(submission.opening, "opening", OPENING_LENGTH))
        _field("profile", lambda: decode_profile(submission.profile))
        return _Read(label, mutation, submission)

    def decided(self, committed: Committed, mutation: Mutation, item: bytes) -> int | None:
        """Decide as the next epoch would; return the epoch that accepted ``item``, if one did.

        ``item`` is the encoded ``mutation``. Other submissions of the coming epoch are unknown here, so only
        the signer finds conflicts.
        """
        return self._decided(
            committed, mutation, item, self.directory.current(committed, mutation.entry.index)
        )

    def decided_many(
        self, committed: Committed, mutations: Sequence[Mutation], items: Sequence[bytes]
    ) -> list[int | RefusedError | MalformedError | None]:
        """Return what ``decided`` returns or raises for each mutation. All entries are read at once.

        Each is decided as if it came alone: of several for one label, the signer decides which one counts.
        """
        ledger = self.directory.ledger
        leaves = ledger.map.lookup_many(committed.root, [mutation.entry.index for mutation in mutations])
        held = ledger.mutations_at(committed.root, leaves)
        return [
            _tried(partial(self._decided, committed, mutation, item, _current(entry, leaf)))
            for mutation, item, entry, leaf in zip(mutations, items, held, leaves, strict=True)
        ]

    def _decided(
        self, committed: Committed, mutation: Mutation, item: bytes, held: tuple[Mutation, LeafRef] | None
    ) -> int | None:
        verdict = _verdict(committed, mutation, held)
        if verdict is Verdict.REPLAY and held is not None:
            return accepted_in(self.directory.ledger, committed, held[1], mutation)
        if verdict is Verdict.STALE:
            # A later version has replaced it. Whoever missed the answer must not take it for refused.
            found = find_decision(self.directory.ledger, committed, mutation.entry_hash, sha256(item))
            if found is not None and found.verdict is Verdict.ACCEPTED:
                return found.epoch
        if verdict is not Verdict.ACCEPTED:
            raise RefusedError(verdict.label, meaning(verdict), "mutation")
        return None

    def erasure(self, committed: Committed, data: bytes) -> Erasure:
        """Return the erasure, after checks that the signer would accept it and that it names an entry."""
        if len(data) > MAX_ERASURE:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_ERASURE} bytes", "erasure")
        erasure = _field("erasure", lambda: Erasure.decode(data))
        verdict = _verdict(committed, erasure, self.directory.current(committed, erasure.index))
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


@dataclass(frozen=True, slots=True)
class _Read:
    """A submission that was decoded, and its normalized label."""

    label: str
    mutation: Mutation
    submission: MutationRequest

    def checked(self, index: bytes) -> Mutation:
        """Return the mutation, after checks that it is about the label, whose index is ``index``."""
        entry, submission = self.mutation.entry, self.submission
        if entry.index != index:
            raise RefusedError(
                ProblemReason.MALFORMED, "its entry's index is not that of the label", "mutation"
            )
        if not opens(entry.commitment, submission.opening, self.label, entry.version, submission.profile):
            raise RefusedError(
                ProblemReason.MALFORMED,
                "the entry's commitment does not open to this label, version and profile",
                "opening",
            )
        return self.mutation


def _verdict(
    committed: Committed, content: Mutation | Erasure, held: tuple[Mutation, LeafRef] | None
) -> Verdict:
    """Return the verdict of the next epoch. ``held`` is the current entry at the index."""
    before = None if held is None else Current(held[0].entry, held[0].entry_hash)
    return decide(Epoch.after(committed.standing), content, before)


def _current(entry: Mutation | None, leaf: LeafRef | None) -> tuple[Mutation, LeafRef] | None:
    return None if entry is None or leaf is None else (entry, leaf)


def meaning(verdict: Verdict) -> str:
    """Return what a failed verdict means for the submitter."""
    return _MEANINGS.get(verdict, f"the signer decided: {verdict.label}")


def _tried(call: Callable[[], _T]) -> _T | RefusedError | MalformedError:
    """Return what ``call`` returns, or the reason why it refuses its submission."""
    try:
        return call()
    except (RefusedError, MalformedError) as error:
        return error


def _field(name: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except MalformedError as error:
        raise RefusedError(ProblemReason.MALFORMED, str(error), name) from None
