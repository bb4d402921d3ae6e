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
from kt_es.errors import (
    AnotherDirectoryError,
    ConfigError,
    DivergenceError,
    KtError,
    MalformedError,
    UnavailableError,
    UnverifiedRowError,
    VerificationError,
)
from kt_es.formats.configs import SignedConfig, verify_chain
from kt_es.formats.entries import Mutation, PublicKey
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.ledger.pages import CACHE_BYTES, page_cache
from kt_es.ledger.rows import Committed
from kt_es.ledger.shared_tables import tables_of
from kt_es.ledger.store import Store
from kt_es.ledger.tables import StoredEntry, mutation_of
from kt_es.merkle.map import LeafRef, Map, Root

# Changes of an epoch that are kept in memory before they are written: some 20 MB.
SLICE = 20_000


class Ledger:
    """The committed state over a store, for one writer and any number of reading threads.

    ``committed`` is replaced after the write that made it durable.
    """

    def __init__(
        self,
        store: Store,
        origin: str,
        pinned: PublicKey,
        slice_size: int = SLICE,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Open the ledger of the directory ``origin`` in ``store``.

        Args:
            pinned: The key that the reader knows the directory by: any signer key of its chain of configs
                (``check_pinned``).
            slice_size: See ``SLICE``.
            cache_bytes: Memory for verified pages.

        Raises:
            ConfigError: The store is another directory's.
            DivergenceError: It is damaged.
        """
        self.store = store
        self.tables = tables_of(store)
        self.pinned = pinned
        self.slice_size = slice_size
        # Whether the index of decisions is kept. Front ends answer from their own or that of a shared store.
        self.keeps_decisions = store.is_shared
        self.map = Map(self.tables.pages, page_cache(cache_bytes))
        # Whether lookups have to ask for erasures at all. The fold sets both when it accepts an erasure.
        self.has_erasures = False
        # The latest epoch known to have an erasure, committed or not; 0 before a fold has accepted any.
        self.last_erasure = 0
        self.committed = Committed(Standing(origin, pinned))
        self._load()
        if self._has_rows:
            self.has_erasures = not self.tables.erasures.is_empty()

    @property
    def passing(self) -> tuple[type[KtError], ...]:
        """The errors after which the same reads may succeed later."""
        return (UnavailableError, UnverifiedRowError) if self.store.is_shared else (UnavailableError,)

    def resume(self) -> None:
        """Read the committed state from the store again. Only the writer may call it, before it writes.

        A commit that failed because the disk was full may be stored nevertheless. Raises ``DiskFullError``
        while the disk is full, and ``DivergenceError`` if the stored state is damaged.
        """
        self.store.ensure_writable()
        self._load()

    def reread(self) -> None:
        """Take the state that another process, the writer, has committed to this store.

        Readers in other threads go on. The caller has made the store read on (``FollowedStore``).

        Raises:
            DivergenceError: The store has an earlier epoch than before, or is damaged.
        """
        stored = self.tables.states.committed(self.committed.standing.origin, self.pinned)
        epoch = 0 if stored is None else stored.epoch
        if epoch < self.committed.epoch:
            raise DivergenceError(
                f"the data directory went back from epoch {self.committed.epoch} to {epoch}: another took "
                "its place"
            )
        self.oldest = self.tables.states.oldest()
        if stored is not None and epoch > self.committed.epoch:
            # Before the state, so that no erasure of these epochs is overlooked.
            self.has_erasures = not self.tables.erasures.is_empty()
            self.committed = stored

    def _load(self) -> None:
        try:
            stored = self.tables.states.committed(self.committed.standing.origin, self.pinned)
        except AnotherDirectoryError as error:
            raise ConfigError(f"{error}: name another data directory, with --data or in kt.toml") from None
        if self.tables.heads.are_elsewhere:
            raise ConfigError(
                "the map of this data directory is in a shared store: name the store in kt.toml ([store] "
                "shared), or delete the directory, and it is built from the log. `kt store check` examines "
                "the shared store"
            )
        self.committed = stored or self.committed
        self.tables.pages.upgrade(self.committed.root.version)
        self.oldest = self.tables.states.oldest() if self._has_rows else 1
        if not self.store.is_shared and self.oldest > max(1, self.committed.epoch):
            raise DivergenceError(
                f"the data directory is damaged: the oldest epoch that it keeps is {self.oldest}, the latest "
                f"is {self.committed.epoch}"
            )

    @property
    def _has_rows(self) -> bool:
        """Whether the store has to be read now. Before the first epoch ``Adoption`` reads a shared store."""
        return self.committed.epoch > 0 or not self.store.is_shared

    def begins_under(self, key: PublicKey) -> None:
        """Judge the directory's first config by ``key``. Only before the first epoch."""
        standing = replace(self.committed.standing, pinned=key)
        self.committed = replace(self.committed, standing=standing)

    def mutations_at(self, root: Root, leaves: Sequence[LeafRef | None]) -> list[Mutation | None]:
        """Return the mutation behind each leaf of the map at ``root``, None for None.

        Raises:
            UnverifiedRowError: A mutation is missing, damaged, or not the one of its leaf.
        """
        wanted = [leaf for leaf in leaves if leaf is not None]
        stored = iter(self.tables.entries.get_many(wanted) if wanted else ())
        return [None if leaf is None else self._mutation_of(root, leaf, next(stored)) for leaf in leaves]

    def _mutation_of(self, root: Root, leaf: LeafRef, stored: StoredEntry | None) -> Mutation:
        try:
            return mutation_of(leaf, stored)
        except UnverifiedRowError:
            again, row = self.read_again(root, leaf)
            return mutation_of(again, row)

    def read_again(self, root: Root, leaf: LeafRef) -> tuple[LeafRef, StoredEntry | None]:
        """Return the leaf of the map at ``root`` at the index of ``leaf``, and its row, both by a quorum.

        For a leaf whose row was not found or is wrong. No hash covers the version in a leaf, by which a row
        is found, so a page with a wrong one may be in memory.
        """
        again = self.map.lookup_again(root, leaf.index)
        if again is None or again.entry_hash != leaf.entry_hash:
            raise DivergenceError(f"the map has another entry at index {leaf.index.hex()} than before")
        return again, self.tables.entries.get_many([again], again=True)[0]

    def current(self, committed: Committed, indices: Sequence[bytes]) -> list[Current | None]:
        """Return what the map held at each index at the end of ``committed``'s epoch."""
        found = self.mutations_at(committed.root, self.map.lookup_many(committed.root, indices))
        return [None if held is None else Current(held.entry, held.entry_hash) for held in found]

    def history(self, committed: Committed, index: bytes, after: int = 0) -> Iterator[tuple[int, Mutation]]:
        """Yield each ``(epoch, mutation)`` above version ``after`` that took effect at ``index``."""
        leaf = self.map.lookup(committed.root, index)
        return iter(()) if leaf is None else self.tables.entries.history(leaf, after)


def config_chain(ledger: Ledger, committed: Committed) -> tuple[SignedConfig, ...]:
    """Return every config of the directory, the first one first, up to that in force for the coming epoch.

    Raises ``UnverifiedRowError`` if the stored configs are incomplete or damaged.
    """
    try:
        chain = ledger.tables.configs.chain(committed)
        if ledger.store.is_shared:
            verify_chain(committed.standing.origin, chain)
            return chain
    except VerificationError as error:
        raise UnverifiedRowError(
            f"the shared store lacks configs, or has wrong ones ({error}): `kt store rebuild` fills it "
            "from the log"
        ) from None
    except MalformedError as error:
        raise UnverifiedRowError(f"the data directory has a damaged config: {error}") from None
    in_force = committed.standing.config
    if not chain or in_force is None or chain[-1] != in_force:
        raise UnverifiedRowError(
            "the data directory lacks configs; delete it, and it is built anew from the log"
        )
    return chain


def check_chain(chain: Sequence[SignedConfig], origin: str) -> None:
    """Raise ``UnverifiedRowError`` unless ``chain`` begins ``origin`` and each config may follow the last.

    ``check_pinned`` checks that it is the chain of the right directory.
    """
    try:
        verify_chain(origin, chain)
    except VerificationError as error:
        raise UnverifiedRowError(
            f"the data directory has another config than this directory: {error}"
        ) from None


def check_pinned(ledger: Ledger, *, in_force: bool = False) -> None:
    """Raise ``DivergenceError`` unless the pinned key signs for the directory that ``ledger`` follows.

    The pinned key may be the signer key of any config of the chain. Call this once everything that is
    published was replayed, since a rotation to the key may stand in any epoch. An empty ledger passes.

    Args:
        in_force: Require that the latest head is under the config of the pinned key or a later config. By
            default the next head may be the first such head.
    """
    committed = ledger.committed
    if committed.epoch:
        chain = config_chain(ledger, committed)
        config_hash = chain[-1].config.hash
        if in_force:
            config_hash = last_head(ledger)[1].config_hash
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


def require_epoch(ledger: Ledger) -> None:
    """Raise ``ConfigError`` if ``ledger`` has no epoch yet."""
    if ledger.committed.epoch == 0:
        here, first = "the data directory", "its process"
        if ledger.store.is_shared:
            here, first = "the shared store", "the signer"
        raise ConfigError(f"{here} has no epoch yet: start {first} first")


def last_head(ledger: Ledger) -> tuple[HeadEvent, MapHead]:
    """Return the head of the committed epoch. Every process keeps this head in its own store."""
    epoch = ledger.committed.epoch
    event = ledger.tables.heads.event(epoch)
    return event, decoded_head(epoch, event.smh_bytes).head


def decoded_head(epoch: int, smh: bytes) -> SignedMapHead:
    """Decode the stored SMH of an epoch; ``UnverifiedRowError`` if it is damaged."""
    try:
        return SignedMapHead.decode(smh)
    except MalformedError as error:
        raise UnverifiedRowError(
            f"the head of epoch {epoch} in the data directory is damaged: {error}"
        ) from None
