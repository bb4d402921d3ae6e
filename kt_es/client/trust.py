"""What a client verifies of a lookup, step by step (docs/DESIGN.md, section 4): accept or refuse only.

Pure: ``now`` and what is remembered are passed in, nothing is fetched or stored. A refusal names one of
``STEPS``. The steps about heads are in ``heads``, those about profiles in ``openings``, "memory" is in
``memory``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kt_es.client.heads import SLACK, ToldHead, verify_freshness, verify_head
from kt_es.client.memory import Account, Sight, verify_memory
from kt_es.client.openings import Erased, verify_commitment, verify_opening
from kt_es.client.trusted import Pinned, Trusted, begin, claimed_size
from kt_es.crypto import vrf
from kt_es.crypto.signatures import signed_message
from kt_es.epochs import Current, is_authorized
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.configs import Config
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.labels import normalize_label
from kt_es.formats.profiles import ProfileKey
from kt_es.formats.proofs import LookupAnswer, ProofFile
from kt_es.merkle.verify import map_root
from kt_es.wording import counted

STEPS = (
    "answer",
    "config",
    "checkpoint",
    "rollback",
    "consistency",
    "map head",
    "vrf",
    "map",
    "entry",
    "opening",
    "commitment",
    "signatures",
    "memory",
    "history",
    "freshness",
)


@dataclass(frozen=True, slots=True)
class Lookup:
    """What stands at a label in one epoch, verified.

    ``mutation`` is None where absence was proven. ``profile`` is None there, too, and where it was
    ``erased`` or not asked for. ``latest`` says whether the epoch was the log's last. ``sight`` is the lookup
    as a client remembers it, ``before`` what it remembered until now, None at the first sight. ``checks``
    are lines for people, one for each thing that was checked; ``proof`` verifies all of it again.
    """

    label: str
    index: bytes
    head: MapHead
    latest: bool
    mutation: Mutation | None
    profile: tuple[ProfileKey, ...] | None
    erased: bool
    sight: Sight
    before: Account | None
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
    as_of: str = "",
    slack: int = SLACK,
    profile_wanted: bool = False,
    recall: Callable[[bytes], Account | None] = lambda index: None,
) -> tuple[Trusted, Lookup]:
    """What ``answer`` proves about ``label``, and the state of the client after it.

    ``consistency`` leads from the trusted checkpoint to the answer's; ``now`` is in ms, and ``as_of`` says
    whose word it is where it is not this machine's clock. Without
    ``epoch`` the answer has to be about the latest one, and fresh. ``profile_wanted`` refuses an answer
    that comes without a profile which was not erased. ``recall`` tells what is remembered of an index.

    Raises ``VerificationError`` that names the step, ``EquivocationError`` where two signed statements
    contradict each other, ``CannotTellError`` for a head that is not fresh while all else is right, and
    ``MalformedError`` for a label that the directory cannot have.
    """
    label = normalize_label(label, trusted.configs[0].config.label_policy)
    told = ToldHead(answer.smh_bytes, answer.heads_checkpoint, answer.heads_inclusion, consistency)
    proven = verify_head(trusted, told, epoch)
    head = proven.head
    index = _verify_vrf(proven.config, label, answer.vrf_proof)
    _verify_map(head, index, answer)
    erased = verify_opening(proven, answer)
    keys = verify_commitment(label, answer, profile, profile_wanted)
    mutation = answer.mutation
    signers = () if mutation is None else _verify_signatures(mutation, trusted.origin)
    entry = None if mutation is None else mutation.entry_bytes
    sight = Sight.of(head.epoch, answer.smh_bytes, entry, answer.map_proof, now)
    before = recall(index)
    verify_memory(trusted.origin, trusted.configs, index, before, sight)
    fresh = () if epoch is not None else (as_of + verify_freshness(head, proven.config, now, slack),)
    if mutation is None:
        found: tuple[str, ...] = (f"absence proven: in epoch {head.epoch} nobody has published keys for it",)
    else:
        found = _entry_checks(mutation, signers, _profile_check(keys, erased))
    lookup = Lookup(
        label,
        index,
        head,
        proven.latest,
        mutation,
        keys,
        erased is not None,
        sight,
        before,
        (*proven.checks, *fresh, f"index of {label} proven by the directory's VRF", *found),
        # An epoch that was asked for by number is as fresh as it ever was.
        ProofFile(
            trusted.origin, label, trusted.configs, answer, profile, now if epoch is None else head.timestamp
        ),
    )
    return proven.after, lookup


def verify_proof_file(
    file: ProofFile,
    pinned: Pinned,
    *,
    slack: int = SLACK,
    recall: Callable[[bytes], Account | None] = lambda index: None,
) -> Lookup:
    """What a saved proof proves, without a network: the same steps, fresh as of the file's ``at``.

    Nobody vouches for ``at`` but who saved the file; ``Lookup.timestamp`` is signed. A file about an
    epoch that was not its log's last is taken as the answer about that epoch (``Lookup.latest``).
    """
    if file.origin != pinned.origin:
        raise VerificationError("config", f"the proof is for {file.origin}, not for {pinned.origin}")
    answer = file.answer
    if answer.opening is not None and file.profile is None:
        raise VerificationError(
            "commitment", "the profile is not in the file, so nothing shows which keys it has"
        )
    trusted = begin(pinned, file.configs)
    try:
        epoch = SignedMapHead.decode(answer.smh_bytes).head.epoch
    except MalformedError as error:
        raise VerificationError("map head", str(error)) from None
    past = epoch < claimed_size(answer.heads_checkpoint)
    _, lookup = verify_lookup(
        trusted,
        file.label,
        answer,
        file.profile,
        (),
        now=file.at,
        as_of="when this was saved, as the file says itself, ",
        epoch=epoch if past else None,
        slack=slack,
        recall=recall,
    )
    return lookup


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


def _verify_signatures(mutation: Mutation, origin: str) -> tuple[PublicKey, ...]:
    """Step "signatures": which of the entry's own keys signed it, at least one.

    Beside them there may be a signature by a key of the entry before; who that was, only the history
    shows. The first version has none before it. Where keys share a key id, a signature is valid if it is so
    under one of them, as the decision in the log has it.
    """
    entry = mutation.entry
    if entry.version == 1 and not is_authorized(mutation, None, origin):
        raise VerificationError("signatures", "are not all by keys of the entry")
    message = signed_message("entry", origin, mutation.entry_bytes)
    signers: dict[PublicKey, None] = {}
    for signature in mutation.signatures:
        named = [key for key in entry.authorized_keys if key.id == signature.key_id]
        valid = [key for key in named if key.verifies(message, signature.value)]
        if named and not valid:
            raise VerificationError("signatures", f"the one by key {signature.key_id.hex()} does not verify")
        signers.update(dict.fromkeys(valid))
    if not signers:
        raise VerificationError("signatures", "none is by a key of the entry")
    return tuple(signers)


def _entry_checks(mutation: Mutation, signers: Sequence[PublicKey], profile: str) -> tuple[str, ...]:
    names = ", ".join(key.id.hex() for key in signers)
    return (
        f"version {mutation.entry.version} proven in the map",
        profile,
        f"entry signed by key {names}",
    )


def _profile_check(keys: tuple[ProfileKey, ...] | None, erased: Erased | None) -> str:
    if erased is not None:
        return f"profile erased {erased.by}: proven in the log of mutations, as of epoch {erased.epoch}"
    if keys is None:
        return "profile not asked for"
    return f"commitment opens to the profile ({counted(len(keys), 'keys')})"
