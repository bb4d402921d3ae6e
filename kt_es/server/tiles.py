"""Both logs for anybody, as tiles: hashes from the tables, records from the event log."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable

from kt_es.api.operations import ProblemReason
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, RefusedError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.heads import LogName
from kt_es.formats.tiles import encode_bundle, parse_path
from kt_es.ledger.bytecache import ByteCache
from kt_es.ledger.recorded import RecordedItems
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.ledger.tiles import head_entries, tile_hashes
from kt_es.merkle.tiles import TILE_WIDTH, Tile, tile_at
from kt_es.server.handlers import LOGS, DirectoryReader
from kt_es.server.renewing import renewed

CACHED = 8 << 20
"""Bytes of entries that are kept for the next reader: many monitors ask for the newest tile."""
MAX_PLACES = 1024
"""Records events whose places are remembered: one for each reader that reads on from there."""


def _size(_: tuple[LogName, int], entries: list[bytes]) -> int:
    return sys.getsizeof(entries) + sum(map(sys.getsizeof, entries))


class TileReader:
    """Reads tiles of the committed epoch. Safe for threads. ``stream`` is that of the log of mutations."""

    def __init__(self, directory: DirectoryReader, log: Callable[[], EventLog], stream: str) -> None:
        self._directory = directory
        self._log = log
        self._stream = stream
        self._lock = threading.Lock()
        self._places: OrderedDict[int, int] = OrderedDict()  # revisions by number of the tile; guarded
        # The most entries of a tile that were read, by log and number of the tile. They never change.
        self._read: ByteCache[tuple[LogName, int], list[bytes]] = ByteCache(CACHED, _size)

    @property
    def renew(self) -> Callable[[], bool]:
        return self._directory.renew

    def read(self, log: LogName, path: str) -> bytes:
        """Return the file ``tile/<path>`` of a log.

        Raises ``RefusedError`` if there is no such name, and what ``hashes`` and ``entries`` raise.
        """
        try:
            tile, is_bundle = parse_path(f"tile/{path}")
        except MalformedError as error:
            raise RefusedError(ProblemReason.MALFORMED, error.problem, "tile") from None
        if is_bundle:
            return encode_bundle(self.entries(log, tile, "tile"))
        return b"".join(self.hashes(log, tile, "tile"))

    @renewed
    def hashes(self, log: LogName, tile: Tile, field: str) -> list[bytes]:
        """Return the hashes of ``tile``.

        Raises:
            RefusedError: The log is not that large. The error names the ``field``.
            UnavailableError: There is no epoch yet.
            UnverifiedRowError: A row is missing or wrong.
        """
        committed = self._covering(log, tile, field)
        return tile_hashes(self._directory.ledger, committed, LOGS[log], tile)

    @renewed
    def entries(self, log: LogName, tile: Tile, field: str) -> list[bytes]:
        """Return the entries of ``tile``, which is of level 0.

        Raises:
            RefusedError: The log is not that large. The error names the ``field``.
            UnavailableError: There is no epoch yet, or the event log, which has records, cannot be reached.
            UnverifiedRowError: A row is missing or wrong.
            DivergenceError: The event log has other records than were verified.
        """
        committed, place = self._covering(log, tile, field), (log, tile.index)
        known = self._read.get(place)
        if known is None or len(known) < tile.width:
            if LOGS[log] == HEADS_LOG:
                known = head_entries(self._directory.ledger, committed, tile)
            else:
                known = self._records(committed, tile)
            self._read.put(place, known)
        return known[: tile.width]

    def _covering(self, log: LogName, tile: Tile, field: str) -> Committed:
        """Return the committed state, whose log must have ``tile``."""
        committed = self._directory.committed()
        is_heads = LOGS[log] == HEADS_LOG
        widest = tile_at(tile.level, tile.index, (committed.heads if is_heads else committed.log).size)
        if widest is None or tile.width > widest.width:
            raise RefusedError(ProblemReason.UNKNOWN_EPOCH, f"the log of {log} is not that large", field)
        return committed

    def _records(self, committed: Committed, tile: Tile) -> list[bytes]:
        hashes = tile_hashes(self._directory.ledger, committed, MUTATIONS_LOG, tile)
        with self._lock:
            place = self._places.get(tile.index)
        records = RecordedItems(self._log(), self._stream, tile.index * TILE_WIDTH, place)
        taken = records.take(tile.width)
        if tile.width == TILE_WIDTH:
            with self._lock:
                self._places[tile.index + 1] = records.revision
                self._places.move_to_end(tile.index + 1)
                while len(self._places) > MAX_PLACES:
                    self._places.popitem(last=False)
        if hashes != [log_leaf_hash(record) for record in taken]:
            raise DivergenceError(
                f"the event log has other records in tile {tile.index} than were verified here"
            )
        return taken
