"""One proof of many indices in the map at one root: each hash beside the paths stands in it at most once.

The paths of the indices, from the root down, make a tree. It is walked from left to right, and below first:
each node comes after everything below it. Two things are not known from the indices and stand in the proof,
in the order of this walk:

- ``ends``: where the paths end. Indices whose paths end at the same node share one end.
- ``siblings``: the hash beside each node whose sibling is on no path, None for an empty subtree. A node whose
  sibling is on a path has none here, because its hash follows from what is below it.

So the proof of one index is its single proof (``verify.MapProof``). For each root and each set of indices
there is one proof: ``expand`` refuses what is missing, left over or in another place. FORMATS, "Batch
answer".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from kt_es.crypto.hashes import HASH_SIZE, MAP_EMPTY, map_leaf_hash, map_node_hash
from kt_es.errors import MalformedError, VerificationError
from kt_es.merkle.verify import MAX_DEPTH, Leaf, MapProof

Claim = tuple[bytes, bytes | None]
"""An index, and the entry hash that is said to stand there; None if the map is said to have no entry."""

End = tuple[int, Leaf | None]
"""The end of a path: its depth in bits, 0 for the root, and the leaf of another index there.

The leaf is None at an empty subtree, and where the leaf is one of the claimed entries.
"""


@dataclass(frozen=True, slots=True)
class MultiProof:
    """The proof of many claims in one map (see above). Constructing a proof does not check it."""

    siblings: tuple[bytes | None, ...]
    ends: tuple[End, ...]


def combine(proofs: Sequence[tuple[bytes, MapProof]]) -> MultiProof:
    """Return the one proof of what ``proofs`` prove: distinct indices, each with its proof at the same root.

    Raises ``ValueError`` if there are none, or if an index occurs twice.
    """
    ordered = sorted(proofs, key=lambda each: each[0])
    paths = _numbers([index for index, _ in ordered])
    siblings: list[bytes | None] = []
    ends: list[End] = []

    def add(low: int, high: int, depth: int) -> None:
        """Add the subtree at ``depth`` with the paths from ``low`` up to ``high`` (excluded)."""
        proof = ordered[low][1]
        bottom = len(proof.siblings)
        fork = _fork(paths, low, high)
        if bottom <= fork:
            own = {index for index, _ in ordered[low:high]}
            other = proof.leaf is not None and proof.leaf[0] not in own
            ends.append((bottom, proof.leaf if other else None))
            siblings.extend(proof.siblings[: bottom - depth])
            return
        middle = _middle(paths, low, high, fork)
        add(low, middle, fork + 1)
        add(middle, high, fork + 1)
        siblings.extend(proof.siblings[bottom - fork : bottom - depth])

    add(0, len(paths), 0)
    return MultiProof(tuple(siblings), tuple(ends))


def expand(claims: Sequence[Claim], proof: MultiProof) -> tuple[bytes, list[MapProof]]:
    """Return the root to which ``proof`` leads, and the single proof of each claim at that root.

    The caller compares the root with a signed one. The single proofs then need no further check: each leads
    to the same root (``verify.map_root``), and shows what its claim says.

    Raises:
        ValueError: There are no claims, or an index occurs twice.
        MalformedError: A value has a wrong length, or the proof is larger than any proof of these claims.
        VerificationError: Step "map": the proof is not one of these claims.
    """
    order = sorted(range(len(claims)), key=lambda at: claims[at][0])
    walk = _Walk([claims[at] for at in order], proof)
    _check_sizes(claims, proof)
    root = walk.below(0, len(claims), 0)[1]
    if walk.next_sibling < len(proof.siblings):
        raise VerificationError("map", "the proof has more siblings than its paths need")
    if walk.next_end < len(proof.ends):
        raise VerificationError("map", "the proof has more ends than its paths need")
    found = dict(zip(order, walk.proofs(), strict=True))
    return root, [found[at] for at in range(len(claims))]


class _Kind(Enum):
    """What a subtree is. A hash that stands in the proof is SOME: it may be that of a leaf."""

    EMPTY = 0
    LEAF = 1
    SOME = 2


class _Walk:
    """The walk over the paths of ``claims``, which are sorted by their indices."""

    def __init__(self, claims: Sequence[Claim], proof: MultiProof) -> None:
        self._claims = claims
        self._proof = proof
        self._paths = _numbers([index for index, _ in claims])
        self._beside: list[list[bytes | None]] = [[] for _ in claims]
        self._leaves: list[Leaf | None] = [None] * len(claims)
        self.next_sibling = 0
        self.next_end = 0

    def proofs(self) -> list[MapProof]:
        """Return the single proofs, in the order of the claims."""
        pairs = zip(self._beside, self._leaves, strict=True)
        return [MapProof(tuple(siblings), leaf) for siblings, leaf in pairs]

    def below(self, low: int, high: int, depth: int) -> tuple[_Kind, bytes]:
        """Return the subtree at ``depth`` with the paths from ``low`` up to ``high`` (excluded)."""
        if self.next_end == len(self._proof.ends):
            raise VerificationError("map", "the proof has fewer ends than its paths need")
        bottom, other = self._proof.ends[self.next_end]
        if bottom < depth:
            raise VerificationError("map", "an end of the proof stands above the paths that it is to end")
        fork = _fork(self._paths, low, high)
        if bottom <= fork:
            self.next_end += 1
            kind, value = self._end(low, high, bottom, other)
        else:
            middle = _middle(self._paths, low, high, fork)
            left = self.below(low, middle, fork + 1)
            right = self.below(middle, high, fork + 1)
            self._put_beside(low, middle, right)
            self._put_beside(middle, high, left)
            kind, value = _joined(left, right)
            bottom = fork
        return self._climb(low, high, bottom, depth, (kind, value))

    def _end(self, low: int, high: int, depth: int, other: Leaf | None) -> tuple[_Kind, bytes]:
        """Return the node at ``depth`` at which the paths from ``low`` up to ``high`` end."""
        held = [(index, value) for index, value in self._claims[low:high] if value is not None]
        if len(held) > 1:
            raise VerificationError("map", "two entries are said to stand at one end of the proof")
        if held and other is not None:
            raise VerificationError("map", "an end of the proof has another leaf beside the entry's own")
        leaf = held[0] if held else other
        if leaf is None:
            return _Kind.EMPTY, MAP_EMPTY
        if not held and any(index == leaf[0] for index, _ in self._claims[low:high]):
            raise VerificationError("map", "the map holds an entry at an index that is said to be absent")
        shift = MAX_DEPTH - depth
        if int.from_bytes(leaf[0]) >> shift != self._paths[low] >> shift:
            raise VerificationError("map", "the other leaf does not stand on the path of the index")
        self._leaves[low:high] = [leaf] * (high - low)
        return _Kind.LEAF, map_leaf_hash(*leaf)

    def _climb(
        self, low: int, high: int, bottom: int, top: int, node: tuple[_Kind, bytes]
    ) -> tuple[_Kind, bytes]:
        """Climb from ``node`` at the depth ``bottom`` to ``top`` past siblings that are on no path."""
        begin, end = self.next_sibling, self.next_sibling + bottom - top
        siblings = self._proof.siblings[begin:end]
        if len(siblings) < bottom - top:
            raise VerificationError("map", "the proof has fewer siblings than its paths need")
        self.next_sibling = end
        for beside in self._beside[low:high]:
            beside.extend(siblings)
        path = self._paths[low] >> (MAX_DEPTH - bottom)
        for sibling in siblings:
            other = (_Kind.EMPTY, MAP_EMPTY) if sibling is None else (_Kind.SOME, sibling)
            node = _joined(other, node) if path & 1 else _joined(node, other)
            path >>= 1
        return node

    def _put_beside(self, low: int, high: int, node: tuple[_Kind, bytes]) -> None:
        kind, value = node
        for beside in self._beside[low:high]:
            beside.append(None if kind is _Kind.EMPTY else value)


def _joined(left: tuple[_Kind, bytes], right: tuple[_Kind, bytes]) -> tuple[_Kind, bytes]:
    """Return the node over two subtrees, which must have more than one leaf together."""
    kinds = {left[0], right[0]}
    if kinds == {_Kind.EMPTY}:
        raise VerificationError("map", "an empty subtree stands beside another one")
    if kinds == {_Kind.EMPTY, _Kind.LEAF}:
        raise VerificationError("map", "the leaf does not stand at its shortest unique prefix")
    return _Kind.SOME, map_node_hash(left[1], right[1])


def _numbers(indices: Sequence[bytes]) -> list[int]:
    """Return sorted indices as numbers."""
    paths = [int.from_bytes(index) for index in indices]
    if not paths or any(len(index) != HASH_SIZE for index in indices):
        raise ValueError(f"a proof needs an index, and each index needs {HASH_SIZE} bytes")
    if len(set(paths)) < len(paths):
        raise ValueError("a proof has each index once")
    return paths


def _fork(paths: Sequence[int], low: int, high: int) -> int:
    """Return the depth down to which sorted paths have one node in common; 256 for a single path."""
    return MAX_DEPTH - (paths[low] ^ paths[high - 1]).bit_length()


def _middle(paths: Sequence[int], low: int, high: int, fork: int) -> int:
    """Return the first of the sorted paths that turns right at the depth ``fork``."""
    shift = MAX_DEPTH - 1 - fork
    return bisect_left(paths, paths[high - 1] >> shift << shift, low, high)


def _check_sizes(claims: Sequence[Claim], proof: MultiProof) -> None:
    if len(proof.siblings) > MAX_DEPTH * len(claims) or len(proof.ends) > len(claims):
        raise MalformedError("map proof", f"is larger than any proof of {len(claims)} indices")
    values = [value for value in proof.siblings if value is not None]
    if MAP_EMPTY in values:
        raise MalformedError("map proof", "an empty subtree is written as null, not as zero bytes")
    values += [entry_hash for _, entry_hash in claims if entry_hash is not None]
    for depth, leaf in proof.ends:
        if not 0 <= depth <= MAX_DEPTH:
            raise MalformedError("map proof", f"an end must be at a depth of 0 to {MAX_DEPTH}, is at {depth}")
        values += leaf or ()
    if any(len(value) != HASH_SIZE for value in values):
        raise MalformedError("map proof", f"a hash must have {HASH_SIZE} bytes")
