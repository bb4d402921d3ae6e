"""What a client verifies of a range of epochs: every head of it, and what each map holds at one index. Pure.

A lookup proves one epoch. A range proves each epoch from the first to the last, so an entry that stood for
one epoch only is seen. A contradiction that two signed heads prove is raised as ``EquivocationError`` with
its evidence. A change that the keys before did not authorize is not refused: ``Seen.authorized`` says it, and
the owner of the account judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_es.client.continuity import verify_consistency, verify_order
from kt_es.client.trusted import Trusted
from kt_es.crypto import vrf
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.crypto.signatures import signed_message
from kt_es.epochs import Current, is_authorized
from kt_es.errors import MalformedError, VerificationError
from kt_es.evidence import broken_account, broken_order, contradicting_heads, proven
from kt_es.formats.checkpoints import Checkpoint
from kt_es.formats.entries import Mutation
from kt_es.formats.evidence import Evidence, EvidenceKind, ProvenEntry
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.labels import normalize_label
from kt_es.formats.ranges import RangeAnswer, RangeEpoch
from kt_es.merkle.verify import log_root_from_range, map_root


@dataclass(frozen=True, slots=True)
class Seen:
    """What one epoch's map holds at the index, verified. ``mutation`` is None where absence was proven.

    ``changed`` says that the epoch before, of the same range, holds something else. ``authorized`` is then
    whether keys of the new entry and of the one before signed the change; without a change it is True.
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
class SeenRange:
    """Consecutive epochs of one label, whose ``index`` is proven, verified."""

    index: bytes
    epochs: tuple[Seen, ...]

    @property
    def last(self) -> int:
        return self.epochs[-1].epoch


def open_range(data: bytes) -> RangeAnswer:
    """Step "answer": what a server sent, decoded."""
    try:
        return RangeAnswer.decode(data)
    except MalformedError as error:
        raise VerificationError("answer", str(error)) from None


def verify_range(
    trusted: Trusted, label: str, answer: RangeAnswer, consistency: Sequence[bytes], *, first: int, last: int
) -> tuple[Trusted, SeenRange]:
    """What ``answer`` proves about ``label`` from the epoch ``first`` on, and the client's state after it.

    The answer may end before ``last``. ``consistency`` leads from the trusted checkpoint to the answer's.

    Raises:
        VerificationError: a step failed; the error names it.
        EquivocationError: two signed heads contradict each other, by themselves or by their entries.
        MalformedError: the directory cannot have such a label.
    """
    label = normalize_label(label, trusted.configs[0].config.label_policy)
    if answer.first != first or answer.first + len(answer.epochs) - 1 > last:
        raise VerificationError("answer", f"is not about the epochs from {first} to at most {last}")
    signed = [_decoded(epoch) for epoch in answer.epochs]
    checkpoint, after = _verify_checkpoint(trusted, answer, consistency)
    _verify_place(answer, checkpoint)
    _verify_heads(trusted, answer, signed, checkpoint)
    # Every config of a chain has the same VRF key.
    key = trusted.configs[0].config.vrf_key
    index = vrf.index_of(vrf.verify(key, label.encode(), answer.vrf_proof))
    for mutation in answer.mutations:
        _verify_mutation(mutation, index, trusted.origin)
    for smh, epoch in zip(signed, answer.epochs, strict=True):
        _verify_map(smh.head, index, epoch)
    return after, SeenRange(index, _seen(trusted, index, answer, signed))


def _decoded(epoch: RangeEpoch) -> SignedMapHead:
    try:
        return SignedMapHead.decode(epoch.smh_bytes)
    except MalformedError as error:
        raise VerificationError("map head", str(error)) from None


def _verify_checkpoint(
    trusted: Trusted, answer: RangeAnswer, consistency: Sequence[bytes]
) -> tuple[Checkpoint, Trusted]:
    """Steps "checkpoint" and "consistency": the checkpoint of the answer, and the state that trusts it."""
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


def _verify_place(answer: RangeAnswer, checkpoint: Checkpoint) -> None:
    """Step "map head": the heads are consecutive leaves of the log, from the place of the first epoch on."""
    leaves = [log_leaf_hash(epoch.smh_bytes) for epoch in answer.epochs]
    try:
        root = log_root_from_range(answer.first - 1, checkpoint.size, leaves, answer.heads_proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map head", error.problem) from None
    if root != checkpoint.root:
        raise VerificationError(
            "map head", f"those from epoch {answer.first} on do not stand there in the log of map heads"
        )


def _verify_heads(
    trusted: Trusted, answer: RangeAnswer, signed: Sequence[SignedMapHead], checkpoint: Checkpoint
) -> None:
    """Steps "config" and "map head": each head is signed under the config that it names, all are in order."""
    before: MapHead | None = None
    position = 0
    for number, smh in enumerate(signed):
        head = smh.head
        at = trusted.position(head.config_hash)
        smh.verify(trusted.origin, trusted.configs[at].config.signer_key)
        if head.epoch != answer.first + number:
            raise VerificationError(
                "map head", f"epoch {head.epoch} stands in the place of epoch {answer.first + number}"
            )
        broken = None if before is None else broken_order(before, head)
        if at < position:
            broken = "is under an older config than"
        if broken is not None:
            raise contradicting_heads(
                "map head",
                trusted.origin,
                trusted.configs,
                answer.epochs[number - 1].smh_bytes,
                answer.epochs[number].smh_bytes,
            ) or VerificationError("map head", f"the one of epoch {head.epoch} {broken} the one before it")
        before, position = head, at
    verify_order(trusted, answer.epochs[0].smh_bytes, signed[0].head)
    verify_order(trusted, answer.epochs[-1].smh_bytes, signed[-1].head)
    if signed[-1].head.epoch == checkpoint.size and position < trusted.in_force:
        raise VerificationError("config", "the latest head names a config that has been replaced since")


def _verify_mutation(mutation: Mutation, index: bytes, origin: str) -> None:
    """Steps "entry" and "signatures": it is of the label's index, and a key of its own signed it."""
    entry = mutation.entry
    if entry.index != index:
        raise VerificationError("entry", "is of another index than the label's")
    if (entry.version == 1) != (entry.previous is None):
        raise VerificationError("entry", "only the first version has no previous one")
    signers = own_signers(mutation, origin)
    if None in signers:
        raise VerificationError("signatures", f"one of version {entry.version} does not verify")
    if not signers:
        raise VerificationError("signatures", f"none of version {entry.version} is by a key of the entry")


def own_signers(mutation: Mutation, origin: str) -> tuple[PublicKey | None, ...]:
    """The keys of the entry that signed it; None for a signature that names one and does not verify."""
    message = signed_message("entry", origin, mutation.entry_bytes)
    found: list[PublicKey | None] = []
    for key in mutation.entry.authorized_keys:
        for signature in mutation.signatures:
            if signature.key_id == key.id:
                found.append(key if key.verifies(message, signature.value) else None)
    return tuple(found)


def _verify_map(head: MapHead, index: bytes, epoch: RangeEpoch) -> None:
    """Step "map": the proof leads to the head's root, and shows the entry or that there is none."""
    if epoch.mutation is None and epoch.map_proof.entry_hash(index) is not None:
        raise VerificationError("map", "the map holds an entry here, but the answer has none")
    try:
        root = map_root(index, epoch.map_proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map", error.problem) from None
    if root != head.map_root:
        raise VerificationError("map", f"the proof does not lead to the map root of epoch {head.epoch}")


def _seen(
    trusted: Trusted, index: bytes, answer: RangeAnswer, signed: Sequence[SignedMapHead]
) -> tuple[Seen, ...]:
    """Step "history": each change is the first version or follows the one before, and none vanishes."""
    found: list[Seen] = []
    before: Mutation | None = None
    for number, (smh, epoch) in enumerate(zip(signed, answer.epochs, strict=True)):
        mutation = None if epoch.mutation is None else answer.mutations[epoch.mutation]
        # Nothing stood before epoch 1. What stood before another first epoch, this answer does not say.
        changed = _hash(mutation) != _hash(before) and (number > 0 or answer.first == 1)
        if changed:
            _verify_change(trusted, index, answer, number)
        authorized = not changed or (
            mutation is not None and is_authorized(mutation, _current(before), trusted.origin)
        )
        found.append(Seen(smh.head.epoch, smh.head.timestamp, mutation, changed, authorized))
        before = mutation
    return tuple(found)


def _hash(mutation: Mutation | None) -> bytes | None:
    return None if mutation is None else mutation.entry_hash


def _current(mutation: Mutation | None) -> Current | None:
    return None if mutation is None else Current(mutation.entry, mutation.entry_hash)


def _verify_change(trusted: Trusted, index: bytes, answer: RangeAnswer, number: int) -> None:
    epoch, after = answer.first + number, _shown(answer, answer.epochs[number])
    before = _shown(answer, answer.epochs[number - 1]) if number else None
    broken = None if before is None else broken_account(before, after)
    if before is not None and broken is not None:
        evidence = Evidence(
            EvidenceKind.ENTRIES,
            trusted.origin,
            trusted.configs,
            (answer.epochs[number - 1].smh_bytes, answer.epochs[number].smh_bytes),
            index,
            (before, after),
        )
        raise proven("history", evidence) or VerificationError(
            "history", f"epoch {epoch} {broken} in epoch {epoch - 1}"
        )
    wanted = 1 if before is None or before.entry is None else before.entry.version + 1
    if after.entry is not None and after.entry.version != wanted:
        raise VerificationError(
            "history", f"epoch {epoch} begins with version {after.entry.version} where {wanted} belongs"
        )


def _shown(answer: RangeAnswer, epoch: RangeEpoch) -> ProvenEntry:
    if epoch.mutation is None:
        return ProvenEntry(None, None, epoch.map_proof)
    mutation = answer.mutations[epoch.mutation]
    return ProvenEntry(mutation.entry, mutation.entry_bytes, epoch.map_proof)
