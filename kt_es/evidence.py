"""Verification of evidence against a directory (FORMATS, "Evidence"). Anybody can repeat it offline.

``kt verify`` calls ``convict`` on an evidence file. Client, monitor and audit call it before they report a
contradiction, because a file that does not convict is no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from kt_es.errors import ConfigError, EquivocationError, MalformedError, VerificationError
from kt_es.formats.configs import Config, SignedConfig, check_config_change, check_first_config, verify_chain
from kt_es.formats.entries import PublicKey
from kt_es.formats.evidence import Evidence, EvidenceKind, ProvenEntry, evidence_in
from kt_es.formats.heads import (
    Checkpoint,
    MapHead,
    SignedMapHead,
    heads_origin,
    mutations_origin,
    open_checkpoint,
)
from kt_es.merkle.verify import map_root

_STEP = "evidence"


def convict(evidence: Evidence) -> str:
    """Return the contradiction that ``evidence`` proves, as a sentence, or raise ``VerificationError``."""
    try:
        chain = verify_chain(evidence.origin, evidence.configs)
        match evidence.kind:
            case EvidenceKind.HEADS:
                return _heads(chain, *evidence.heads())
            case EvidenceKind.CHECKPOINTS:
                return _checkpoints(chain, evidence)
            case EvidenceKind.HEAD_CHECKPOINT:
                return _head_and_checkpoint(chain, evidence)
            case EvidenceKind.CONFIGS:
                return _configs(chain, evidence)
            case EvidenceKind.ENTRIES:
                return _entries(chain, evidence)
    except MalformedError as error:
        raise VerificationError(_STEP, str(error)) from None


def proven(step: str, evidence: Evidence) -> EquivocationError | None:
    """Return the error to raise if ``evidence`` proves a contradiction, otherwise None."""
    try:
        sentence = convict(evidence)
    except VerificationError:
        return None
    return EquivocationError(step, sentence, evidence.encode())


def convicted_before(kept: bytes, where: str, origin: str, keys: Set[PublicKey]) -> EquivocationError | None:
    """Return the error to raise if saved evidence convicts a directory; None if it is about another one.

    A convicted directory stays convicted. Otherwise its operator could make watchers continue with the side
    that it shows now.

    ``kept`` is a file of evidence, plain or armored, and ``where`` its name in messages. The directory is
    recognized by its ``origin`` and by one of ``keys``, its signer keys.

    Raises:
        ConfigError: The file proves nothing. Since it was evidence when it was written, it is damaged, and it
            is unknown which directory it convicted.
    """
    try:
        data = evidence_in(kept) or kept
        evidence = Evidence.decode(data)
        sentence = convict(evidence)
    except (MalformedError, VerificationError) as error:
        raise ConfigError(
            f"the evidence {where} is damaged ({error.problem}): put a copy in its place, or move it away if "
            "the case is settled"
        ) from None
    if evidence.origin != origin or keys.isdisjoint(signed.config.signer_key for signed in evidence.configs):
        return None
    return EquivocationError(
        "convicted",
        f"{sentence}. That was proven before; what this directory says counts for nothing until you move the "
        "evidence away",
        data,
    )


def convicted_elsewhere(shown: bytes, origin: str, keys: Set[PublicKey]) -> EquivocationError | None:
    """Return the error to raise if evidence that somebody else shows convicts a directory, otherwise None.

    Nothing of it was verified before. The directory is recognized as by ``convicted_before``.
    """
    try:
        data = evidence_in(shown) or shown
        evidence = Evidence.decode(data)
        sentence = convict(evidence)
    except (MalformedError, VerificationError):
        return None
    if evidence.origin != origin or keys.isdisjoint(signed.config.signer_key for signed in evidence.configs):
        return None
    return EquivocationError("convicted", sentence, data)


def shown_by(error: EquivocationError, *places: str) -> EquivocationError:
    """Return ``error`` with the places that showed the contradicting statements in its sentence."""
    named = EquivocationError(error.step, f"{error.problem}; shown by {' and '.join(places)}", error.evidence)
    named.saved = error.saved
    return named


def contradicting_heads(
    step: str, origin: str, configs: Sequence[SignedConfig], first: bytes, second: bytes
) -> EquivocationError | None:
    """Return the error for two encoded SMHs if the directory signed both and they contradict each other."""
    return proven(step, Evidence(EvidenceKind.HEADS, origin, tuple(configs), (first, second)))


def contradicting_checkpoints(
    step: str, origin: str, configs: Sequence[SignedConfig], first: str, second: str
) -> EquivocationError | None:
    """Return the error for two signed checkpoints of one log if they have one size, but different roots."""
    statements = (first.encode(), second.encode())
    return proven(step, Evidence(EvidenceKind.CHECKPOINTS, origin, tuple(configs), statements))


def contradicting_head(
    step: str, origin: str, configs: Sequence[SignedConfig], smh: bytes, mutations_checkpoint: str
) -> EquivocationError | None:
    """Return the error for a head and a checkpoint of the log of mutations: one size, but different roots."""
    statements = (smh, mutations_checkpoint.encode())
    return proven(step, Evidence(EvidenceKind.HEAD_CHECKPOINT, origin, tuple(configs), statements))


def contradicting_entries(
    step: str,
    origin: str,
    configs: Sequence[SignedConfig],
    *shown: tuple[bytes, ProvenEntry],
    index: bytes,
) -> EquivocationError | None:
    """Return the error for two signed heads if the proven entries at ``index`` contradict each other."""
    smhs, entries = zip(*shown, strict=True)
    return proven(step, Evidence(EvidenceKind.ENTRIES, origin, tuple(configs), smhs, index, entries))


def contradicting_configs(
    step: str, origin: str, before: Sequence[SignedConfig], first: SignedConfig, second: SignedConfig
) -> EquivocationError | None:
    """Return the error for two configs if both follow the chain ``before`` or both begin the directory."""
    chain = tuple(before) or (first,)
    statements = (first.encode(), second.encode())
    return proven(step, Evidence(EvidenceKind.CONFIGS, origin, chain, statements))


def _heads(chain: Sequence[Config], first: SignedMapHead, second: SignedMapHead) -> str:
    earlier, later = sorted((first, second), key=lambda signed: signed.head.epoch)
    before, after = _verified(chain, earlier), _verified(chain, later)
    if before == after:
        raise VerificationError(_STEP, "both statements are the same head")
    if before.epoch == after.epoch:
        return f"the directory signed two different heads of epoch {before.epoch}"
    broken = broken_order(before, after)
    if broken is None and _position(chain, after) < _position(chain, before):
        broken = "is under an older config than"
    if broken is None:
        raise VerificationError(
            _STEP, f"the heads of epochs {before.epoch} and {after.epoch} do not contradict each other"
        )
    return f"the head of epoch {after.epoch} {broken} the head of epoch {before.epoch}"


def broken_order(before: MapHead, after: MapHead) -> str | None:
    """Return the rule that ``after`` breaks if it is a later head than ``before``, as part of a sentence.

    Timestamp, log size and queue position must grow, and the map must not shrink. The result is None if no
    rule is broken.
    """
    if after.timestamp <= before.timestamp:
        return "is not later than"
    if after.log_size <= before.log_size or after.queue_next <= before.queue_next:
        return "has no more records than"
    if after.map_size < before.map_size:
        return "has fewer entries than"
    return None


def _checkpoints(chain: Sequence[Config], evidence: Evidence) -> str:
    for log_origin in (heads_origin(evidence.origin), mutations_origin(evidence.origin)):
        try:
            first, second = (_checkpoint(chain, data, log_origin) for data in evidence.statements)
        except VerificationError:
            continue
        if first.size != second.size or first.root == second.root:
            raise VerificationError(_STEP, "the checkpoints do not contradict each other")
        return f"the directory signed two different logs of {first.size} leaves under the name {log_origin}"
    raise VerificationError(
        _STEP, "the statements are not two signed checkpoints of one log of this directory"
    )


def _head_and_checkpoint(chain: Sequence[Config], evidence: Evidence) -> str:
    head = _verified(chain, SignedMapHead.decode(evidence.statements[0]))
    checkpoint = _checkpoint(chain, evidence.statements[1], mutations_origin(evidence.origin))
    if checkpoint.size != head.log_size or checkpoint.root == head.log_root:
        raise VerificationError(_STEP, "head and checkpoint do not contradict each other")
    return (
        f"the head of epoch {head.epoch} and a checkpoint name two different logs of {head.log_size} records"
    )


def _configs(chain: Sequence[Config], evidence: Evidence) -> str:
    first, second = (SignedConfig.decode(data) for data in evidence.statements)
    if first.config_bytes == second.config_bytes:
        raise VerificationError(_STEP, "both statements are the same config")
    if first.config.previous is None and second.config.previous is None:
        for signed in (first, second):
            check_first_config(signed, evidence.origin, chain[0].signer_key)
        return "the directory signed two different configs that begin it"
    for signed in (first, second):
        check_config_change(signed, chain[-1])
    return "the directory signed two different configs that follow the same one"


def _entries(chain: Sequence[Config], evidence: Evidence) -> str:
    if evidence.index is None or evidence.entries is None:
        raise VerificationError(_STEP, "the proofs of the entries are missing")
    heads = [_verified(chain, signed) for signed in evidence.heads()]
    pairs = list(zip(heads, evidence.entries, strict=True))
    for head, shown in pairs:
        if map_root(evidence.index, shown.map_proof) != head.map_root:
            raise VerificationError(_STEP, f"a proof does not lead to the map root of epoch {head.epoch}")
        if shown.entry is None and shown.map_proof.entry_hash(evidence.index) is not None:
            raise VerificationError(_STEP, "a proof of absence shows an entry")
        if shown.entry is not None and shown.entry.index != evidence.index:
            raise VerificationError(_STEP, "an entry is of another index")
    (before, first), (after, second) = sorted(pairs, key=lambda pair: pair[0].epoch)
    broken = broken_account(first, second)
    if broken is None:
        raise VerificationError(_STEP, "the entries do not contradict each other")
    return f"at one index, epoch {after.epoch} {broken} in epoch {before.epoch}"


def broken_account(before: ProvenEntry, after: ProvenEntry) -> str | None:
    """Return the rule that an account broke from one epoch to the same or a later one, or None.

    The rules: versions never decrease, a version has one entry, each entry names the one before it, and no
    entry disappears. The result is part of a sentence.
    """
    if before.entry is None or before.entry_bytes == after.entry_bytes:
        return None
    if after.entry is None:
        return f"has no entry, though version {before.entry.version} stood there"
    old, new, leaf = before.entry.version, after.entry.version, before.map_proof.leaf
    if new < old:
        return f"has version {new}, though version {old} stood there"
    if new == old:
        return f"has another version {new} than the one that stood there"
    if new == old + 1 and (leaf is None or after.entry.previous != leaf[1]):
        return f"has a version {new} that does not follow version {old} as it stood there"
    return None


def _verified(chain: Sequence[Config], signed: SignedMapHead) -> MapHead:
    """Return the head if it is signed by the key of the config that it names."""
    config = chain[_position(chain, signed.head)]
    return signed.verify(config.origin, config.signer_key)


def _position(chain: Sequence[Config], head: MapHead) -> int:
    for position, config in enumerate(chain):
        if config.hash == head.config_hash:
            return position
    raise VerificationError(_STEP, f"the head of epoch {head.epoch} names a config that is not in the chain")


def _checkpoint(chain: Sequence[Config], data: bytes, log_origin: str) -> Checkpoint:
    return open_checkpoint(data, log_origin, {config.signer_key.raw for config in chain})
