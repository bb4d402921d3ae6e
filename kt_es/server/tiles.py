"""Both logs for anybody, as tiles: hashes from the tables, records from the event log."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from kt_es.api.operations import ProblemReason
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, RefusedError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.tiles import encode_bundle, parse_path
from kt_es.ledger.recorded import RecordedItems
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.ledger.tiles import head_entries, tile_hashes
from kt_es.merkle.tiles import TILE_WIDTH, Tile, tile_at
from kt_es.server.handlers import LOGS, DirectoryReader
from kt_es.server.renewing import renewed

LogName = Literal["heads", "mutations"]
MAX_PLACES = 1024
"""Records events whose places are remembered: one for each reader that reads on from there."""


class TileReader:
    """Reads tiles of the committed epoch. Safe for threads. ``stream`` is that of the log of mutations."""

    def __init__(self, directory: DirectoryReader, log: Callable[[], EventLog], stream: str) -> None:
        self._directory = directory
        self._log = log
        self._stream = stream
        self._lock = threading.Lock()
        self._places: OrderedDict[int, int] = OrderedDict()  # revisions by number of the tile; guarded

    @property
    def renew(self) -> Callable[[], bool]:
        return self._directory.renew

    @renewed
    def read(self, log: LogName, path: str) -> bytes:
        """Return the file ``tile/<path>`` of a log.

        Raises:
            RefusedError: There is no such name, or the log is not that large.
            UnavailableError: There is no epoch yet, or records are asked for and the log cannot be reached.
            UnverifiedRowError: A row is missing or wrong.
            DivergenceError: The event log has other records than were verified.
        """
        try:
            tile, is_bundle = parse_path(f"tile/{path}")
        except MalformedError as error:
            raise RefusedError(ProblemReason.MALFORMED, error.problem, "tile") from None
        committed = self._directory.committed()
        nodes = LOGS[log]
        is_heads = nodes == HEADS_LOG
        widest = tile_at(tile.level, tile.index, (committed.heads if is_heads else committed.log).size)
        if widest is None or tile.width > widest.width:
            raise RefusedError(ProblemReason.UNKNOWN_EPOCH, f"the log of {log} is not that large", "tile")
        ledger = self._directory.ledger
        if not is_bundle:
            return b"".join(tile_hashes(ledger, committed, nodes, tile))
        entries = head_entries(ledger, committed, tile) if is_heads else self._records(committed, tile)
        return encode_bundle(entries)

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
