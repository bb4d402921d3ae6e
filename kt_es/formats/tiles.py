"""Names and contents of the files that publish a log. FORMATS, "Tiles". Source: C2SP tlog-tiles."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kt_es.errors import MalformedError
from kt_es.merkle.tiles import TILE_WIDTH, Tile

CHECKPOINT = "checkpoint"
MAX_ENTRY = (1 << 16) - 1
"""Bytes of an entry, at most."""

_LENGTH = 2
_MAX_LEVEL = 63
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


def tile_path(tile: Tile) -> str:
    """Return the name of a tile below the log's prefix, for instance ``tile/1/x001/x234/067.p/5``."""
    return f"tile/{tile.level}/{_place(tile.index, tile.width)}"


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    """Return the name of the bundle with the entries of tile ``index`` of level 0."""
    return f"tile/entries/{_place(index, width)}"


def parse_path(path: str) -> tuple[Tile, bool]:
    """Return the tile that ``path`` names, and whether it names the entries instead of the hashes.

    Raises ``MalformedError`` for every other name, and for a second name of the same tile.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise MalformedError("tile", "this is not the name of a tile")
    level, width = found["level"], int(found["width"] or TILE_WIDTH)
    index = int(found["index"].replace("x", "").replace("/", ""))
    is_bundle = level == "entries"
    tile = Tile(0 if is_bundle else int(level), index, width)
    if (
        tile.level > _MAX_LEVEL
        or width > TILE_WIDTH
        or path != (bundle_path(index, width) if is_bundle else tile_path(tile))
    ):
        raise MalformedError("tile", "this is not the one name of a tile")
    return tile, is_bundle


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return up to 256 entries, each behind its length of two bytes, big-endian.

    Raises ``MalformedError`` for an entry of more than 65,535 bytes.
    """
    if any(len(entry) > MAX_ENTRY for entry in entries):
        raise MalformedError("tile", f"an entry has more than {MAX_ENTRY} bytes")
    return b"".join(len(entry).to_bytes(_LENGTH) + entry for entry in entries)


def decode_bundle(data: bytes, count: int) -> list[bytes]:
    """Return the ``count`` entries of a bundle. Raises ``MalformedError`` unless it has exactly these."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH
        end = start + int.from_bytes(data[at:start])
        if start > len(data) or end > len(data):
            raise MalformedError("tile", f"entry {len(entries)} of a bundle is cut off")
        entries.append(data[start:end])
        at = end
    if len(entries) != count:
        raise MalformedError("tile", f"a bundle has {len(entries)} entries, not {count}")
    return entries


def _place(index: int, width: int) -> str:
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    place = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return place if width == TILE_WIDTH else f"{place}.p/{width}"
