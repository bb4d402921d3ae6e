"""Whether a log goes on from the one that is trusted: "rollback", "consistency", the order of heads. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kt_es.client.trusted import Trusted, extend, pin
from kt_es.errors import EquivocationError, MalformedError, VerificationError
from kt_es.evidence import broken_order, contradicting_checkpoints, contradicting_heads
from kt_es.formats.checkpoints import Checkpoint
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.merkle.verify import log_root_from_consistency


def verify_consistency(trusted: Trusted, text: str, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Steps "rollback" and "consistency": the log at ``new`` goes on from the one that is trusted.

    ``new`` is the verified checkpoint in ``text``. Two roots of one size contradict each other:
    ``EquivocationError``. A proof that leads elsewhere shows only that it is no proof.
    """
    if trusted.checkpoint == text and not proof:
        return
    old = trusted.opened()
    if old is None or old.size == 0:
        if proof:
            raise VerificationError("consistency", "nothing is trusted yet, but the proof is not empty")
        return
    if new.size < old.size:
        raise VerificationError(
            "rollback", f"the log has {new.size} heads, though {old.size} have been trusted before"
        )
    if new.size == old.size and new.root != old.root:
        raise _two_logs(trusted, text) or VerificationError(
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


def _two_logs(trusted: Trusted, text: str) -> EquivocationError | None:
    if trusted.checkpoint is None:
        return None
    return contradicting_checkpoints("consistency", trusted.origin, trusted.configs, trusted.checkpoint, text)


def verify_order(trusted: Trusted, smh: bytes, head: MapHead) -> None:
    """Step "map head": ``head``, the verified one in ``smh``, and the last trusted one are in order.

    From epoch to epoch time, records, entries and configs only grow, and an epoch has one head. Two signed
    heads that break this contradict each other: ``EquivocationError``.
    """
    if trusted.smh is None or trusted.smh == smh:
        return
    known = SignedMapHead.decode(trusted.smh).head
    before, after = sorted((known, head), key=lambda one: one.epoch)
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
    """The later of two states of one client, reached at the same time; ``proof`` leads to its log.

    Two lookups can verify against the same trusted checkpoint and meet only here: each is consistent
    with the past, and this checks that they are so with each other.
    """
    ours = pin(extend(stored, other.configs), other.pinned)
    earlier, later = (
        replace(state, configs=ours.configs) for state in sorted((stored, other), key=lambda one: one.size)
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
