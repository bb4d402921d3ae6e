"""Verification of a batch: one head and one proof of the map, and each label as in a lookup. Pure.

FORMATS, "Batch answer". The proof of the map gives the single proof of each label, so each label becomes a
``Lookup`` of its own, with a proof file and a sight that need no other label. The steps are those of
``trust``; the step "map" is first verified for all labels together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kt_es.client.entries import Account, verify_entry
from kt_es.client.heads import ClaimedHead, ProvenHead, verify_head
from kt_es.client.trust import Lookup, verify_index, verify_label
from kt_es.client.trusted import Trusted
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.batches import BatchAnswer
from kt_es.merkle.multiproof import expand
from kt_es.merkle.verify import MapProof


def open_batch(data: bytes) -> BatchAnswer:
    """Step "answer": decode the bytes that a server sent."""
    try:
        return BatchAnswer.decode(data)
    except MalformedError as error:
        raise VerificationError("answer", str(error)) from None


def verify_batch(
    trusted: Trusted,
    labels: Sequence[str],
    answer: BatchAnswer,
    profiles: Sequence[bytes | None],
    consistency: Sequence[bytes],
    *,
    now: int,
    epoch: int | None,
    slack: int,
    profile_wanted: bool,
    recall: Callable[[bytes], Account | None],
) -> tuple[Trusted, list[Lookup]]:
    """Verify the answer about the first of ``labels``. Return the new state and a lookup for each of them.

    The whole answer is refused if one label fails.

    Args:
        trusted: The state of the client before this request.
        labels: The labels that were asked for, normalized and distinct. The answer may be about fewer.
        answer: The decoded answer of the server.
        profiles: The profiles that came with it, one for each label of the answer.
        consistency: Proof from the trusted checkpoint to the checkpoint of the answer.
        now, epoch, slack, profile_wanted, recall: As for ``trust.verify_lookup``.

    Raises:
        VerificationError: A step failed; the error names it.
        CannotTellError: Everything is right, but the head is not fresh.
    """
    count = len(answer.answers)
    if count > len(labels) or count != len(profiles):
        raise VerificationError(
            "answer", f"is about {count} labels with {len(profiles)} profiles, where {len(labels)} were asked"
        )
    claimed = ClaimedHead(answer.smh_bytes, answer.heads_checkpoint, answer.heads_inclusion, consistency)
    proven = verify_head(trusted, claimed, epoch)
    indices = [
        verify_index(proven, label, one.vrf_proof) for label, one in zip(labels, answer.answers, strict=False)
    ]
    single = _verify_map(proven, indices, answer)
    lookups = [
        verify_label(
            trusted,
            proven,
            labels[at],
            indices[at],
            answer.lookup(at, single[at]),
            profile=profiles[at],
            now=now,
            epoch=epoch,
            slack=slack,
            profile_wanted=profile_wanted,
            recall=recall,
        )
        for at in range(count)
    ]
    return proven.after, lookups


def _verify_map(proven: ProvenHead, indices: Sequence[bytes], answer: BatchAnswer) -> list[MapProof]:
    """Steps "entry" and "map" of all labels: return the single proof of each label in the map of the head."""
    for index, one in zip(indices, answer.answers, strict=True):
        if one.mutation is not None:
            verify_entry(one.mutation.entry, index)
    if len(set(indices)) < len(indices):
        raise VerificationError("vrf", "two labels have the same index")
    claims = [one.claim(index) for index, one in zip(indices, answer.answers, strict=True)]
    try:
        root, proofs = expand(claims, answer.map_proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map", error.problem) from None
    if root != proven.head.map_root:
        raise VerificationError(
            "map", f"the proof does not lead to the map root of epoch {proven.head.epoch}"
        )
    return proofs
