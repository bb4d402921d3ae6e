"""The ledger of a directory: its committed epoch, its configs, and the proofs of what it holds.

``fold.EpochFold`` makes an epoch of its items, and the epoch becomes visible by one atomic write: map, logs,
positions and standing together (docs/DESIGN.md, section 4, "Committing").

Every answer is about one ``Committed``: a reader takes ``ledger.committed`` once, and sees one epoch
entirely. The log of map heads has one leaf for each epoch: epoch ``e`` is leaf ``e - 1``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kt_es.epochs import Current, Standing
from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.configs import SignedConfig, verify_chain
from kt_es.formats.entries import Mutation, PublicKey
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.proofs import ErasureProof
from kt_es.ledger.pages import PageCache
from kt_es.ledger.rows import Committed
from kt_es.ledger.store import Store
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG, StoredEntry, Tables
from kt_es.merkle.log import ProofPlan, plan_consistency, plan_inclusion, plan_range
from kt_es.merkle.map import EMPTY_ROOT, LeafRef, Map, Root

# Changes of an epoch that are kept in memory before they are written: some 20 MB.
SLICE = 20_000


class Ledger:
    """The committed state over a store, for one writer and any number of reading threads.

    ``committed`` is replaced after the write that made it durable.
    """

    def __init__(self, store: Store, origin: str, pinned: PublicKey, slice_size: int = SLICE) -> None:
        """Open the ledger of the directory ``origin`` in ``store``.

        Args:
            pinned: The key that the reader knows the directory by: any signer key of its chain of configs
                (``check_pinned``).
            slice_size: See ``SLICE``.

        Raises:
            DivergenceError: The store is damaged, or another directory's.
        """
        self.store = store
        self.tables = Tables(store)
        self.pinned = pinned
        self.slice_size = slice_size
        self.map = Map(self.tables.pages, PageCache())
        # Whether lookups have to ask for erasures at all. The fold sets both when it accepts an erasure.
        self.has_erasures = not self.tables.erasures.is_empty()
        # The latest epoch known to have an erasure, committed or not; 0 before a fold has accepted any.
        self.last_erasure = 0
        self.committed = Committed(Standing(origin, pinned))
        self._load()

    def resume(self) -> None:
        """Read the committed state from the store again. Only the writer may call it, before it writes.

        A commit that failed for want of space may be stored nevertheless. Raises ``DiskFullError`` while
        nothing can be written, and ``DivergenceError`` if what is stored is damaged.
        """
        self.store.ensure_writable()
        self._load()

    def _load(self) -> None:
        stored = self.tables.states.committed(self.committed.standing.origin, self.pinned)
        self.committed = stored or self.committed
        self.tables.pages.upgrade(self.committed.root.version)
        self.oldest = self.tables.states.oldest()
        if self.oldest > max(1, self.committed.epoch):
            raise DivergenceError(
                f"the data directory is damaged: the oldest epoch that it keeps is {self.oldest}, the latest "
                f"is {self.committed.epoch}"
            )

    def begins_under(self, key: PublicKey) -> None:
        """Judge the directory's first config by ``key``. Only before the first epoch."""
        standing = replace(self.committed.standing, pinned=key)
        self.committed = replace(self.committed, standing=standing)

    def mutations_at(self, leaves: Sequence[LeafRef | None]) -> list[Mutation | None]:
        """Return the mutation behind each leaf of the map, None for None.

        Raises:
            DivergenceError: A mutation is missing, damaged, or not the one of its leaf.
        """
        keys = [(leaf.index, leaf.version) for leaf in leaves if leaf is not None]
        stored = iter(self.tables.entries.get_many(keys))
        return [None if leaf is None else _mutation_of(leaf, next(stored)) for leaf in leaves]

    def current(self, committed: Committed, indices: Sequence[bytes]) -> list[Current | None]:
        """Return what the map held at each index at the end of ``committed``'s epoch."""
        found = self.mutations_at(self.map.lookup_many(committed.root, indices))
        return [None if held is None else Current(held.entry, held.entry_hash) for held in found]

    def history(self, committed: Committed, index: bytes, after: int = 0) -> Iterator[tuple[int, Mutation]]:
        """Yield every ``(epoch, mutation)`` above version ``after`` that took effect at ``index``, in order.

        Versions only grow, so a binary search among the epochs finds the first one without reading those
        before it.
        """
        low, high = 1, committed.epoch + 1
        while after and low < high:
            middle = (low + high) // 2
            first = next(self.tables.entries.scan(index, middle), None)
            if first is None or first[2].mutation().entry.version > after:
                high = middle
            else:
                low = first[1] + 1
        for _, epoch, stored in self.tables.entries.scan(index, low):
            if epoch <= committed.epoch:
                yield epoch, stored.mutation()


def _mutation_of(leaf: LeafRef, stored: StoredEntry | None) -> Mutation:
    if stored is None:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} of epoch {leaf.version} is missing")
    try:
        mutation = stored.mutation()
    except MalformedError as error:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} is damaged: {error}") from None
    if mutation.entry_hash != leaf.entry_hash:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} is not the one in the map")
    return mutation


def config_chain(ledger: Ledger, committed: Committed) -> tuple[SignedConfig, ...]:
    """Return every config of the directory, the first one first, up to that in force for the coming epoch.

    Raises ``DivergenceError`` if the stored configs are incomplete or damaged.
    """
    try:
        chain = tuple(SignedConfig.decode(data) for data in ledger.tables.configs.up_to(committed.epoch))
    except MalformedError as error:
        raise DivergenceError(f"the data directory has a damaged config: {error}") from None
    in_force = committed.standing.config
    if not chain or in_force is None or chain[-1] != in_force:
        raise DivergenceError(
            "the data directory lacks configs; delete it, and it is built anew from the log"
        )
    return chain


def check_chain(chain: Sequence[SignedConfig], origin: str) -> None:
    """Raise ``DivergenceError`` unless ``chain`` begins ``origin`` and each config may follow the last.

    ``check_pinned`` checks that it is the chain of the right directory.
    """
    try:
        verify_chain(origin, chain)
    except VerificationError as error:
        raise DivergenceError(f"the data directory has another config than this directory: {error}") from None


def check_pinned(ledger: Ledger, *, in_force: bool = False) -> None:
    """Raise ``DivergenceError`` unless the pinned key signs for the directory that ``ledger`` follows.

    The pinned key may be the signer key of any config of the chain. Call this once everything that is
    published was replayed, since a rotation to the key may stand in any epoch. An empty ledger passes.

    Args:
        in_force: Require that the latest head is under the config of the pinned key or a later one. Without
            it, the next head may be the first such head.
    """
    committed = ledger.committed
    if committed.epoch:
        chain = config_chain(ledger, committed)
        config_hash = chain[-1].config.hash
        if in_force:
            config_hash = head_at(ledger, committed.epoch)[1].config_hash
        check_key(chain, committed.epoch, config_hash, ledger.pinned)


def check_key(chain: Sequence[SignedConfig], epoch: int, config_hash: bytes, pinned: PublicKey) -> None:
    """Raise ``DivergenceError`` unless a config of ``chain`` has the signer key ``pinned``.

    The config with ``config_hash`` must be that one or a later one. The chain ends with ``epoch``.
    """
    configs = [signed.config for signed in chain]
    first = next((at for at, config in enumerate(configs) if config.signer_key == pinned), None)
    if first is None:
        signers = dict.fromkeys(config.signer_key.id.hex() for config in configs)
        raise DivergenceError(
            f"the key {pinned.id.hex()} never was a signer key of {configs[0].origin}: its configs up to "
            f"epoch {epoch} name {', '.join(signers)}. "
            f"This is another directory than the one of that key, or an older state of it"
        )
    if all(config.hash != config_hash for config in configs[first:]):
        raise DivergenceError(
            f"the key {pinned.id.hex()} becomes the signer key of {configs[0].origin} after epoch {epoch}: "
            f"no head is signed under its config yet"
        )


def head_at(ledger: Ledger, epoch: int) -> tuple[HeadEvent, MapHead]:
    """Return the published head of a committed ``epoch``; ``DivergenceError`` if it cannot be read back."""
    event = ledger.tables.heads.event(epoch)
    try:
        return event, SignedMapHead.decode(event.smh_bytes).head
    except MalformedError as error:
        raise DivergenceError(
            f"the head of epoch {epoch} in the data directory is damaged: {error}"
        ) from None


def prove_head(ledger: Ledger, epoch: int, size: int) -> tuple[bytes, ...]:
    """Prove that the head of ``epoch`` is in the log of map heads of ``size`` (RFC 6962, 2.1.1)."""
    return _proof(ledger, HEADS_LOG, plan_inclusion(epoch - 1, size))


def prove_consistency(ledger: Ledger, log: bytes, size1: int, size2: int) -> tuple[bytes, ...]:
    """Prove that a log of ``size2`` continues the log of ``size1`` (RFC 6962, 2.1.2); no hashes for size 0.

    ``log`` is ``HEADS_LOG`` or ``MUTATIONS_LOG``; ``0 <= size1 <= size2``, else ValueError.
    """
    return () if size1 == 0 else _proof(ledger, log, plan_consistency(size1, size2))


def prove_range(ledger: Ledger, start: int, end: int, size: int) -> tuple[bytes, ...]:
    """Prove that the leaves ``start`` up to ``end`` (excluded) stand in the log of map heads of ``size``."""
    return _proof(ledger, HEADS_LOG, plan_range(start, end, size))


def _proof(ledger: Ledger, log: bytes, plan: ProofPlan) -> tuple[bytes, ...]:
    return tuple(plan.proof(ledger.tables.nodes.get_many(log, plan.nodes)))


def roots_from(ledger: Ledger, root: Root, first: int, last: int) -> Iterator[tuple[HeadEvent, Root]]:
    """Yield the head and the map of each epoch from ``first``, whose map is ``root``, up to ``last``.

    A map whose root is another than that of the epoch before was written in its own epoch.
    """
    for epoch in range(first, last + 1):
        event, head = head_at(ledger, epoch)
        if head.map_root != root.hash:
            root = Root(epoch, head.map_root, head.map_size)
        yield event, root


def map_root_at(ledger: Ledger, committed: Committed, epoch: int) -> Root:
    """Return the map at the end of ``epoch``, from 1 up to the epoch of ``committed``.

    A head has the hash of the root, not the epoch that wrote it. That is the first epoch with this root: a
    map never returns to an earlier state, since versions only grow.
    """
    if epoch == committed.epoch:
        return committed.root
    _, head = head_at(ledger, epoch)
    if head.map_size == 0:
        return EMPTY_ROOT
    low, high = 1, epoch
    while low < high:
        middle = (low + high) // 2
        if head_at(ledger, middle)[1].map_root == head.map_root:
            high = middle
        else:
            low = middle + 1
    return Root(low, head.map_root, head.map_size)


def prove_erasure(
    ledger: Ledger, committed: Committed, index: bytes, entry_hash: bytes, answered: int
) -> ErasureProof | None:
    """Prove that the opening of one entry was erased; None if it was not.

    ``answered`` is the epoch of the answer. The record is proven under the head of that epoch if the head
    covers the record, otherwise under the latest head.
    """
    if not ledger.has_erasures:
        return None
    erasure = next(ledger.tables.erasures.up_to(committed.epoch, index, entry_hash), None)
    if erasure is None:
        return None
    covering = answered if erasure.epoch <= answered else committed.epoch
    event, head = head_at(ledger, covering)
    inclusion = _proof(ledger, MUTATIONS_LOG, plan_inclusion(erasure.sequence, head.log_size))
    if covering == answered:
        return ErasureProof(erasure.record, inclusion, None, ())
    beside = prove_head(ledger, covering, committed.heads.size)
    return ErasureProof(erasure.record, inclusion, event.smh_bytes, beside)
