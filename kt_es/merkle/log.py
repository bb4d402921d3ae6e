"""The append-only Merkle log of RFC 6962: its growing edge, and which nodes its proofs need.

Nodes are named ``(level, offset)``: the complete subtree over the leaves ``offset << level`` up to
``(offset + 1) << level``. A complete subtree never changes, so nodes are stored once,
and serve the proofs of every past size. Planning a proof ("which nodes") is apart
from reading them: ``plan.nodes`` is what to fetch, ``plan.proof`` makes the proof of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kt_es.crypto.hashes import EMPTY_LOG_ROOT, HASH_SIZE, log_node_hash
from kt_es.errors import DivergenceError, MalformedError


class NodeId(NamedTuple):
    """A complete subtree of ``2 ** level`` leaves, the ``offset``-th of them; level 0 are the leaf hashes."""

    level: int
    offset: int


Nodes = list[tuple[NodeId, bytes]]
"""Nodes with their hashes, 32 bytes each."""


@dataclass(frozen=True, slots=True)
class LogState:
    """The edge of a log: its size and the roots of its complete subtrees, the largest first.

    ``hashes`` has one root for each one bit of ``size``; that is all that appending needs.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise MalformedError("log state", f"{len(self.hashes)} hashes do not make a log of {self.size}")
        if any(len(value) != HASH_SIZE for value in self.hashes):
            raise MalformedError("log state", f"a hash has not {HASH_SIZE} bytes")

    def root(self) -> bytes:
        """The root of the log, 32 bytes."""
        return _join(self.hashes)

    def append(self, leaf_hashes: Sequence[bytes]) -> tuple[LogState, Nodes]:
        """The state after these leaf hashes, and every complete subtree that they completed.

        The new nodes, leaves included, are what must be stored; they stand level by level, in order.
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
    """Which nodes a proof is made of: each hash of the proof is the root over one run of them."""

    runs: tuple[tuple[NodeId, ...], ...]

    @property
    def nodes(self) -> list[NodeId]:
        """The nodes to fetch, in the order in which ``proof`` takes them."""
        return [node for run in self.runs for node in run]

    def proof(self, hashes: Sequence[bytes | None]) -> list[bytes]:
        """The hashes of the proof, from the hashes of ``nodes`` as they were fetched.

        A node that is missing raises DivergenceError: the log's storage is damaged.
        """
        proof: list[bytes] = []
        at = 0
        for run in self.runs:
            part: list[bytes] = []
            for node, value in zip(run, hashes[at : at + len(run)], strict=True):
                if value is None or len(value) != HASH_SIZE:
                    raise DivergenceError(
                        f"log node at level {node.level}, offset {node.offset} is missing or damaged"
                    )
                part.append(value)
            at += len(run)
            proof.append(_join(part))
        return proof


def plan_inclusion(leaf_index: int, size: int) -> ProofPlan:
    """The audit path of one leaf in the log of ``size`` (RFC 6962, 2.1.1), from the leaf up.

    ``0 <= leaf_index < size``, else ValueError.
    """
    if not 0 <= leaf_index < size:
        raise ValueError(f"leaf {leaf_index} is not in a log of {size}")
    runs = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if leaf_index < middle:
            runs.append(_cover(middle, high))
            high = middle
        else:
            runs.append(_cover(low, middle))
            low = middle
    return ProofPlan(tuple(reversed(runs)))


def plan_consistency(size1: int, size2: int) -> ProofPlan:
    """The proof that the log of ``size2`` goes on from that of ``size1`` (RFC 6962, 2.1.2).

    ``1 <= size1 <= size2``, else ValueError; equal sizes give an empty proof.
    """
    if not 1 <= size1 <= size2:
        raise ValueError(f"no proof leads from size {size1} to {size2}")
    runs = []
    low, high = 0, size2
    while high != size1:
        middle = low + _split(high - low)
        if size1 <= middle:
            runs.append(_cover(middle, high))
            high = middle
        else:
            runs.append(_cover(low, middle))
            low = middle
    if low > 0:
        runs.append(_cover(low, high))
    return ProofPlan(tuple(reversed(runs)))


def plan_range(start: int, end: int, size: int) -> ProofPlan:
    """The proof that leaves ``start`` up to ``end`` (excluded) stand in the log of ``size``.

    It has the root of every largest subtree of RFC 6962 that holds none of these leaves, from left to right.
    ``0 <= start < end <= size``, else ValueError.
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
    """The nodes that make the ``LogState`` of a past ``size``: one run each."""
    return ProofPlan(tuple((node,) for node in _cover(0, size)))


def _split(size: int) -> int:
    """The largest power of two below ``size`` (RFC 6962's k); ``size`` is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _cover(low: int, high: int) -> tuple[NodeId, ...]:
    """The complete subtrees over the leaves from ``low`` up to ``high``, the largest first.

    ``low`` is a multiple of every power of two up to ``high - low``, as it is wherever RFC 6962 splits.
    """
    nodes = []
    while low < high:
        level = (high - low).bit_length() - 1
        nodes.append(NodeId(level, low >> level))
        low += 1 << level
    return tuple(nodes)


def _join(hashes: Sequence[bytes]) -> bytes:
    """The root over complete subtrees, the largest first."""
    if not hashes:
        return EMPTY_LOG_ROOT
    root = hashes[-1]
    for value in reversed(hashes[:-1]):
        root = log_node_hash(value, root)
    return root
