"""What serves the tiles of a directory over HTTP: a front end, or a web server with exported files.

Nothing that it says is trusted here. Sizes and times are bounded, redirects are not followed, and whoever
reads verifies.
"""

from __future__ import annotations

import ssl
from typing import Final, Protocol

from kt_es.client.transport import Transport
from kt_es.crypto.hashes import HASH_SIZE
from kt_es.errors import MalformedError, MisfitError, RefusedError
from kt_es.formats.heads import MAX_CHECKPOINT, MAX_SMH, LogName
from kt_es.formats.queue import MAX_RECORD
from kt_es.formats.tiles import CHECKPOINT, bundle_path, decode_bundle, tile_path
from kt_es.merkle.tiles import TILE_WIDTH, Tile

CONNECTIONS: Final = 8
"""Connections to a server at a time."""
_LENGTH: Final = 2  # bytes before each entry
_ENTRY: Final = {"heads": MAX_SMH + 128, "mutations": MAX_RECORD}
"""Bytes of an entry at most; an SMH has its signature beside the head."""


class Tiles(Protocol):
    """Where tiles come from.

    Raises:
        UnavailableError: By any call; the server cannot be reached, or has not what was asked for.
        MalformedError: By any call; a file does not follow its format.
    """

    @property
    def url(self) -> str: ...

    def checkpoint(self, log: LogName) -> bytes: ...

    def tile(self, log: LogName, tile: Tile) -> bytes:
        """Return the hashes of ``tile``, ``32 * tile.width`` bytes unless the server has it wrong."""

    def bundle(self, log: LogName, index: int, width: int) -> list[bytes]:
        """Return the ``width`` entries of tile ``index`` of level 0. Several threads may call it."""

    def close(self) -> None: ...


class TileServer:
    """``Tiles`` below ``url``. Safe for threads."""

    def __init__(self, url: str, *, timeout: float, verify: ssl.SSLContext | bool = True) -> None:
        """Ask ``url``, up to ``timeout`` seconds for a file. Raises ``ConfigError`` for a wrong address."""
        self._http = Transport(url, timeout=timeout, verify=verify, connections=CONNECTIONS)

    @property
    def url(self) -> str:
        return self._http.base_url

    def close(self) -> None:
        self._http.close()

    def checkpoint(self, log: LogName) -> bytes:
        # Every look at a server begins with it, so an outage is noticed here and at once.
        return self._fetch(f"{log}/{CHECKPOINT}", MAX_CHECKPOINT, patient=False)

    def tile(self, log: LogName, tile: Tile) -> bytes:
        size = HASH_SIZE * TILE_WIDTH
        whole = Tile(tile.level, tile.index)
        data, _ = self._widest(f"{log}/{tile_path(tile)}", f"{log}/{tile_path(whole)}", size)
        return data[: HASH_SIZE * tile.width]

    def bundle(self, log: LogName, index: int, width: int) -> list[bytes]:
        size = TILE_WIDTH * (_LENGTH + _ENTRY[log])
        asked, whole = f"{log}/{bundle_path(index, width)}", f"{log}/{bundle_path(index)}"
        data, is_whole = self._widest(asked, whole, size)
        return decode_bundle(data, TILE_WIDTH if is_whole else width)[:width]

    def _widest(self, asked: str, whole: str, limit: int) -> tuple[bytes, bool]:
        """Return the file ``asked``, or the whole one that has replaced it, and whether it is whole."""
        try:
            return self._fetch(asked, limit), asked == whole
        except _MissingError:
            if asked == whole:
                raise
        return self._fetch(whole, limit), True

    def _fetch(self, path: str, limit: int, *, patient: bool = True) -> bytes:
        try:
            return self._http.fetch(path, self._http.deadline(), limit=limit, patient=patient)
        except RefusedError as error:
            raise _MissingError(
                f"{self.url} has no {path} ({error.problem}): check the address; the files of both logs must "
                "be below it"
            ) from None
        except MalformedError as error:
            raise MisfitError(f"{self.url}: {error}; check the address") from None


class _MissingError(MisfitError):
    """The server refuses to answer, usually because it does not have the file."""
