"""Tiles and entries of the two logs as the committed state has them, for readers of C2SP tlog-tiles."""

from __future__ import annotations

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import UnverifiedRowError
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.proofs import log_proof, twice
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import HEADS_LOG
from kt_es.merkle.tiles import Tile, log_root_with, plan_tile
from kt_es.merkle.verify import require_root


def tile_hashes(ledger: Ledger, committed: Committed, log: bytes, tile: Tile) -> list[bytes]:
    """Return the hashes of ``tile``, which ``log`` of ``committed`` has: ``HEADS_LOG`` or ``MUTATIONS_LOG``.

    Those of a shared store are verified. Raises ``UnverifiedRowError`` for missing and wrong ones.
    """
    whole = committed.heads if log == HEADS_LOG else committed.log

    def attempt(again: bool) -> list[bytes]:
        found = ledger.tables.nodes.get_many(log, tile.nodes, again=again)
        hashes = [value for value in found if value is not None]
        if len(hashes) != tile.width:
            raise UnverifiedRowError(f"tile {tile.index} of level {tile.level} of a log lacks nodes")
        if ledger.store.is_shared:
            proof = log_proof(ledger, log, plan_tile(tile, whole.size), again=again)
            require_root("tile", log_root_with(tile, hashes, whole.size, proof), whole.root())
        return hashes

    return twice(ledger, attempt)


def head_entries(ledger: Ledger, committed: Committed, tile: Tile) -> list[bytes]:
    """Return the encoded SMHs whose hashes ``tile`` has, a tile of level 0 of the log of heads.

    Raises ``UnverifiedRowError``.
    """

    def attempt(again: bool) -> list[bytes]:
        first = tile.nodes[0].offset + 1
        events = [ledger.tables.heads.event(first + at, again=again) for at in range(tile.width)]
        entries = [event.smh_bytes for event in events]
        if tile_hashes(ledger, committed, HEADS_LOG, tile) != [log_leaf_hash(entry) for entry in entries]:
            raise UnverifiedRowError(f"heads of tile {tile.index} are not those of its hashes")
        return entries

    return twice(ledger, attempt)
