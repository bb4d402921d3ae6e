"""Verification of a range of epochs: every head of it, and what each map holds at one index. Pure.

FORMATS, "Range answer". A lookup proves one epoch. A range proves each epoch from the first to the last, so
an entry of one epoch only is seen, too. A contradiction that two signed heads prove raises
``EquivocationError`` with its evidence. A change that the keys before did not authorize is not refused:
``EpochEntry.authorized`` reports it, and the owner of the account judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_es.client.entries import verify_entry, verify_map, verify_signatures
from kt_es.client.heads import decode_head, verify_consistency, verify_order
from kt_es.client.trusted import Trusted
from kt_es.crypto import vrf
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.epochs import Current, is_authorized
from kt_es.errors import MalformedError, VerificationError
from kt_es.evidence import broken_account, contradicting_entries
from kt_es.formats.entries import Mutation
from kt_es.formats.evidence import ProvenEntry
from kt_es.formats.heads import Checkpoint, SignedMapHead
from kt_es.formats.labels import normalize_label
from kt_es.formats.ranges import RangeAnswer, RangeEpoch
from kt_es.merkle.verify import log_root_from_range


@dataclass(frozen=True, slots=True)
class EpochEntry:
    """What the map of one epoch holds at an index, verified. ``mutation`` is None if absence was proven.

    ``changed`` is True if the epoch before, in the same range, holds something else. ``authorized`` is False
    if keys of the new entry and of the entry before did not both sign that change.
    """

    epoch: int
    timestamp: int
    mutation: Mutation | None
    changed: bool
    authorized: bool

    @property
    def entry_hash(self) -> bytes | None:
        return _hash(self.mutation)


@dataclass(frozen=True, slots=True)
class VerifiedRange:
    """Consecutive verified epochs of one label, and its proven index."""

    index: bytes
    epochs: tuple[EpochEntry, ...]

    @property
    def last(self) -> int:
        return self.epochs[-1].epoch


def open_range(data: bytes) -> RangeAnswer:
    """Step "answer": decode the bytes that a server sent."""
    try:
        return RangeAnswer.decode(data)
    except MalformedError as error:
        raise VerificationError("answer", str(error)) from None


def verify_range(
    trusted: Trusted, label: str, answer: RangeAnswer, consistency: Sequence[bytes], *, first: int, last: int
) -> tuple[Trusted, VerifiedRange]:
    """Verify the answer about ``label`` from epoch ``first`` on. Return the new state and the range.

    Args:
        trusted: The state of the client before this request.
        label: The label that was asked for, not yet normalized.
        answer: The decoded answer of the server. It may end before ``last``.
        consistency: Proof from the trusted checkpoint to the checkpoint of the answer.
        first, last: The epochs that were asked for, both included.
    """
    label = normalize_label(label, trusted.configs[0].config.label_policy)
    if answer.first != first or answer.first + len(answer.epochs) - 1 > last:
        raise VerificationError("answer", f"is not about the epochs from {first} to at most {last}")
    signed = [decode_head(epoch.smh_bytes) for epoch in answer.epochs]
    checkpoint, after = _verify_checkpoint(trusted, answer, consistency)
    _verify_inclusion(answer, checkpoint)
    _verify_heads(trusted, answer, signed, checkpoint)
    # Every config of a chain has the same VRF key.
    key = trusted.configs[0].config.vrf_key
    index = vrf.index_of(vrf.verify(key, label.encode(), answer.vrf_proof))
    for mutation in answer.mutations:
        verify_entry(mutation.entry, index)
        verify_signatures(mutation, trusted.origin)
    for smh, epoch in zip(signed, answer.epochs, strict=True):
        verify_map(smh.head, index, epoch.map_proof, absent=epoch.mutation is None)
    return after, VerifiedRange(index, _verify_changes(trusted, index, answer, signed))


def _verify_checkpoint(
    trusted: Trusted, answer: RangeAnswer, consistency: Sequence[bytes]
) -> tuple[Checkpoint, Trusted]:
    """Steps "checkpoint" and "consistency". Returns the answer's checkpoint and the state that trusts it."""
    text = answer.heads_checkpoint
    checkpoint = trusted.open(text, trusted.in_force)
    verify_consistency(trusted, text, checkpoint, consistency)
    last = answer.first + len(answer.epochs) - 1
    after = replace(
        trusted,
        in_force=max(trusted.in_force, trusted.signed_at(text)),
        checkpoint=text,
        smh=answer.epochs[-1].smh_bytes if last == checkpoint.size else trusted.smh,
    )
    return checkpoint, after


def _verify_inclusion(answer: RangeAnswer, checkpoint: Checkpoint) -> None:
    """Step "map head": the heads are consecutive leaves of the log, from the leaf of the first epoch on."""
    leaves = [log_leaf_hash(epoch.smh_bytes) for epoch in answer.epochs]
    try:
        root = log_root_from_range(answer.first - 1, checkpoint.size, leaves, answer.heads_proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map head", error.problem) from None
    if root != checkpoint.root:
        raise VerificationError(
            "map head", f"those from epoch {answer.first} on are not there in the log of map heads"
        )


def _verify_heads(
    trusted: Trusted, answer: RangeAnswer, signed: Sequence[SignedMapHead], checkpoint: Checkpoint
) -> None:
    """Steps "config" and "map head": each head is signed under the config that it names; all are in order."""
    position = 0
    for number, smh in enumerate(signed):
        head = smh.head
        position = trusted.position(head.config_hash)
        smh.verify(trusted.origin, trusted.configs[position].config.signer_key)
        if head.epoch != answer.first + number:
            raise VerificationError(
                "map head", f"epoch {head.epoch} stands in the place of epoch {answer.first + number}"
            )
        if number > 0:
            before = replace(trusted, smh=answer.epochs[number - 1].smh_bytes)
            verify_order(before, answer.epochs[number].smh_bytes, head)
    verify_order(trusted, answer.epochs[0].smh_bytes, signed[0].head)
    verify_order(trusted, answer.epochs[-1].smh_bytes, signed[-1].head)
    if signed[-1].head.epoch == checkpoint.size and position < trusted.in_force:
        raise VerificationError("config", "the latest head names a config that has been replaced since")


def _verify_changes(
    trusted: Trusted, index: bytes, answer: RangeAnswer, signed: Sequence[SignedMapHead]
) -> tuple[EpochEntry, ...]:
    """Step "history": each change is the first version or follows the one before, and none vanishes."""
    found: list[EpochEntry] = []
    before: Mutation | None = None
    for number, (smh, epoch) in enumerate(zip(signed, answer.epochs, strict=True)):
        mutation = None if epoch.mutation is None else answer.mutations[epoch.mutation]
        # Before epoch 1 there was no entry. The answer does not show the epoch before any other first epoch.
        changed = _hash(mutation) != _hash(before) and (number > 0 or answer.first == 1)
        authorized = True
        if changed:
            _verify_change(trusted, index, answer, number)
            current = None if before is None else Current(before.entry, before.entry_hash)
            authorized = mutation is not None and is_authorized(mutation, current, trusted.origin)
        found.append(EpochEntry(smh.head.epoch, smh.head.timestamp, mutation, changed, authorized))
        before = mutation
    return tuple(found)


def _hash(mutation: Mutation | None) -> bytes | None:
    return None if mutation is None else mutation.entry_hash


def _verify_change(trusted: Trusted, index: bytes, answer: RangeAnswer, number: int) -> None:
    epoch, after = answer.first + number, _proven_entry(answer, answer.epochs[number])
    before = _proven_entry(answer, answer.epochs[number - 1]) if number else None
    broken = None if before is None else broken_account(before, after)
    if before is not None and broken is not None:
        earlier, later = answer.epochs[number - 1].smh_bytes, answer.epochs[number].smh_bytes
        raise contradicting_entries(
            "history", trusted.origin, trusted.configs, (earlier, before), (later, after), index=index
        ) or VerificationError("history", f"epoch {epoch} {broken} in epoch {epoch - 1}")
    wanted = 1 if before is None or before.entry is None else before.entry.version + 1
    if after.entry is not None and after.entry.version != wanted:
        raise VerificationError(
            "history", f"epoch {epoch} begins with version {after.entry.version} where {wanted} belongs"
        )


def _proven_entry(answer: RangeAnswer, epoch: RangeEpoch) -> ProvenEntry:
    if epoch.mutation is None:
        return ProvenEntry(None, None, epoch.map_proof)
    mutation = answer.mutations[epoch.mutation]
    return ProvenEntry(mutation.entry, mutation.entry_bytes, epoch.map_proof)
