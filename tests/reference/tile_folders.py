"""Exported logs that are read as a server of tiles would serve them, and that lie where a test says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.tiles import bundle_path, decode_bundle, tile_path
from kt_es.merkle.tiles import TILE_WIDTH, Tile
from projections.tiles.export import TileExport
from projections.tiles.server import LogName
from tests.builders import ORIGIN
from tests.reference.signing import NAMES


def exported(folder: Path, log: EventLog) -> Path:
    """Export everything that ``log`` has to ``folder``, as ``kt export tiles`` does."""
    with closing(TileExport(folder, ORIGIN, NAMES)) as export:
        for _ in export.run(log):
            pass
    return folder


class FolderTiles:
    """``Tiles`` of a folder. ``change`` gets the name of each file and its bytes, and returns other ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: list[str] = []
        self.change: Callable[[str, bytes], bytes] = lambda _, data: data
        self.url = "http://tiles"

    def close(self) -> None: ...

    def _file(self, name: str) -> bytes:
        self.read.append(name)
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            raise UnavailableError(f"{self.url} has no {name}") from None
        return self.change(name, data)

    def checkpoint(self, log: LogName) -> bytes:
        return self._file(f"{log}/checkpoint")

    def tile(self, log: LogName, tile: Tile) -> bytes:
        try:
            return self._file(f"{log}/{tile_path(tile)}")
        except UnavailableError:
            return self._file(f"{log}/{tile_path(Tile(tile.level, tile.index))}")[: HASH_SIZE * tile.width]

    def bundle(self, log: LogName, index: int, width: int) -> list[bytes]:
        try:
            return decode_bundle(self._file(f"{log}/{bundle_path(index, width)}"), width)
        except UnavailableError:
            whole = self._file(f"{log}/{bundle_path(index)}")
            return decode_bundle(whole, TILE_WIDTH)[:width]
