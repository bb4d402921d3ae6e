"""Verification of a lookup and of a saved proof, step by step (docs/DESIGN.md, section 4). Pure.

``now`` and the memory of the account are passed in; nothing is fetched or stored. The functions accept or
raise. A refusal names one of ``STEPS``, in the order of the checks:

- ``heads``: "config", "checkpoint", "rollback", "consistency", "map head", "freshness"
- here: "answer" and "vrf"
- ``entries``: "map", "entry", "opening", "commitment", "signatures", "memory"
- ``history`` and ``ranges``: "history"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kt_es.client.entries import (
    Account,
    ErasedProfile,
    Sight,
    verify_commitment,
    verify_entry,
    verify_map,
    verify_memory,
    verify_opening,
    verify_signatures,
)
from kt_es.client.heads import (
    SLACK,
    ClaimedHead,
    ProvenHead,
    decode_head,
    verify_freshness,
    verify_head,
)
from kt_es.client.trusted import Pinned, Trusted, begin, claimed_size
from kt_es.crypto import vrf
from kt_es.epochs import Current
from kt_es.errors import MalformedError, VerificationError, counted
from kt_es.formats.entries import Entry, Mutation, ProfileKey, PublicKey
from kt_es.formats.heads import MapHead
from kt_es.formats.labels import normalize_label
from kt_es.formats.proofs import LookupAnswer, ProofFile

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
    """The verified state of a label in one epoch.

    Attributes:
        mutation: None if absence was proven.
        profile: None if absence was proven, if the profile was ``erased``, or if it was not asked for.
        latest: The epoch was the last one of the log.
        sight: This lookup as a client remembers it.
        before: The memory of the account before this lookup, None at the first sight.
        checks: Lines for people, one for each thing that was checked.
        proof: The file with which anybody can verify all of it again.
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
        """When the head was made, in milliseconds since 1970. The lookup is true as of this time."""
        return self.head.timestamp

    @property
    def absent(self) -> bool:
        return self.mutation is None

    @property
    def entry(self) -> Entry | None:
        return None if self.mutation is None else self.mutation.entry

    @property
    def current(self) -> Current | None:
        """The entry in the form that the decision about its successor takes."""
        return None if self.mutation is None else Current(self.mutation.entry, self.mutation.entry_hash)


def open_answer(data: bytes) -> LookupAnswer:
    """Step "answer": decode the bytes that a server sent."""
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
    """Verify the answer about ``label``. Return the new state of the client and the lookup.

    Args:
        trusted: The state of the client before this lookup.
        label: The label that was asked for, not yet normalized.
        answer: The decoded answer of the server.
        profile: The bytes of the profile in the answer, None if the answer has none.
        consistency: Proof from the trusted checkpoint to the checkpoint of the answer.
        now: Milliseconds since 1970.
        epoch: The epoch that was asked for; None demands the latest epoch, and a fresh head.
        as_of: Names the source of ``now`` for people if it is not the clock of this machine.
        slack: Milliseconds by which clocks may differ.
        profile_wanted: Refuse an answer without the profile, unless the profile was erased.
        recall: Returns the memory of the account at an index.

    Raises:
        VerificationError: A step failed; the error names it.
        CannotTellError: Everything is right, but the head is not fresh.
        MalformedError: The directory cannot have such a label.
    """
    label = normalize_label(label, trusted.configs[0].config.label_policy)
    claimed = ClaimedHead(answer.smh_bytes, answer.heads_checkpoint, answer.heads_inclusion, consistency)
    proven = verify_head(trusted, claimed, epoch)
    index = verify_index(proven, label, answer.vrf_proof)
    lookup = verify_label(
        trusted,
        proven,
        label,
        index,
        answer,
        profile=profile,
        now=now,
        epoch=epoch,
        as_of=as_of,
        slack=slack,
        profile_wanted=profile_wanted,
        recall=recall,
    )
    return proven.after, lookup


def verify_index(proven: ProvenHead, label: str, vrf_proof: bytes) -> bytes:
    """Step "vrf": return the index of the normalized ``label``, 32 bytes."""
    return vrf.index_of(vrf.verify(proven.config.vrf_key, label.encode(), vrf_proof))


def verify_label(
    trusted: Trusted,
    proven: ProvenHead,
    label: str,
    index: bytes,
    answer: LookupAnswer,
    *,
    profile: bytes | None,
    now: int,
    epoch: int | None,
    slack: int,
    profile_wanted: bool,
    recall: Callable[[bytes], Account | None],
    as_of: str = "",
) -> Lookup:
    """Verify what ``answer`` says of one label, by the steps after "vrf".

    Args:
        proven: The head of the answer, verified against ``trusted``.
        label: The normalized label.
        index: The index of the label, which the VRF proof of the answer proves.
        trusted, answer, profile, now, epoch, slack, profile_wanted, recall, as_of: As for ``verify_lookup``.
    """
    head, mutation = proven.head, answer.mutation
    if mutation is not None:
        verify_entry(mutation.entry, index)
    verify_map(head, index, answer.map_proof, absent=mutation is None)
    erased = verify_opening(proven, answer)
    keys = verify_commitment(label, answer, profile, profile_wanted)
    if mutation is None:
        found: tuple[str, ...] = (f"absence proven: in epoch {head.epoch} nobody has published keys for it",)
    else:
        signers = _verify_signers(mutation, trusted.origin)
        found = (
            f"version {mutation.entry.version} proven in the map",
            _profile_check(keys, erased),
            f"entry signed by key {', '.join(key.id.hex() for key in signers)}",
        )
    entry = None if mutation is None else mutation.entry_bytes
    sight = Sight.of(head.epoch, answer.smh_bytes, entry, answer.map_proof, now)
    before = recall(index)
    verify_memory(trusted.origin, trusted.configs, index, before, sight)
    fresh = () if epoch is not None else (as_of + verify_freshness(head, proven.config, now, slack),)
    return Lookup(
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
        # The freshness of an epoch that was asked for by number is checked as of its own head.
        ProofFile(
            trusted.origin, label, trusted.configs, answer, profile, now if epoch is None else head.timestamp
        ),
    )


def verify_proof_file(
    file: ProofFile,
    pinned: Pinned,
    *,
    slack: int = SLACK,
    recall: Callable[[bytes], Account | None] = lambda index: None,
) -> Lookup:
    """Verify a saved proof without a network, by the same steps. The head has to be fresh as of ``file.at``.

    Only the person who saved the file vouches for ``at``; ``Lookup.timestamp`` is signed. A file about an
    epoch that was not the last one of its log is verified as the answer about that epoch
    (``Lookup.latest``).
    """
    if file.origin != pinned.origin:
        raise VerificationError("config", f"the proof is for {file.origin}, not for {pinned.origin}")
    answer = file.answer
    if answer.opening is not None and file.profile is None:
        raise VerificationError(
            "commitment", "the profile is not in the file, so nothing shows which keys it has"
        )
    trusted = begin(pinned, file.configs)
    epoch = decode_head(answer.smh_bytes).head.epoch
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


def _verify_signers(mutation: Mutation, origin: str) -> tuple[PublicKey, ...]:
    """Step "signatures" of a lookup: no version precedes the first one, so only its own keys may sign it."""
    signers = verify_signatures(mutation, origin)
    own = {key.id for key in mutation.entry.authorized_keys}
    if mutation.entry.version == 1 and not own.issuperset(each.key_id for each in mutation.signatures):
        raise VerificationError("signatures", "are not all by keys of the entry")
    return signers


def _profile_check(keys: tuple[ProfileKey, ...] | None, erased: ErasedProfile | None) -> str:
    if erased is not None:
        return f"profile erased {erased.by}: proven in the log of mutations, as of epoch {erased.epoch}"
    if keys is None:
        return "profile not asked for"
    return f"commitment opens to the profile ({counted(len(keys), 'keys')})"
