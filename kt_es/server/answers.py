"""The answer to a lookup, and parts of answers: the index of a label, its opening, a range of its epochs."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from kt_es.api.models import LookupBody
from kt_es.crypto.hashes import opens
from kt_es.crypto.vrf import VrfPrivateKey, index_of
from kt_es.errors import MalformedError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.entries import Mutation, Opening
from kt_es.formats.heads import MAX_CHECKPOINT
from kt_es.formats.proofs import ErasureProof, LookupAnswer
from kt_es.formats.ranges import MAX_RANGE, MAX_RANGE_ANSWER, RangeAnswer, RangeEpoch
from kt_es.ledger.authorized import entry_at
from kt_es.ledger.bytecache import ByteCache
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.openings import Missing, Openings, read_opening
from kt_es.ledger.proofs import map_root_at, prove_range, roots_from
from kt_es.ledger.rows import Committed
from kt_es.merkle.verify import MapProof
from kt_es.server.availability import LogWatch
from kt_es.server.responses import NotNowError

Located: TypeAlias = tuple[bytes, bytes]
"""The index of a label and its VRF proof."""

# Some 160,000 labels. A proof takes longer than all the rest of a lookup.
KNOWN_BYTES = 64 << 20
# Of an index and a VRF proof, and of the pair.
_LOCATED_BYTES = 250
DEADLINE = 2.0
# Bytes for the epochs and mutations of an answer: the rest is for checkpoint, VRF proof and heads proof.
_ROOM = MAX_RANGE_ANSWER - MAX_CHECKPOINT - 8 * 1024

_LOG = structlog.get_logger("kt_es.server")


class Indexer:
    """Finds the index of a label in the map, with its proof. Safe for threads.

    ``public`` is the public key of the VRF, 32 bytes. The proofs that were used last are kept.
    """

    def __init__(self, key: VrfPrivateKey) -> None:
        self._key = key
        self.public = key.public
        self._known = ByteCache[str, Located](KNOWN_BYTES, located_size)
        # libsodium computes without the lock of the interpreter, so several proofs are made at a time.
        self._threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="indices")

    def locate(self, label: str) -> Located:
        """Return the index (32 bytes) and the VRF proof (80 bytes) of a normalized label."""
        return self._known.get(label) or self._locate(label)

    def locate_many(self, labels: Sequence[str]) -> list[Located]:
        """Return what ``locate`` returns for each label. Proofs that are not kept are made side by side."""
        found = {label: self._known.get(label) for label in labels}
        missing = [label for label, known in found.items() if known is None]
        if len(missing) > 1:
            slices = [missing[first :: self._threads] for first in range(self._threads)]
            for part, located in zip(slices, self._pool.map(self._locate_all, slices), strict=True):
                found.update(zip(part, located, strict=True))
        return [found[label] or self._locate(label) for label in labels]

    def _locate_all(self, labels: Sequence[str]) -> list[Located]:
        return [self._locate(label) for label in labels]

    def _locate(self, label: str) -> Located:
        beta, proof = self._key.prove(label.encode())
        located = index_of(beta), proof
        self._known.put(label, located)
        return located

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def located_size(label: str, _located: Located) -> int:
    """Return the bytes that a label, its index and its VRF proof take in memory."""
    return sys.getsizeof(label) + _LOCATED_BYTES


@dataclass(frozen=True, slots=True)
class FoundLookup:
    """The answer to a lookup. ``profile`` is None if absent, erased, missing or not asked for.

    ``consistency`` leads from the size that the client trusts to that of the answer's checkpoint.
    """

    epoch: int
    answer: LookupAnswer
    profile: bytes | None
    consistency: tuple[bytes, ...]

    @property
    def body(self) -> LookupBody:
        return LookupBody(self.epoch, self.answer.encode(), self.profile, self.consistency)

    @property
    def result(self) -> str:
        """What was found, as ``result_of`` names it."""
        return result_of(self.answer.mutation, self.answer.opening, self.answer.erasure)


def result_of(mutation: Mutation | None, opening: bytes | None, erasure: ErasureProof | None) -> str:
    """Return ``found``, ``absent``, ``erased``, or ``missing`` if an opening is neither known nor erased."""
    if mutation is None:
        return "absent"
    if opening is not None:
        return "found"
    return "missing" if erasure is None else "erased"


class SlowError(Exception):
    """Only the event log has the answer, and the caller must not wait for it."""


class OpeningReader:
    """Finds the openings of commitments. It never returns a wrong opening."""

    def __init__(
        self, openings: Openings, log: Callable[[], EventLog], names: StreamNames, watch: LogWatch
    ) -> None:
        self._openings = openings
        self._log = log
        self._names = names
        self._watch = watch
        # Few threads, because a log that hangs may hold each longer than the deadline.
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="openings")

    def find(self, label: str, mutation: Mutation, *, waits: bool = True) -> Opening | None:
        """Return the opening of the entry of ``mutation``, None if its stream has none or an erased one.

        The result None is no proof of an erasure. Only the log of mutations proves that an opening was
        erased.

        Raises:
            UnavailableError: Only the event log has the answer, and it cannot be reached.
            SlowError: Only the event log has the answer, and the caller does not wait.
        """
        known = self._checked(label, mutation, self._openings.get(mutation.entry.index, mutation.entry_hash))
        if known is Missing.UNKNOWN:
            if not waits:
                raise SlowError
            known = self._end(mutation, self._begin(label, mutation))
        return known if isinstance(known, Opening) else None

    def find_many(self, wanted: Sequence[tuple[str, Mutation]]) -> list[Opening | None]:
        """Return what ``find`` returns for each label and its entry. Streams are read side by side.

        Raises ``UnavailableError`` as ``find`` does.
        """
        held = self._openings.get_many(
            [(mutation.entry.index, mutation.entry_hash) for _, mutation in wanted]
        )
        known = [
            self._checked(label, mutation, opening)
            for (label, mutation), opening in zip(wanted, held, strict=True)
        ]
        reading = [
            self._begin(label, mutation) if found is Missing.UNKNOWN else None
            for found, (label, mutation) in zip(known, wanted, strict=True)
        ]
        try:
            ended = [
                found if read is None else self._end(mutation, read)
                for found, read, (_, mutation) in zip(known, reading, wanted, strict=True)
            ]
        finally:
            for read in filter(None, reading):
                read.cancel()
        return [found if isinstance(found, Opening) else None for found in ended]

    def _checked(self, label: str, mutation: Mutation, known: Opening | Missing) -> Opening | Missing:
        """Return ``known``, the opening that this process has itself, if it opens the entry."""
        if isinstance(known, Opening) and not _opens(label, mutation, known):
            stream = self._names.openings(mutation.entry.index)
            _LOG.warning("an opening does not open its entry", stream=stream)
            return Missing.UNKNOWN
        return known

    def _begin(self, label: str, mutation: Mutation) -> Future[Opening | Missing]:
        """Begin to read the stream of the entry."""
        self._watch.check_readable()
        stream = self._names.openings(mutation.entry.index)
        is_true = functools.partial(_opens, label, mutation)
        return self._pool.submit(lambda: read_opening(self._log().read(stream), mutation.entry_hash, is_true))

    def _end(self, mutation: Mutation, reading: Future[Opening | Missing]) -> Opening | Missing:
        try:
            found = reading.result(DEADLINE)
        except FutureTimeoutError:
            reading.cancel()
            raise NotNowError("the event log does not answer; try again later") from None
        if isinstance(found, Opening):
            self._openings.keep(mutation.entry.index, found)
        return found

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _opens(label: str, mutation: Mutation, opening: Opening) -> bool:
    entry = mutation.entry
    return opens(entry.commitment, opening.opening, label, entry.version, opening.profile)


def answer_range(
    ledger: Ledger,
    committed: Committed,
    checkpoint: str,
    index: bytes,
    vrf_proof: bytes,
    *,
    first: int,
    last: int,
) -> RangeAnswer:
    """Return the entry at ``index`` in each of the epochs ``first`` to ``last``, or in as many as fit.

    An epoch with the same map as the epoch before it costs one read, of its head.

    Args:
        ledger: The ledger to read from.
        committed: The state to answer from. Both epochs are in it.
        checkpoint: The checkpoint of its log of heads, as a note.
        index: The index of the label, 32 bytes.
        vrf_proof: The VRF proof of the index, 80 bytes.
        first, last: The first and the last epoch, both included.
    """
    epochs: list[RangeEpoch] = []
    mutations: dict[bytes, tuple[int, Mutation]] = {}
    size = 0
    shown: tuple[bytes, MapProof, int | None] | None = None
    for smh, root in roots_from(ledger, map_root_at(ledger, committed, first), first, last):
        if shown is None or shown[0] != root.hash:
            proof, leaf = ledger.map.find(root, index)
            mutation = entry_at(ledger, root, leaf)
            at = None
            if mutation is not None:
                if mutation.entry_hash not in mutations:
                    mutations[mutation.entry_hash] = (len(mutations), mutation)
                    size += len(mutation.encode()) + 8
                at = mutations[mutation.entry_hash][0]
            shown = (root.hash, proof, at)
        size += len(smh) + 34 * (len(shown[1].siblings) + 2) + 32
        if epochs and size > _ROOM:
            break
        epochs.append(RangeEpoch(smh, shown[1], shown[2]))
    named = max((epoch.mutation for epoch in epochs if epoch.mutation is not None), default=-1) + 1
    kept = tuple(mutation for _, mutation in mutations.values())[:named]
    heads_proof = prove_range(ledger, committed, first - 1, [epoch.smh_bytes for epoch in epochs])
    return RangeAnswer(checkpoint, vrf_proof, kept, first, heads_proof, tuple(epochs))


def check_range(first: int, last: int) -> None:
    """Raise ``MalformedError`` unless the range has 1 to 256 epochs."""
    if last < first:
        raise MalformedError("last", f"is {last}, below first, which is {first}")
    if last - first >= MAX_RANGE:
        raise MalformedError(
            "last", f"names {last - first + 1} epochs; ask for at most {MAX_RANGE} at a time"
        )
