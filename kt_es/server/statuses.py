"""Answers about what became of a submitted mutation: decided, pending or unknown."""

from __future__ import annotations

import re
from collections.abc import Callable

from kt_es.api.models import RecordBody
from kt_es.api.operations import ProblemReason
from kt_es.api.statuses import StatusBody, StatusRequest, SubmissionState
from kt_es.errors import RefusedError
from kt_es.ledger.decided import ProvenDecision, prove_decision
from kt_es.ledger.rows import Committed
from kt_es.server.handlers import DirectoryReader
from kt_es.server.pending import PendingMutations
from kt_es.server.renewing import renewed

_HASH = re.compile("[0-9a-f]{64}")


class StatusReader:
    """Reads the index of decisions and the queue. Safe for threads."""

    def __init__(self, directory: DirectoryReader, pending: PendingMutations) -> None:
        self._directory = directory
        self._pending = pending

    @property
    def renew(self) -> Callable[[], bool]:
        return self._directory.renew

    @renewed
    def status(self, asked: StatusRequest) -> StatusBody:
        """Answer about one mutation.

        A mutation that succeeded is decided for ever. One that was refused and waits in the queue again is
        pending.

        Raises:
            RefusedError: A hash is malformed.
            UnavailableError: The event log has to be read and cannot be reached, or this front end is behind.
        """
        entry_hash = _hash(asked.mutation, "mutation")
        item_hash = None if asked.item is None else _hash(asked.item, "item")
        directory = self._directory
        committed = directory.committed()
        consistency = directory.since(committed, asked.since)
        checkpoint = directory.published(committed, committed.epoch).event.heads_checkpoint
        found = prove_decision(directory.ledger, committed, checkpoint, entry_hash, item_hash)
        if found is not None and found.decision.verdict.succeeded:
            return _decided(asked.mutation, found, consistency)
        if self._pending.has(committed, entry_hash, item_hash):
            return self._undecided(asked.mutation, SubmissionState.PENDING, committed, consistency)
        if found is not None:
            return _decided(asked.mutation, found, consistency)
        return self._undecided(asked.mutation, SubmissionState.UNKNOWN, committed, consistency)

    def _undecided(
        self, mutation: str, state: SubmissionState, committed: Committed, consistency: tuple[bytes, ...]
    ) -> StatusBody:
        complete = self._complete_from(committed)
        return StatusBody(mutation, state.value, committed.epoch, complete, None, None, None, consistency)

    def _complete_from(self, committed: Committed) -> int:
        """Return the first record of the log of mutations from which on the index has all records."""
        kept = self._directory.ledger.tables.decisions.kept()
        # The index may be ahead of the committed epoch.
        return kept.since if kept.until >= committed.log.size else committed.log.size


def _decided(mutation: str, found: ProvenDecision, consistency: tuple[bytes, ...]) -> StatusBody:
    decision = found.decision
    return StatusBody(
        mutation,
        SubmissionState.DECIDED.value,
        decision.epoch,
        0,
        decision.verdict.label,
        RecordBody(decision.sequence, decision.revision, decision.position),
        found.answer.encode(),
        consistency,
    )


def _hash(text: str, field: str) -> bytes:
    if not _HASH.fullmatch(text):
        raise RefusedError(
            ProblemReason.MALFORMED, "must be a SHA-256 in 64 lowercase hexadecimal digits", field
        )
    return bytes.fromhex(text)
