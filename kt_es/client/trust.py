"""What a client verifies (design, section 4), step by step: accept or refuse, and nothing else.

Pure: ``now`` is passed in, nothing is fetched or stored. A refusal is a ``VerificationError`` whose
``step`` is one of ``STEPS``; each function below does one step and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_es.client.trusted import Pinned, Trusted, begin, verify_consistency
from kt_es.crypto import commitments, vrf
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.crypto.signatures import signed_message
from kt_es.epochs import Current, is_authorized
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.checkpoints import Checkpoint, mutations_origin
from kt_es.formats.configs import Config
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.labels import normalize_label
from kt_es.formats.profiles import ProfileKey, decode_profile
from kt_es.formats.proofs import LookupAnswer, ProofFile
from kt_es.merkle.verify import log_root_from_inclusion, map_root

STEPS = (
    "answer",
    "config",
    "checkpoint",
    "rollback",
    "consistency",
    "map head",
    "freshness",
    "vrf",
    "map",
    "entry",
    "commitment",
    "signatures",
    "history",
)

SLACK = 60_000
"""Milliseconds by which clocks may differ and a head may take from its marker to the reader."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What stands at a label in one epoch, verified.

    ``mutation`` is None where absence was proven. ``profile`` is None there, too, and where it was
    ``erased`` or not asked for. ``latest`` says whether the epoch was the log's last. ``checks`` are
    lines for people, one for each thing that was checked; ``proof`` verifies all of it again.
    """

    label: str
    index: bytes
    head: MapHead
    latest: bool
    mutation: Mutation | None
    profile: tuple[ProfileKey, ...] | None
    erased: bool
    checks: tuple[str, ...]
    proof: ProofFile

    @property
    def epoch(self) -> int:
        return self.head.epoch

    @property
    def timestamp(self) -> int:
        """When the head was made, ms: what the lookup is true as of."""
        return self.head.timestamp

    @property
    def absent(self) -> bool:
        return self.mutation is None

    @property
    def entry(self) -> Entry | None:
        return None if self.mutation is None else self.mutation.entry

    @property
    def current(self) -> Current | None:
        """The entry as the decision about its successor takes it."""
        return None if self.mutation is None else Current(self.mutation.entry, self.mutation.entry_hash)


def open_answer(data: bytes) -> LookupAnswer:
    """Step "answer": what a server sent, decoded."""
    try:
        return LookupAnswer.decode(data)
    except MalformedError as error:
        raise VerificationError("answer", str(error)) from None


def verify_lookup(
    trusted: Trusted,
    label: str,
    answer: LookupAnswer,
    profile: bytes | None,
    consistency: Sequence[bytes],
    *,
    now: int,
    epoch: int | None = None,
    slack: int = SLACK,
    profile_wanted: bool = False,
) -> tuple[Trusted, Lookup]:
    """What ``answer`` proves about ``label``, and the state of the client after it.

    ``consistency`` leads from the trusted checkpoint to the answer's; ``now`` is in ms. Without
    ``epoch`` the answer has to be about the latest one, and fresh. ``profile_wanted`` refuses an answer
    that holds back a profile without saying that it was erased.

    Raises ``VerificationError`` naming the step, ``EquivocationError`` where two signed statements
    contradict each other, and ``MalformedError`` for a label that the directory cannot have.
    """
    label = normalize_label(label, trusted.configs[0].config.label_policy)
    signed_head, position = _read_head(trusted, answer)
    config = trusted.configs[position].config
    checkpoint = trusted.open(answer.heads_checkpoint, max(position, trusted.in_force))
    before = trusted.opened()
    verify_consistency(before, checkpoint, consistency)
    head = _verify_head(answer, signed_head, config, checkpoint, epoch)
    latest = head.epoch == checkpoint.size
    if latest and position < trusted.in_force:
        raise VerificationError("config", "the latest head names a config that has been replaced")
    if epoch is None:
        verify_freshness(head, config, now, slack)
    index = _verify_vrf(config, label, answer.vrf_proof)
    _verify_map(head, index, answer)
    mutation = answer.mutation
    keys = _verify_commitment(label, answer, profile, profile_wanted)
    signers = () if mutation is None else _verify_signatures(mutation, trusted.origin)

    after = replace(
        trusted,
        in_force=max(trusted.in_force, position) if latest else trusted.in_force,
        checkpoint=answer.heads_checkpoint,
    )
    # An epoch that was asked for by number is as fresh as it ever was.
    at = now if epoch is None else head.timestamp
    proof = ProofFile(trusted.origin, label, trusted.configs, answer, profile, at)
    erased = mutation is not None and answer.opening is None
    checks = (
        *_head_checks(before, checkpoint, head, config, now if epoch is None else None),
        *_entry_checks(label, mutation, keys, erased, signers),
    )
    return after, Lookup(label, index, head, latest, mutation, keys, erased, checks, proof)


def verify_proof_file(file: ProofFile, pinned: Pinned, *, slack: int = SLACK) -> Lookup:
    """What a saved proof proves, without a network: the same steps, fresh as of the file's ``at``.

    Nobody vouches for ``at`` but who saved the file; ``Lookup.timestamp`` is signed. A file about an
    epoch that was not its log's last is taken as the answer about that epoch (``Lookup.latest``).
    """
    if file.origin != pinned.origin:
        raise VerificationError("config", f"the proof is for {file.origin}, not for {pinned.origin}")
    trusted = begin(pinned, file.configs)
    signed_head, position = _read_head(trusted, file.answer)
    checkpoint = trusted.open(file.answer.heads_checkpoint, position)
    past = signed_head.head.epoch < checkpoint.size
    _, lookup = verify_lookup(
        trusted,
        file.label,
        file.answer,
        file.profile,
        (),
        now=file.at,
        epoch=signed_head.head.epoch if past else None,
        slack=slack,
    )
    return lookup


def verify_freshness(head: MapHead, config: Config, now: int, slack: int = SLACK) -> None:
    """Step "freshness": a head is due every ``max_interval``, so silence is a fault."""
    age = now - head.timestamp
    if age > config.max_interval + slack:
        raise VerificationError(
            "freshness",
            f"the latest head is {_seconds(age)} old; the directory promises one every "
            f"{_seconds(config.max_interval)}",
        )
    if age < -slack:
        raise VerificationError("freshness", f"the latest head is {_seconds(-age)} in the future")


def verify_head(
    trusted: Trusted,
    signed: SignedMapHead,
    heads_checkpoint: str,
    mutations_checkpoint: str,
    consistency: Sequence[bytes],
) -> tuple[Trusted, MapHead]:
    """A head as it was published, with the checkpoints of both logs, and the state after it.

    ``consistency`` leads from the smaller to the larger of the head's and the trusted log. That the head
    is the log's last leaf is signed here, but not proven: lookups do that.
    """
    position = trusted.position(signed.head.config_hash)
    config = trusted.configs[position].config
    checkpoint = trusted.open(heads_checkpoint, position)
    before = trusted.opened()
    older = before is not None and checkpoint.size < before.size
    if before is not None and older:
        verify_consistency(checkpoint, before, consistency)
    else:
        verify_consistency(before, checkpoint, consistency)
    head = signed.verify(config.origin, config.signer_key)
    if head.epoch != checkpoint.size:
        raise VerificationError("map head", f"is of epoch {head.epoch}, its log has {checkpoint.size} heads")
    log = trusted.open(mutations_checkpoint, position, mutations_origin(trusted.origin))
    if (log.size, log.root) != (head.log_size, head.log_root):
        raise VerificationError("map head", "does not name the log of mutations that its checkpoint signs")
    if older:
        return trusted, head
    if position < trusted.in_force:
        raise VerificationError("config", "the latest head names a config that has been replaced")
    return replace(trusted, in_force=position, checkpoint=heads_checkpoint), head


def _read_head(trusted: Trusted, answer: LookupAnswer) -> tuple[SignedMapHead, int]:
    """The head, of which nothing is verified yet, and the position of the config that it names."""
    try:
        signed = SignedMapHead.decode(answer.smh_bytes)
    except MalformedError as error:
        raise VerificationError("map head", str(error)) from None
    return signed, trusted.position(signed.head.config_hash)


def _verify_head(
    answer: LookupAnswer, signed: SignedMapHead, config: Config, checkpoint: Checkpoint, epoch: int | None
) -> MapHead:
    """Step "map head": it stands in the log of map heads, is signed, and is the one asked for."""
    claimed = signed.head.epoch
    if not 1 <= claimed <= checkpoint.size:
        raise VerificationError("map head", f"epoch {claimed} is not in a log of {checkpoint.size} heads")
    try:
        leaf = log_leaf_hash(answer.smh_bytes)
        root = log_root_from_inclusion(claimed - 1, checkpoint.size, leaf, answer.heads_inclusion)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map head", error.problem) from None
    if root != checkpoint.root:
        raise VerificationError("map head", f"is not the one of epoch {claimed} in the log of map heads")
    head = signed.verify(config.origin, config.signer_key)
    wanted = checkpoint.size if epoch is None else epoch
    if head.epoch != wanted:
        raise VerificationError("map head", f"is of epoch {head.epoch}, not of epoch {wanted}")
    return head


def _verify_vrf(config: Config, label: str, proof: bytes) -> bytes:
    """Step "vrf": the index of the label."""
    return vrf.index_of(vrf.verify(config.vrf_key, label.encode(), proof))


def _verify_map(head: MapHead, index: bytes, answer: LookupAnswer) -> None:
    """Steps "map" and "entry": the proof leads to the head's root, and is about this index and entry."""
    mutation = answer.mutation
    if mutation is not None and mutation.entry.index != index:
        raise VerificationError("entry", "is of another index than the label's")
    if mutation is None and answer.map_proof.entry_hash(index) is not None:
        raise VerificationError("map", "the map holds an entry here, but the answer has none")
    try:
        root = map_root(index, answer.map_proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map", error.problem) from None
    if root != head.map_root:
        raise VerificationError("map", f"the proof does not lead to the map root of epoch {head.epoch}")
    if mutation is not None and (mutation.entry.version == 1) != (mutation.entry.previous is None):
        raise VerificationError("entry", "only the first version has no previous one")


def _verify_commitment(
    label: str, answer: LookupAnswer, profile: bytes | None, wanted: bool
) -> tuple[ProfileKey, ...] | None:
    """Step "commitment": the profile is the one that the entry commits to."""
    if answer.mutation is None or answer.opening is None:
        if profile is not None:
            raise VerificationError("commitment", "a profile came without anything that it belongs to")
        return None
    if profile is None:
        if wanted:
            raise VerificationError("commitment", "the profile was not erased, but is held back")
        return None
    return open_commitment(label, answer.mutation.entry, answer.opening, profile)


def open_commitment(label: str, entry: Entry, opening: bytes, profile: bytes) -> tuple[ProfileKey, ...]:
    """The keys of ``profile``, if the entry commits to it for ``label``; else step "commitment"."""
    if not commitments.opens(entry.commitment, opening, label, entry.version, profile):
        raise VerificationError("commitment", "does not open to the profile")
    try:
        return decode_profile(profile)
    except MalformedError as error:
        raise VerificationError("commitment", f"opens to what is no profile: {error}") from None


def _verify_signatures(mutation: Mutation, origin: str) -> tuple[PublicKey, ...]:
    """Step "signatures": which of the entry's own keys signed it, at least one.

    Beside them there may be a signature by a key of the entry before; who that was, only the history
    shows. The first version has none before it.
    """
    if mutation.entry.version == 1 and not is_authorized(mutation, None, origin):
        raise VerificationError("signatures", "are not all by keys of the entry")
    message = signed_message("entry", origin, mutation.entry_bytes)
    signers = []
    for key in mutation.entry.authorized_keys:
        for signature in mutation.signatures:
            if signature.key_id != key.id:
                continue
            if not key.verifies(message, signature.value):
                raise VerificationError("signatures", f"the one by key {key.id.hex()} does not verify")
            signers.append(key)
    if not signers:
        raise VerificationError("signatures", "none is by a key of the entry")
    return tuple(dict.fromkeys(signers))


def _head_checks(
    before: Checkpoint | None, checkpoint: Checkpoint, head: MapHead, config: Config, now: int | None
) -> tuple[str, ...]:
    key = config.signer_key.id.hex()
    if before is None:
        past = "nothing was trusted before: this is where trust begins"
    else:
        past = f"consistent with the {before.size} heads trusted before"
    age = "" if now is None else f", {_seconds(max(0, now - head.timestamp))} old"
    return (
        f"checkpoint of {checkpoint.size} heads of {config.origin}, signed",
        past,
        f"map head of epoch {head.epoch}{age}, signed by key {key} and in the log of map heads",
    )


def _entry_checks(
    label: str,
    mutation: Mutation | None,
    keys: tuple[ProfileKey, ...] | None,
    erased: bool,
    signers: tuple[PublicKey, ...],
) -> tuple[str, ...]:
    place = f"index of {label} proven by the directory's VRF"
    if mutation is None:
        return place, "absence proven: nobody has published keys for it"
    names = ", ".join(key.id.hex() for key in signers)
    if erased:
        profile = "profile erased: nothing to open the commitment with"
    elif keys is None:
        profile = "profile not asked for"
    else:
        profile = f"commitment opens to the profile ({len(keys)} keys)"
    return (
        place,
        f"version {mutation.entry.version} proven in the map",
        profile,
        f"entry signed by key {names}",
    )


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s"
