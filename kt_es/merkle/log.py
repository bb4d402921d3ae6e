"""The append-only Merkle log of RFC 6962: its right edge, and the nodes that its proofs need.

A node ``(level, offset)`` is the complete subtree over the leaves from ``offset << level`` up to
``(offset + 1) << level`` (excluded). A complete subtree never changes, so each node is stored once and serves
the proofs at every later size. Planning a proof is separate from reading nodes: the caller fetches
``plan.nodes`` and passes their hashes to ``plan.proof``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from kt_es.crypto.hashes import EMPTY_LOG_ROOT, HASH_SIZE, log_node_hash
from kt_es.errors import MalformedError, UnverifiedRowError


class NodeId(NamedTuple):
    """The complete subtree number ``offset`` of those with ``2 ** level`` leaves. Level 0 are leaf hashes."""

    level: int
    offset: int


Nodes = list[tuple[NodeId, bytes]]
"""Nodes with their hashes, 32 bytes each."""


@dataclass(frozen=True, slots=True)
class LogState:
    """The right edge of a log: its size and the roots of its complete subtrees, the largest first.

    ``hashes`` has one root for each 1 bit of ``size``. Appending needs no other nodes.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise MalformedError("log state", f"{len(self.hashes)} hashes do not make a log of {self.size}")
        if any(len(value) != HASH_SIZE for value in self.hashes):
            raise MalformedError("log state", f"each hash must have {HASH_SIZE} bytes")

    def root(self) -> bytes:
        """Return the root of the log, 32 bytes."""
        return _join(self.hashes)

    def append(self, leaf_hashes: Sequence[bytes]) -> tuple[LogState, Nodes]:
        """Append leaf hashes. Return the new state and the new complete subtrees.

        The caller must store the new nodes, which include the leaves. They are ordered by level and offset.
        """
        edge = dict(zip(_cover(0, self.size), self.hashes, strict=True))
        created: Nodes = []
        first, fresh = self.size, list(leaf_hashes)
        level = 0
        while fresh:
            created += [(NodeId(level, first + i), value) for i, value in enumerate(fresh)]
            edge[NodeId(level, first + len(fresh) - 1)] = fresh[-1]
            if first & 1:
                fresh.insert(0, edge[NodeId(level, first - 1)])
            fresh = [log_node_hash(fresh[i], fresh[i + 1]) for i in range(0, len(fresh) - 1, 2)]
            first >>= 1
            level += 1
        size = self.size + len(leaf_hashes)
        return LogState(size, tuple(edge[node] for node in _cover(0, size))), created


@dataclass(frozen=True, slots=True)
class ProofPlan:
    """The nodes that a proof consists of. Each hash of the proof is the root over one run of nodes."""

    runs: tuple[tuple[NodeId, ...], ...]

    @property
    def nodes(self) -> list[NodeId]:
        """The nodes to fetch, in the order that ``proof`` expects."""
        return [node for run in self.runs for node in run]

    def proof(self, hashes: Sequence[bytes | None]) -> list[bytes]:
        """Compute the hashes of the proof from the hashes of ``nodes``. Raises ``UnverifiedRowError``."""
        rest = iter([_intact(node, value) for node, value in zip(self.nodes, hashes, strict=True)])
        return [_join(list(islice(rest, len(run)))) for run in self.runs]


def plan_inclusion(leaf_index: int, size: int) -> ProofPlan:
    """Plan the audit path of one leaf in the log of ``size`` (RFC 6962, 2.1.1), from the leaf up.

    Raises ``ValueError``.
    """
    if not 0 <= leaf_index < size:
        raise ValueError(f"leaf {leaf_index} is not in a log of {size}")
    runs = []
    low, high = 0, size
    while high - low > 1:
        low, high, beside = _half_with(leaf_index, low, high)
        runs.append(beside)
    return ProofPlan(tuple(reversed(runs)))


def plan_consistency(size1: int, size2: int) -> ProofPlan:
    """Plan the proof that the log of ``size1`` is a prefix of the log of ``size2`` (RFC 6962, 2.1.2).

    The proof for equal sizes is empty. Raises ``ValueError``.
    """
    if not 1 <= size1 <= size2:
        raise ValueError(f"no proof leads from size {size1} to {size2}")
    runs = []
    low, high = 0, size2
    while high != size1:
        low, high, beside = _half_with(size1 - 1, low, high)
        runs.append(beside)
    if low > 0:
        runs.append(_cover(low, high))
    return ProofPlan(tuple(reversed(runs)))


def plan_range(start: int, end: int, size: int) -> ProofPlan:
    """Plan the proof that the log of ``size`` contains the leaves from ``start`` up to ``end`` (excluded).

    The proof has the roots of the largest subtrees of RFC 6962 that contain none of these leaves, from left
    to right. Raises ``ValueError``.
    """
    if not 0 <= start < end <= size:
        raise ValueError(f"leaves {start} to {end} are not in a log of {size}")
    runs: list[tuple[NodeId, ...]] = []

    def visit(low: int, high: int) -> None:
        if high <= start or low >= end:
            runs.append(_cover(low, high))
        elif not (start <= low and high <= end):
            middle = low + _split(high - low)
            visit(low, middle)
            visit(middle, high)

    visit(0, size)
    return ProofPlan(tuple(runs))


def plan_state(size: int) -> ProofPlan:
    """Plan the nodes of the ``LogState`` of a past ``size``. Each node is a run of its own."""
    return ProofPlan(tuple((node,) for node in _cover(0, size)))


def _split(size: int) -> int:
    """Return the largest power of two below ``size``, k in RFC 6962. ``size`` is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _half_with(leaf: int, low: int, high: int) -> tuple[int, int, tuple[NodeId, ...]]:
    """Return the bounds of the subtree with ``leaf`` below a node, and the nodes of the subtree beside it."""
    middle = low + _split(high - low)
    if leaf < middle:
        return low, middle, _cover(middle, high)
    return middle, high, _cover(low, middle)


def _cover(low: int, high: int) -> tuple[NodeId, ...]:
    """Return the complete subtrees over the leaves from ``low`` up to ``high`` (excluded), the largest first.

    ``low`` must be a multiple of every power of two up to ``high - low``, as wherever RFC 6962 splits.
    """
    nodes = []
    while low < high:
        level = (high - low).bit_length() - 1
        nodes.append(NodeId(level, low >> level))
        low += 1 << level
    return tuple(nodes)


def _intact(node: NodeId, value: bytes | None) -> bytes:
    if value is None or len(value) != HASH_SIZE:
        raise UnverifiedRowError(
            f"log node at level {node.level}, offset {node.offset} is missing or damaged"
        )
    return value


def _join(hashes: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees, the largest first."""
    if not hashes:
        return EMPTY_LOG_ROOT
    root = hashes[-1]
    for value in reversed(hashes[:-1]):
        root = log_node_hash(value, root)
    return root
