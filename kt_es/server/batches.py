"""Answers to batch lookups: many labels in one epoch, with one head and one proof of the map.

Everything that single lookups repeat is done once: the head with its proofs, the descent of the map, page by
page and level by level, and the reads of the entries. What is left for each label is its VRF proof, its entry
and its opening.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kt_es.api.batches import LookupsBody
from kt_es.api.operations import ProblemReason
from kt_es.errors import LabelError, RefusedError
from kt_es.formats.batches import MAX_BATCH_ANSWER, encode_batch
from kt_es.formats.codec import Value
from kt_es.formats.entries import Mutation, Opening
from kt_es.formats.heads import MAX_CHECKPOINT
from kt_es.formats.labels import normalize_label
from kt_es.formats.proofs import ErasureProof, held_fields
from kt_es.ledger.authorized import entries_at
from kt_es.ledger.proofs import map_root_at, prove_erasure, prove_smh
from kt_es.ledger.rows import Committed
from kt_es.merkle.multiproof import combine
from kt_es.merkle.verify import MapProof
from kt_es.server.answers import result_of
from kt_es.server.handlers import DirectoryReader

# Bytes for the labels and profiles of an answer: the rest is for the checkpoint and the proof of the head.
_ROOM = MAX_BATCH_ANSWER - MAX_CHECKPOINT - 8 * 1024
# Bytes of a label besides its entry, its erasure and its siblings: VRF proof, opening, an end with its leaf.
_LABEL_SIZE = 192
_SIBLING_SIZE = 34
# Labels whose openings are read together. Their profiles have at most 16 MiB.
_STEP = 32


@dataclass(frozen=True, slots=True)
class FoundBatch:
    """The answer about the first labels of a batch, as many as fit.

    ``results`` has the numbers of these labels by ``FoundLookup.result``.
    """

    body: LookupsBody
    results: Counter[str]


@dataclass(frozen=True, slots=True)
class _Sought:
    """A label, what the map has at its index, and the proof."""

    name: str
    index: bytes
    vrf_proof: bytes
    map_proof: MapProof
    mutation: Mutation | None
    mutation_bytes: bytes | None


class BatchReader:
    """Reads many labels of one directory at once. Safe for threads."""

    def __init__(self, directory: DirectoryReader) -> None:
        self._directory = directory

    def lookups(
        self,
        labels: Sequence[str],
        epoch: int | None = None,
        since: int | None = None,
        *,
        profile: bool = True,
    ) -> FoundBatch:
        """Return the entries of ``labels`` in ``epoch`` (default: the latest), or of as many as fit.

        Args:
            labels: 1 to 1000 labels, not yet normalized.
            epoch: The epoch; None for the latest one.
            since: The size of the log of map heads that the client trusts.
            profile: Return the profiles, too.

        Raises:
            RefusedError: A label is none, or two are the same; the epoch is unknown or pruned.
            UnavailableError: There is no epoch yet, or this replica is behind the client.
        """
        directory = self._directory
        committed = directory.committed()
        names = _normalized(labels, directory.config(committed).label_policy)
        wanted = directory.kept(committed, epoch)
        consistency = directory.since(committed, since)
        latest = directory.published(committed, committed.epoch)
        smh, inclusion = latest.event.smh_bytes, latest.inclusion
        if wanted != committed.epoch:
            smh, inclusion = prove_smh(directory.ledger, committed, wanted)
        answers: list[Value] = []
        results = Counter[str]()
        profiles: list[bytes | None] = []
        proofs: list[tuple[bytes, MapProof]] = []
        room = _ROOM
        for sought, opening, erasure in self._opened(
            committed, self._sought(committed, names, wanted), wanted
        ):
            shown = opening.profile if profile and opening is not None else None
            room -= _size(sought, erasure) + len(shown or b"")
            if answers and room < 0:
                break
            secret = None if opening is None else opening.opening
            answers.append([sought.vrf_proof, *held_fields(sought.mutation_bytes, secret, erasure)])
            profiles.append(shown)
            proofs.append((sought.index, sought.map_proof))
            results[result_of(sought.mutation, secret, erasure)] += 1
        answer = encode_batch(latest.event.heads_checkpoint, smh, inclusion, combine(proofs), answers)
        return FoundBatch(LookupsBody(wanted, len(answers), answer, tuple(profiles), consistency), results)

    def _sought(self, committed: Committed, names: Sequence[str], epoch: int) -> list[_Sought]:
        """Find the index, the entry and the map proof of each name in ``epoch``."""
        ledger = self._directory.ledger
        located = self._directory.indexer.locate_many(names)
        root = map_root_at(ledger, committed, epoch)
        found = ledger.map.find_many(root, [index for index, _ in located])
        leaves = [leaf for _, leaf in found if leaf is not None]
        held = {
            leaf.index: (mutation, stored.data) for leaf, stored, mutation in entries_at(ledger, root, leaves)
        }
        return [
            _Sought(name, index, vrf_proof, map_proof, *held.get(index, (None, None)))
            for name, (index, vrf_proof), (map_proof, _) in zip(names, located, found, strict=True)
        ]

    def _opened(
        self, committed: Committed, sought: Sequence[_Sought], epoch: int
    ) -> Iterator[tuple[_Sought, Opening | None, ErasureProof | None]]:
        """Yield each label with its opening or the proof that it was erased, as ``DirectoryReader`` does."""
        ledger = self._directory.ledger
        for first in range(0, len(sought), _STEP):
            part = sought[first : first + _STEP]
            erasures = {
                one.index: prove_erasure(ledger, committed, one.index, one.mutation.entry_hash, epoch)
                for one in part
                if one.mutation is not None
            }
            wanted = [
                (one, one.mutation)
                for one in part
                if one.mutation is not None and erasures[one.index] is None
            ]
            found = self._directory.openings.find_many([(one.name, mutation) for one, mutation in wanted])
            openings = {one.index: opening for (one, _), opening in zip(wanted, found, strict=True)}
            for one in part:
                yield one, openings.get(one.index), erasures.get(one.index)


def _normalized(labels: Sequence[str], policy: str) -> list[str]:
    """Return the normalized labels. Raises ``RefusedError``, which names a wrong label by its place."""
    seen: dict[str, int] = {}
    for place, label in enumerate(labels, 1):
        try:
            name = normalize_label(label, policy)
        except LabelError as error:
            raise RefusedError(ProblemReason.MALFORMED, f"number {place} {error.problem}", "labels") from None
        if name in seen:
            problem = f"number {place} is the same as number {seen[name]}; name each label once"
            raise RefusedError(ProblemReason.MALFORMED, problem, "labels")
        seen[name] = place
    return list(seen)


def _size(sought: _Sought, erasure: ErasureProof | None) -> int:
    """Return at least the bytes that a label takes in an answer, as if it shared no sibling with others."""
    size = _LABEL_SIZE + _SIBLING_SIZE * len(sought.map_proof.siblings)
    size += len(sought.mutation_bytes or b"")
    if erasure is not None:
        hashes = len(erasure.inclusion) + len(erasure.heads_inclusion)
        size += len(erasure.record_bytes) + len(erasure.smh_bytes or b"") + _SIBLING_SIZE * (hashes + 1)
    return size
