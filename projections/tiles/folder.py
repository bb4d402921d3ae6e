"""The files of one log: its checkpoint, its tiles and its entries."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kt_es.crypto.hashes import HASH_SIZE, log_leaf_hash
from kt_es.errors import ConfigError, DivergenceError, MalformedError
from kt_es.formats.heads import MAX_CHECKPOINT, Checkpoint
from kt_es.formats.notes import parse_note
from kt_es.formats.tiles import CHECKPOINT, bundle_path, decode_bundle, encode_bundle, tile_path
from kt_es.merkle.log import LogState
from kt_es.merkle.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, state_from_tiles, tile_at, tiles_between
from kt_es.process.files import PUBLIC, replace_file

_BEGIN_ANEW = "remove it to begin anew, or name another folder"


@dataclass(frozen=True, slots=True)
class Step:
    """What entries add to a log: its new ``state`` and tiles, and entries from the open bundle on."""

    state: LogState
    tiles: Sequence[tuple[Tile, bytes]]
    entries: Sequence[bytes]


class TileFolder:
    """The files of one log below ``path``, continued by one process at a time.

    Attributes:
        state: The log as far as its files have it and its checkpoint says it.
    """

    def __init__(self, path: Path, origin: str) -> None:
        """Read how far the files reach; a folder that does not exist has an empty log.

        Raises:
            ConfigError: The folder holds another log, or its files do not make up its checkpoint.
        """
        self._path = path
        self._origin = origin
        checkpoint = self._checkpoint()
        edge = tile_at(0, checkpoint.size // TILE_WIDTH, checkpoint.size)
        try:
            self.state = state_from_tiles(checkpoint.size, self._read)
            self._open = [] if edge is None else self._entries(edge)
        except (MalformedError, OSError) as error:
            raise ConfigError(f"{path} cannot be continued: {error}; {_BEGIN_ANEW}") from None
        is_whole = edge is None or self._read(edge) == b"".join(map(log_leaf_hash, self._open))
        if not is_whole or self.state.root() != checkpoint.root:
            raise ConfigError(f"the tiles in {path} are not those of its checkpoint; {_BEGIN_ANEW}")

    def extended(self, entries: Sequence[bytes]) -> Step:
        """Compute what ``entries`` add to the log. Nothing is written."""
        state, created = self.state.append([log_leaf_hash(entry) for entry in entries])
        hashes = {node: value for node, value in created if node.level % TILE_HEIGHT == 0}
        tiles = []
        for tile in tiles_between(self.state.size, state.size):
            before = tile_at(tile.level, tile.index, self.state.size)
            known = b"" if before is None else self._read(before)
            new = tile.nodes[len(known) // HASH_SIZE :]
            tiles.append((tile, known + b"".join(hashes[node] for node in new)))
        return Step(state, tiles, [*self._open, *entries])

    def publish(self, step: Step, checkpoint: str) -> None:
        """Write the files of ``step``, and then the ``checkpoint``, which must be of ``step.state``."""
        first = self.state.size // TILE_WIDTH
        for tile, data in step.tiles:
            self._write(tile_path(tile), data)
            if tile.level == 0:
                at = TILE_WIDTH * (tile.index - first)
                entries = step.entries[at : at + tile.width]
                self._write(bundle_path(tile.index, tile.width), encode_bundle(entries))
        self._write(CHECKPOINT, checkpoint.encode())
        for tile, _ in step.tiles:
            if tile.width == TILE_WIDTH:
                # Whoever has an older checkpoint finds the whole tile, and looks for it there.
                self._remove_partial(tile_path(tile))
                self._remove_partial(bundle_path(tile.index) if tile.level == 0 else None)
        self.state = step.state
        self._open = list(step.entries[TILE_WIDTH * (step.state.size // TILE_WIDTH - first) :])

    def check(self, published: Checkpoint, state: LogState) -> None:
        """Raise ``DivergenceError`` unless ``published`` is the checkpoint of ``state``."""
        if (published.size, published.root) != (state.size, state.root()):
            raise DivergenceError(
                f"the checkpoint of {self._origin} at {published.size} has the root {published.root.hex()}, "
                f"and {self._path} with what the event log has {state.root().hex()} at {state.size}: "
                "the event log or the folder is not what it was"
            )

    def _checkpoint(self) -> Checkpoint:
        """Return the checkpoint in the folder, that of an empty log if it has none."""
        path = self._path / CHECKPOINT
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Checkpoint(self._origin, 0, LogState().root())
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        try:
            found = said_by(data[: MAX_CHECKPOINT + 1].decode())
        except (MalformedError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no checkpoint: {error}; {_BEGIN_ANEW}") from None
        if found.origin != self._origin:
            raise ConfigError(
                f"{path} is of the log {found.origin}, not of {self._origin}: name another folder"
            )
        return found

    def _read(self, tile: Tile) -> bytes:
        return (self._path / tile_path(tile)).read_bytes()

    def _entries(self, tile: Tile) -> list[bytes]:
        return decode_bundle((self._path / bundle_path(tile.index, tile.width)).read_bytes(), tile.width)

    def _write(self, name: str, data: bytes) -> None:
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data, PUBLIC)

    def _remove_partial(self, name: str | None) -> None:
        if name is not None:
            shutil.rmtree(self._path / f"{name}.p", ignore_errors=True)


def said_by(text: str) -> Checkpoint:
    """Return what a checkpoint says. Its signatures are not verified. Raises ``MalformedError``."""
    return Checkpoint.parse(parse_note(text).text)
