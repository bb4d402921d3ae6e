"""Checks of submissions: what the signer would refuse is refused before it is queued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

    def decided(self, committed: Committed, mutation: Mutation, item: bytes) -> int | None:
        """Decide as the next epoch would; return the epoch that accepted ``item``, if one did.

        ``item`` is the encoded ``mutation``. Other submissions of the coming epoch are unknown here, so only
        the signer finds conflicts.
        """
        verdict, held = self._verdict(committed, mutation, mutation.entry.index)
        if verdict is Verdict.REPLAY and held is not None:
            return accepted_in(self.directory.ledger, committed, held, mutation)
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


def meaning(verdict: Verdict) -> str:
    """Return what a failed verdict means for the submitter."""
    return _MEANINGS.get(verdict, f"the signer decided: {verdict.label}")


def _field(name: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except MalformedError as error:
        raise RefusedError(ProblemReason.MALFORMED, str(error), name) from None
