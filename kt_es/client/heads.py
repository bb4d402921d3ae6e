"""Verification of a map head: its signature, its place in the log, and how the log continues. Pure.

The steps (docs/DESIGN.md, section 4) are "config", "checkpoint", "rollback", "consistency" and "map head".
Lookups, ranges and ``kt checkpoint`` use this module. "freshness" is the last step, because an
old head proves no lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kt_es.api.models import HeadBody
from kt_es.client.trusted import Trusted, claimed_size, extend, pin
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import (
    CannotTellError,
    EquivocationError,
    MalformedError,
    StaleHeadError,
    VerificationError,
    counted,
)
from kt_es.evidence import broken_order, contradicting_checkpoints, contradicting_head, contradicting_heads
from kt_es.formats.configs import Config
from kt_es.formats.heads import Checkpoint, MapHead, SignedMapHead, mutations_origin
from kt_es.merkle.verify import log_root_from_consistency, log_root_from_inclusion

SLACK = 60_000
"""Milliseconds by which clocks may differ, and which a head may need from its marker to the reader."""


@dataclass(frozen=True, slots=True)
class ClaimedHead:
    """A head as a server sends it, unverified.

    ``inclusion`` leads from the head to ``checkpoint``, which is of the log of map heads. ``consistency``
    leads from the trusted checkpoint to ``checkpoint``.
    """

    smh_bytes: bytes
    checkpoint: str
    inclusion: Sequence[bytes]
    consistency: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class ProvenHead:
    """A verified head, the config that it names, and the checkpoint of the log that contains the head.

    ``latest`` is True if the head is the last one of that log. ``checks`` are lines for people.
    """

    head: MapHead
    config: Config
    checkpoint: Checkpoint
    latest: bool
    after: Trusted
    checks: tuple[str, ...]


def decode_head(smh: bytes) -> SignedMapHead:
    """Decode a signed map head; its signature is not verified. Step "map head"."""
    try:
        return SignedMapHead.decode(smh)
    except MalformedError as error:
        raise VerificationError("map head", str(error)) from None


def verify_head(trusted: Trusted, claimed: ClaimedHead, epoch: int | None = None) -> ProvenHead:
    """Verify the head of ``epoch``, by default the latest one. The age of the head is not checked.

    Raises ``VerificationError`` or ``EquivocationError``.
    """
    signed = decode_head(claimed.smh_bytes)
    position = trusted.position(signed.head.config_hash)
    config = trusted.configs[position].config
    checkpoint = trusted.open(claimed.checkpoint, max(position, trusted.in_force))
    verify_consistency(trusted, claimed.checkpoint, checkpoint, claimed.consistency)
    verify_inclusion(claimed.smh_bytes, signed.head.epoch, checkpoint, claimed.inclusion)
    head = signed.verify(config.origin, config.signer_key)
    wanted = checkpoint.size if epoch is None else epoch
    if head.epoch != wanted:
        raise VerificationError("map head", f"is of epoch {head.epoch}, not of epoch {wanted}")
    latest = head.epoch == checkpoint.size
    if latest and position < trusted.in_force:
        raise VerificationError("config", "the latest head names a config that has been replaced since")
    verify_order(trusted, claimed.smh_bytes, head)
    since = position if latest else trusted.signed_at(claimed.checkpoint)
    after = replace(
        trusted,
        in_force=max(trusted.in_force, since),
        checkpoint=claimed.checkpoint,
        smh=claimed.smh_bytes if latest else trusted.smh,
    )
    checks = _checks(trusted, claimed, checkpoint, head, config)
    return ProvenHead(head, config, checkpoint, latest, after, checks)


def verify_reply(trusted: Trusted, reply: HeadBody, epoch: int | None, proof: Sequence[bytes]) -> ProvenHead:
    """Verify a head as servers send it, with its checkpoints. ``proof`` leads from the trusted log."""
    claimed = ClaimedHead(reply.smh, reply.latest_checkpoint, reply.inclusion, proof)
    proven = verify_head(trusted, claimed, epoch)
    verify_mutations_checkpoint(proven, reply.smh, reply.mutations_checkpoint)
    for contradiction in contradictions(proven.after, reply.smh, [reply.heads_checkpoint]):
        raise contradiction
    return proven


def verify_consistency(trusted: Trusted, text: str, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Steps "rollback" and "consistency": the log of the checkpoint ``new`` continues the trusted log.

    Args:
        text: The note that contains the verified checkpoint ``new``.
        proof: RFC 9162 consistency proof from the trusted size to the new size. A proof that leads elsewhere
            convicts nobody; two roots of one size do.
    """
    if trusted.checkpoint == text and not proof:
        return
    # The signer key of the trusted checkpoint may have been replaced since.
    old = None if trusted.checkpoint is None else trusted.open(trusted.checkpoint, 0)
    if trusted.checkpoint is None or old is None or old.size == 0:
        if proof:
            raise VerificationError("consistency", "nothing is trusted yet, but the proof is not empty")
        return
    if new.size < old.size:
        raise VerificationError(
            "rollback", f"the log has {new.size} heads, though {old.size} have been trusted before"
        )
    if new.size == old.size and new.root != old.root:
        raise contradicting_checkpoints(
            "consistency", trusted.origin, trusted.configs, trusted.checkpoint, text
        ) or VerificationError(
            "consistency", f"the log of {new.size} heads is another one than the one that is trusted"
        )
    try:
        root = log_root_from_consistency(old.size, new.size, old.root, proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("consistency", error.problem) from None
    if root != new.root:
        raise VerificationError(
            "consistency", f"the proof does not lead from {old.size} heads to the {new.size} that are signed"
        )


def verify_inclusion(smh: bytes, epoch: int, checkpoint: Checkpoint, inclusion: Sequence[bytes]) -> None:
    """Step "map head": ``smh``, which names ``epoch``, is the leaf of that epoch in the log of map heads."""
    if not 1 <= epoch <= checkpoint.size:
        raise VerificationError("map head", f"epoch {epoch} is not in a log of {checkpoint.size} heads")
    try:
        root = log_root_from_inclusion(epoch - 1, checkpoint.size, log_leaf_hash(smh), inclusion)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map head", error.problem) from None
    if root != checkpoint.root:
        raise VerificationError("map head", f"is not the one of epoch {epoch} in the log of map heads")


def verify_order(trusted: Trusted, smh: bytes, head: MapHead) -> None:
    """Step "map head": the verified ``head`` in ``smh`` and the last trusted head are in order.

    Time, records, entries and configs only grow from epoch to epoch, and an epoch has one head. Two signed
    heads that break this rule raise ``EquivocationError``.
    """
    if trusted.smh is None or trusted.smh == smh:
        return
    known = SignedMapHead.decode(trusted.smh).head
    before, after = sorted((known, head), key=lambda each: each.epoch)
    if before.epoch == after.epoch:
        broken: str | None = "is another one than"
    elif trusted.position(after.config_hash) < trusted.position(before.config_hash):
        broken = "is under an older config than"
    else:
        broken = broken_order(before, after)
    if broken is not None:
        raise contradicting_heads(
            "map head", trusted.origin, trusted.configs, trusted.smh, smh
        ) or VerificationError(
            "map head", f"the one of epoch {after.epoch} {broken} the one of epoch {before.epoch}"
        )


def merge(stored: Trusted, other: Trusted, proof: Sequence[bytes]) -> Trusted:
    """Merge two states that one client reached at the same time; ``proof`` leads from one log to the other.

    Two lookups can verify against the same trusted checkpoint, each in its own thread. Each result is
    consistent with the past; this function checks that the results are consistent with each other.
    """
    ours = pin(extend(stored, other.configs), other.pinned)
    earlier, later = (
        replace(state, configs=ours.configs) for state in sorted((stored, other), key=lambda each: each.size)
    )
    if later.checkpoint is not None:
        verify_consistency(earlier, later.checkpoint, later.open(later.checkpoint, 0), proof)
    if later.smh is not None:
        verify_order(earlier, later.smh, SignedMapHead.decode(later.smh).head)
    return replace(
        ours,
        in_force=max(ours.in_force, other.in_force),
        checkpoint=later.checkpoint,
        smh=later.smh or earlier.smh,
    )


def verify_mutations_checkpoint(proven: ProvenHead, smh: bytes, text: str) -> None:
    """Step "map head": the head in ``smh`` names the log of mutations of which ``text`` is the checkpoint."""
    trusted, head = proven.after, proven.head
    log = trusted.open(text, trusted.position(head.config_hash), mutations_origin(trusted.origin))
    if (log.size, log.root) == (head.log_size, head.log_root):
        return
    raise contradicting_head("map head", trusted.origin, trusted.configs, smh, text) or VerificationError(
        "map head", f"the one of epoch {head.epoch} does not name the log that the checkpoint signs"
    )


def verify_freshness(head: MapHead, config: Config, now: int, slack: int = SLACK) -> str:
    """Step "freshness": the directory promises a head every ``max_interval``. Returns a line for people.

    A head that is too old raises ``StaleHeadError``, a head in the future ``CannotTellError``. Neither proves
    a lie, because the clock may be wrong. Times are in milliseconds.
    """
    age = now - head.timestamp
    if age > config.max_interval + slack:
        raise StaleHeadError(
            "freshness",
            f"the latest head is {_seconds(age)} old, though the directory promises one every "
            f"{_seconds(config.max_interval)}; the directory is silent, or this clock is wrong",
        )
    if age < -slack:
        raise CannotTellError(
            "freshness", f"the latest head is {_seconds(-age)} in the future; its clock or this one is wrong"
        )
    return f"the head is {_seconds(max(0, age))} old; one is promised every {_seconds(config.max_interval)}"


def contradictions(
    trusted: Trusted, smh: bytes, checkpoints: Sequence[str], mutations: str | None = None
) -> Iterator[EquivocationError]:
    """Yield each contradiction between signed statements of a server, and between them and ``trusted``.

    ``mutations`` is a checkpoint of the log of mutations; ``checkpoints`` are of the log of map heads.
    """
    found: list[EquivocationError | None] = []
    origin, configs, step = trusted.origin, trusted.configs, "consistency"
    texts = [text for text in dict.fromkeys((trusted.checkpoint, *checkpoints)) if text is not None]
    for number, first in enumerate(texts):
        for second in texts[number + 1 :]:
            if _claimed_size(first) == _claimed_size(second):
                found.append(contradicting_checkpoints(step, origin, configs, first, second))
    if trusted.smh is not None and trusted.smh != smh:
        found.append(contradicting_heads(step, origin, configs, trusted.smh, smh))
    if mutations is not None:
        found.append(contradicting_head(step, origin, configs, smh, mutations))
    return (error for error in found if error is not None)


def _claimed_size(checkpoint: str) -> int | None:
    try:
        return claimed_size(checkpoint)
    except VerificationError:
        return None


def _checks(
    trusted: Trusted, claimed: ClaimedHead, checkpoint: Checkpoint, head: MapHead, config: Config
) -> tuple[str, ...]:
    if trusted.checkpoint is None:
        past = "nothing was trusted before: this is where trust begins"
    else:
        known = checkpoint.size if claimed.checkpoint == trusted.checkpoint else trusted.size
        past = f"consistent with the {counted(known, 'heads')} trusted before"
    key = config.signer_key.id.hex()
    checks: tuple[str, ...] = (
        f"checkpoint of {counted(checkpoint.size, 'heads')} of {config.origin}, signed",
        past,
        f"map head of epoch {head.epoch}, signed by key {key} and in the log of map heads",
    )
    latest = head.epoch == checkpoint.size
    if latest and claimed.smh_bytes != trusted.smh and _promised(trusted) not in (None, config.max_interval):
        checks += (f"the directory now promises a head every {_seconds(config.max_interval)}",)
    return checks


def _promised(trusted: Trusted) -> int | None:
    """Return the ``max_interval`` of the last trusted head, None before the first head."""
    if trusted.smh is None:
        return None
    known = SignedMapHead.decode(trusted.smh).head.config_hash
    return trusted.configs[trusted.position(known)].config.max_interval


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s"
