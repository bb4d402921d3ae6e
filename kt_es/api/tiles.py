"""The tiles of both logs (C2SP tlog-tiles). FORMATS, "Tiles"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from kt_es.api.models import Bounds, Text, Uint

TILE_MEDIA: Final = "application/octet-stream"
BUNDLES: Final = "entries/"
"""What ``tile`` begins with where entries are asked for, and not hashes."""


@dataclass(frozen=True, slots=True)
class TileParameters:
    """``tile`` is the rest of the path, such as ``0/x001/067`` or ``entries/000.p/5``."""

    tile: Annotated[str, Text(64, "0/000.p/1")]


@dataclass(frozen=True, slots=True)
class TileRequest:
    """Hashes of a tile, as gRPC asks for them."""

    log: Literal["heads", "mutations"]
    level: Annotated[int, Bounds(0, 63)]
    index: Uint
    width: Annotated[int, Bounds(1, 256)] = 256


@dataclass(frozen=True, slots=True)
class EntriesRequest:
    """Entries of a tile of level 0 without the first ``skip``, as gRPC asks for them."""

    log: Literal["heads", "mutations"]
    index: Uint
    width: Annotated[int, Bounds(1, 256)] = 256
    skip: Annotated[int, Bounds(0, 255)] = 0
