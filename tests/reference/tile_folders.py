"""Exported logs that are read as a server of tiles would serve them, and that lie where a test says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from kt_es.crypto.hashes import HASH_SIZE, log_leaf_hash
from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.heads import Checkpoint, LogName, sign_checkpoint
from kt_es.formats.notes import parse_note
from kt_es.formats.tiles import bundle_path, decode_bundle, encode_bundle, tile_path
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.log import LogState
from kt_es.merkle.tiles import TILE_WIDTH, Tile
from projections.auditor import audit, audit_epochs
from projections.tiles.export import TileExport
from projections.tiles.following import replayed_tiles
from tests import builders as b
from tests.builders import ORIGIN
from tests.reference.signed_streams import SignedStreams
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


def replay(tiles: FolderTiles, ledger: Ledger) -> list[int]:
    """The epochs that an audit commits."""
    done: list[int] = []
    report = audit_epochs(
        lambda observe, verifiers: replayed_tiles(
            tiles, ledger, observe, verifiers, patience=0, say=lambda _: None
        ),
        ledger,
        None,
        nothing="empty",
        now=lambda: b.START,
        progress=lambda head: done.append(head.epoch),
    )
    assert report.records == sum(report.verdicts.values())
    return done


def refused(tiles: FolderTiles, ledger: Ledger) -> KtError:
    with pytest.raises(KtError) as caught:
        replay(tiles, ledger)
    return caught.value


def by_log(streams: SignedStreams, pinned: str = "signer") -> Ledger:
    """The ledger that a replay from the event log makes."""
    ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.public(b.private_key(pinned)))
    audit(streams.log, NAMES, ledger, with_queue=False, now=lambda: b.START)
    return ledger


def tiles_of(folder: Path, streams: SignedStreams) -> FolderTiles:
    return FolderTiles(exported(folder, streams.log))


def changed(tiles: FolderTiles, name: str, change: Callable[[bytes], bytes]) -> FolderTiles:
    """Change one file, by a part of its name."""
    tiles.change = lambda found, data: change(data) if name in found else data
    return tiles


def resigned(name: str, key: str, **fields: object) -> Callable[[bytes], bytes]:
    """Sign a checkpoint of ``name`` by ``key``, with other fields."""

    def change(data: bytes) -> bytes:
        said = replace(Checkpoint.parse(parse_note(data).text), **fields)  # type: ignore[arg-type]
        return sign_checkpoint(said, f"{b.ORIGIN}/{name}", b.private_key(key)).encode()

    return change


def rewrite(tiles: FolderTiles, log: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Replace the leaves of a log of less than one tile, and sign its checkpoint."""
    folder = tiles.folder / log
    bundle = max((folder / "tile/entries/000.p").iterdir(), key=lambda path: int(path.name))
    leaves = change(decode_bundle(bundle.read_bytes(), int(bundle.name)))
    hashes = [log_leaf_hash(leaf) for leaf in leaves]
    (folder / f"tile/0/000.p/{len(leaves)}").write_bytes(b"".join(hashes))
    (folder / f"tile/entries/000.p/{len(leaves)}").write_bytes(encode_bundle(leaves))
    root = LogState().append(hashes)[0].root()
    changed(tiles, f"{log}/checkpoint", resigned(log, "signer", size=len(leaves), root=root))
