"""The tiles of both logs (C2SP tlog-tiles). FORMATS, "Tiles"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from kt_es.api.models import Text

TILE_MEDIA: Final = "application/octet-stream"
BUNDLES: Final = "entries/"
"""What ``tile`` begins with where entries are asked for, and not hashes."""


@dataclass(frozen=True, slots=True)
class TileParameters:
    """``tile`` is the rest of the path, such as ``0/x001/067`` or ``entries/000.p/5``."""

    tile: Annotated[str, Text(64, "0/000.p/1")]
