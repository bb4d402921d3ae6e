"""What a client verifies of a head, whichever command asks: the one way to a head for all of them.

Pure: nothing is fetched or stored, ``now`` is passed in. The steps are "config", "checkpoint", "rollback",
"consistency" and "map head"; "freshness" comes last of all steps, since it proves no lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kt_es.client.continuity import verify_consistency, verify_order
from kt_es.client.trusted import Trusted, claimed_size
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import (
    CannotTellError,
    EquivocationError,
    MalformedError,
    StaleHeadError,
    VerificationError,
)
from kt_es.evidence import contradicting_checkpoints, contradicting_head, contradicting_heads
from kt_es.formats.checkpoints import Checkpoint, mutations_origin
from kt_es.formats.configs import Config
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.merkle.verify import log_root_from_inclusion
from kt_es.wording import counted

SLACK = 60_000
"""Milliseconds by which clocks may differ and a head may take from its marker to the reader."""


@dataclass(frozen=True, slots=True)
class ToldHead:
    """A head as a server shows it; nothing is verified.

    ``inclusion`` leads from the head to ``checkpoint``, a checkpoint of the log of map heads, and
    ``consistency`` from the trusted checkpoint to that one.
    """

    smh_bytes: bytes
    checkpoint: str
    inclusion: Sequence[bytes]
    consistency: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class ProvenHead:
    """A verified head. ``latest`` says whether it is the last one of its log.

    ``config`` is the one that it names, ``checkpoint`` that of the log that it stands in. ``after`` is the
    state of the client from now on. ``checks`` are lines for people.
    """

    head: MapHead
    config: Config
    checkpoint: Checkpoint
    latest: bool
    after: Trusted
    checks: tuple[str, ...]


def verify_head(trusted: Trusted, told: ToldHead, epoch: int | None = None) -> ProvenHead:
    """The head of ``epoch``, by default the latest one; whether it is fresh is not checked.

    Raises ``VerificationError`` that names the step, ``EquivocationError`` where two signed statements
    contradict each other.
    """
    try:
        signed = SignedMapHead.decode(told.smh_bytes)
    except MalformedError as error:
        raise VerificationError("map head", str(error)) from None
    position = trusted.position(signed.head.config_hash)
    config = trusted.configs[position].config
    checkpoint = trusted.open(told.checkpoint, max(position, trusted.in_force))
    verify_consistency(trusted, told.checkpoint, checkpoint, told.consistency)
    verify_place(told.smh_bytes, signed.head.epoch, checkpoint, told.inclusion)
    head = signed.verify(config.origin, config.signer_key)
    wanted = checkpoint.size if epoch is None else epoch
    if head.epoch != wanted:
        raise VerificationError("map head", f"is of epoch {head.epoch}, not of epoch {wanted}")
    latest = head.epoch == checkpoint.size
    if latest and position < trusted.in_force:
        raise VerificationError("config", "the latest head names a config that has been replaced since")
    verify_order(trusted, told.smh_bytes, head)
    since = position if latest else trusted.signed_at(told.checkpoint)
    after = replace(
        trusted,
        in_force=max(trusted.in_force, since),
        checkpoint=told.checkpoint,
        smh=told.smh_bytes if latest else trusted.smh,
    )
    checks = _checks(trusted, told, checkpoint, head, config)
    return ProvenHead(head, config, checkpoint, latest, after, checks)


def verify_place(smh: bytes, epoch: int, checkpoint: Checkpoint, inclusion: Sequence[bytes]) -> None:
    """Step "map head": ``smh`` stands in the log of map heads at the place of ``epoch``, which it names."""
    if not 1 <= epoch <= checkpoint.size:
        raise VerificationError("map head", f"epoch {epoch} is not in a log of {checkpoint.size} heads")
    try:
        root = log_root_from_inclusion(epoch - 1, checkpoint.size, log_leaf_hash(smh), inclusion)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map head", error.problem) from None
    if root != checkpoint.root:
        raise VerificationError("map head", f"is not the one of epoch {epoch} in the log of map heads")


def verify_mutations(proven: ProvenHead, smh: bytes, text: str) -> None:
    """Step "map head": the checkpoint ``text`` of the log of mutations is that of the head in ``smh``."""
    trusted, head = proven.after, proven.head
    log = trusted.open(text, trusted.position(head.config_hash), mutations_origin(trusted.origin))
    if (log.size, log.root) == (head.log_size, head.log_root):
        return
    raise contradicting_head("map head", trusted.origin, trusted.configs, smh, text) or VerificationError(
        "map head", f"the one of epoch {head.epoch} does not name the log that the checkpoint signs"
    )


def verify_freshness(head: MapHead, config: Config, now: int, slack: int = SLACK) -> str:
    """Step "freshness": a head is due every ``max_interval``, so silence is a fault. A line for people.

    Raises ``CannotTellError``: an old head is no lie, and a clock may be wrong.
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
    """Every contradiction that signed statements of a server prove, among themselves and with ``trusted``.

    ``smh`` is a head, ``checkpoints`` are of the log of map heads, ``mutations`` of the log of mutations.
    """
    found: list[EquivocationError | None] = []
    known, configs, step = trusted.origin, trusted.configs, "consistency"
    texts = [text for text in dict.fromkeys((trusted.checkpoint, *checkpoints)) if text is not None]
    for number, one in enumerate(texts):
        for other in texts[number + 1 :]:
            if _claimed(one) == _claimed(other):
                found.append(contradicting_checkpoints(step, known, configs, one, other))
    if trusted.smh is not None and trusted.smh != smh:
        found.append(contradicting_heads(step, known, configs, trusted.smh, smh))
    if mutations is not None:
        found.append(contradicting_head(step, known, configs, smh, mutations))
    return (error for error in found if error is not None)


def _claimed(checkpoint: str) -> int | None:
    try:
        return claimed_size(checkpoint)
    except VerificationError:
        return None


def _checks(
    trusted: Trusted, told: ToldHead, checkpoint: Checkpoint, head: MapHead, config: Config
) -> tuple[str, ...]:
    latest = head.epoch == checkpoint.size
    if trusted.checkpoint is None:
        past = "nothing was trusted before: this is where trust begins"
    else:
        known = checkpoint.size if told.checkpoint == trusted.checkpoint else trusted.size
        past = f"consistent with the {counted(known, 'heads')} trusted before"
    key = config.signer_key.id.hex()
    checks: tuple[str, ...] = (
        f"checkpoint of {counted(checkpoint.size, 'heads')} of {config.origin}, signed",
        past,
        f"map head of epoch {head.epoch}, signed by key {key} and in the log of map heads",
    )
    if latest and told.smh_bytes != trusted.smh and _promised(trusted) not in (None, config.max_interval):
        checks += (f"the directory now promises a head every {_seconds(config.max_interval)}",)
    return checks


def _promised(trusted: Trusted) -> int | None:
    """The ``max_interval`` of the last trusted head, None before the first one."""
    if trusted.smh is None:
        return None
    known = SignedMapHead.decode(trusted.smh).head.config_hash
    return trusted.configs[trusted.position(known)].config.max_interval


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s"
