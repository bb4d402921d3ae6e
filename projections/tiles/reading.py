"""Both logs on a server of tiles: their checkpoints, and their leaves, verified up to the checkpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, MisfitError, VerificationError
from kt_es.formats.heads import Checkpoint, LogName
from kt_es.formats.notes import Note, parse_note
from kt_es.merkle.tiled import TiledLog
from kt_es.merkle.tiles import TILE_WIDTH
from projections.tiles.server import Tiles

AHEAD: Final = 8
"""Bundles of entries that are fetched ahead, which bounds the memory: 36 MB of the largest records."""
FETCHERS: Final = 4
"""How many files are fetched at a time: as many bundles as a front end lets one address ask for."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A checkpoint as the server shows it. Neither ``note`` nor what is ``said`` in it is verified."""

    log: LogName
    note: Note
    said: Checkpoint


def said_of(data: bytes) -> int:
    """Return the size that a checkpoint says, unverified; 0 if it is none."""
    with suppress(MalformedError):
        return Checkpoint.parse(parse_note(data).text).size
    return 0


class TiledLogs:
    """The two logs that ``tiles`` has, for one thread. Close it after use, and before ``tiles``.

    Every method raises what ``Tiles`` raises as ``UnavailableError``.
    """

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        self._fetching = ThreadPoolExecutor(FETCHERS, "tiles")

    @property
    def url(self) -> str:
        return self._tiles.url

    def close(self) -> None:
        self._fetching.shutdown(cancel_futures=True)

    def shown(self, log: LogName, origin: str) -> Shown:
        """Return the checkpoint of ``log``, whose origin must be ``origin``.

        Raises ``MisfitError`` for anything but a checkpoint, and ``VerificationError`` for another log's.
        """
        data = self._tiles.checkpoint(log)
        try:
            note = parse_note(data)
            said = Checkpoint.parse(note.text)
        except MalformedError as error:
            # Nobody has signed this. It may be the page of a proxy, so it says nothing about the directory.
            raise MisfitError(
                f"{self._tiles.url}: {log}/checkpoint is no checkpoint ({error}); check the address"
            ) from None
        if said.origin != origin:
            raise VerificationError(
                "checkpoint",
                f"{log}/checkpoint at {self._tiles.url} is of the log {said.origin}, not of {origin}: check "
                "the address and the verifier key",
            )
        return Shown(log, note, said)

    def tiled(self, shown: Shown) -> TiledLog:
        """Return the log of a checkpoint. Raises ``DivergenceError`` if its tiles do not make it up."""
        try:
            return TiledLog(shown.said.size, shown.said.root, partial(self._tiles.tile, shown.log))
        except (MalformedError, VerificationError) as error:
            raise self.wrong(shown.log, error) from None

    def wrong(self, log: LogName, error: MalformedError | VerificationError) -> DivergenceError:
        """Return the error for a file that is not the one of the checkpoint."""
        return DivergenceError(
            f"log of {log}: the tiles at {self._tiles.url} are not those of its checkpoint: {error.problem}"
        )

    def leaf(self, log: LogName, tiled: TiledLog, leaf: int) -> bytes:
        """Return one leaf. Raises ``DivergenceError``."""
        with_rest = self.entries(log, tiled, leaf)
        try:
            return next(with_rest)
        finally:
            with_rest.close()

    def entries(self, log: LogName, tiled: TiledLog, start: int) -> Generator[bytes, None, None]:
        """Yield the verified leaves of a log from number ``start`` on. Bundles are fetched ahead.

        Raises ``DivergenceError`` for a leaf that is not the one of the checkpoint.
        """
        size = tiled.state.size
        indices = iter(range(start // TILE_WIDTH, -(-size // TILE_WIDTH)))
        fetched: deque[tuple[int, Future[list[bytes]]]] = deque()

        def fetch() -> None:
            for index in indices:
                width = min(TILE_WIDTH, size - TILE_WIDTH * index)
                fetched.append((index, self._fetching.submit(self._tiles.bundle, log, index, width)))
                if len(fetched) == AHEAD:
                    return

        try:
            fetch()
            while fetched:
                index, bundle = fetched.popleft()
                try:
                    entries = bundle.result()
                    tiled.check_leaves(index, [log_leaf_hash(entry) for entry in entries])
                except (MalformedError, VerificationError) as error:
                    raise self.wrong(log, error) from None
                fetch()
                yield from entries[max(0, start - TILE_WIDTH * index) :]
        finally:
            for _, bundle in fetched:
                bundle.cancel()
