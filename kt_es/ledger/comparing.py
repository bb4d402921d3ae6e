"""Compares a checkpoint that somebody else was shown with the logs that were verified here.

Whoever has replayed a log can tell its root at each earlier size. So a checkpoint that the directory has
signed is either of the same log, or contradicts a signed statement that is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.errors import UnavailableError, VerificationError
from kt_es.evidence import contradicting_checkpoints, contradicting_head
from kt_es.formats.heads import Checkpoint, LogName, log_origins, open_checkpoint
from kt_es.formats.notes import verifier_key, verify_note
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.proofs import head_at, prove_consistency
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.verify import log_root_from_consistency

STEP = "comparison"
"""The step of an error for a log that the directory signed, and that is not the one verified here."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A signed checkpoint of ``size`` leaves, of which the last ``ahead`` are not verified here yet."""

    log: LogName
    size: int
    ahead: int


def compare_checkpoint(
    ledger: Ledger, log: LogName, encoded: bytes, committed: Committed | None = None
) -> Compared:
    """Compare a checkpoint with the log that ``ledger`` has verified. Other signatures in it are ignored.

    A checkpoint of a longer log cannot be compared yet, which ``Compared.ahead`` says. ``committed`` is a
    state of the ledger, by default the present one; with one state both logs are of the same epoch.

    Raises:
        MalformedError: ``encoded`` is not a checkpoint.
        VerificationError: Step "checkpoint"; no signer key of the directory that is known here signed it. It
            may be a key that the directory announces later.
        EquivocationError: The directory signed a log that is not the one that was verified here.
        VerificationError: Step ``STEP``; the same, and nothing that is kept here proves it.
        UnavailableError: The log is shorter than the one of the snapshot that the data directory began with.
    """
    committed = ledger.committed if committed is None else committed
    origin = committed.standing.origin
    chain = config_chain(ledger, committed) if committed.epoch else ()
    keys = [signed.config.signer_key.raw for signed in chain] or [ledger.pinned.raw]
    log_origin = log_origins(origin)[log]
    claimed = open_checkpoint(encoded, log_origin, dict.fromkeys(keys))
    ours = committed.heads if log == "heads" else committed.log
    if claimed.size > ours.size:
        return Compared(log, claimed.size, claimed.size - ours.size)
    begun = ledger.tables.states.beginning()
    first = begun.epoch if log == "heads" else begun.records
    if 0 < claimed.size < first:
        raise UnavailableError(
            f"it shows {claimed.size} leaves of the log of {log}, and the data directory began with a "
            f"snapshot of {first}: nothing can be compared until it shows as many"
        )
    if claimed.size and not _is_same(ledger, committed, log, claimed):
        # Without cosignatures: they prove nothing here, and the evidence of one fork is always the same file.
        text = verify_note(encoded, [verifier_key(log_origin, key) for key in dict.fromkeys(keys)]).encode()
        if log == "heads":
            # A replay from tiles has the checkpoints of some epochs only.
            ours_then = ledger.tables.heads.event(claimed.size).heads_checkpoint
            found = contradicting_checkpoints(STEP, origin, chain, ours_then, text) if ours_then else None
        else:
            smh = head_covering(ledger, committed, claimed.size)
            found = None if smh is None else contradicting_head(STEP, origin, chain, smh, text)
        raise found or VerificationError(
            STEP,
            f"the directory signed another log of {log} with {claimed.size} leaves than was verified here, "
            "and no signed statement of that size is kept here",
        )
    return Compared(log, claimed.size, 0)


def _is_same(ledger: Ledger, committed: Committed, log: LogName, claimed: Checkpoint) -> bool:
    """Return whether the log that was verified here had the root of ``claimed`` at its size."""
    name, ours = (HEADS_LOG, committed.heads) if log == "heads" else (MUTATIONS_LOG, committed.log)
    proof = prove_consistency(ledger, committed, name, claimed.size, ours.size)
    try:
        return log_root_from_consistency(claimed.size, ours.size, claimed.root, proof) == ours.root()
    except VerificationError:
        # The proof is our own, so it is the root that does not fit.
        return False


def head_covering(ledger: Ledger, committed: Committed, records: int) -> bytes | None:
    """Return the SMH whose log of mutations has so many records, None if no head kept here has."""
    low, high = max(1, ledger.tables.states.beginning().epoch), committed.epoch
    while low <= high:
        middle = (low + high) // 2
        smh, head = head_at(ledger, middle)
        if head.log_size == records:
            return smh
        low, high = (middle + 1, high) if head.log_size < records else (low, middle - 1)
    return None
