"""The operator's web server: both logs of a universe as tiles, which are replaced as a whole.

The files are as the operator wants them. ``kt export tiles`` would refuse to write most of the lies.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.formats.heads import Checkpoint, HeadEvent
from kt_es.formats.notes import parse_note
from kt_es.formats.queue import decode_records
from kt_es.formats.tiles import CHECKPOINT, bundle_path, encode_bundle, tile_path
from kt_es.merkle.log import LogState
from kt_es.merkle.tiles import TILE_WIDTH, tiles_between
from tools.lies.universe import Universe


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


class Site:
    """A web server with the files of one universe at a time, at ``url``. It has none at first."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._shown: list[Path] = []
        base.mkdir()
        self._link = base / "site"
        handler = functools.partial(_Quiet, directory=str(base))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/site"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def write(
        self, universe: Universe, *, heads: list[bytes] | None = None, records: list[bytes] | None = None
    ) -> None:
        """Show ``universe``. ``heads`` and ``records``, data of events, replace those of the universe."""
        folder = self._base / str(len(self._shown))
        folder.mkdir()
        signed = [one.event.encode() for one in universe.epochs] if heads is None else heads
        events = [HeadEvent.decode(one) for one in signed]
        found = universe.record_events if records is None else records
        leaves = [leaf for event in found for leaf in decode_records(event)[1]]
        if events:
            smhs = [event.smh_bytes for event in events]
            _write(folder / "heads", smhs, smhs, events[-1].heads_checkpoint)
            # Whoever withholds records shows the checkpoint of those that are there.
            covered = [event for event in events if _size(event) <= len(leaves)]
            size = _size(covered[-1])
            # The checkpoint and the hashes are those of the universe, also where an entry is another one.
            text = covered[-1].mutations_checkpoint
            _write(folder / "mutations", leaves[:size], universe.records[:size], text)
        self._show(folder)

    def back(self) -> None:
        """Show again what was shown first."""
        self._show(self._shown[0])

    def _show(self, folder: Path) -> None:
        self._shown.append(folder)
        fresh = self._base / "fresh"
        fresh.symlink_to(folder.absolute())
        fresh.replace(self._link)


def _size(event: HeadEvent) -> int:
    return Checkpoint.parse(parse_note(event.mutations_checkpoint).text).size


def _write(folder: Path, entries: Sequence[bytes], hashed: Sequence[bytes], checkpoint: str) -> None:
    nodes = dict(LogState().append([log_leaf_hash(leaf) for leaf in hashed])[1])
    for tile in tiles_between(0, len(entries)):
        _put(folder / tile_path(tile), b"".join(nodes[node] for node in tile.nodes))
        if tile.level == 0:
            first = TILE_WIDTH * tile.index
            bundle = encode_bundle(entries[first : first + tile.width])
            _put(folder / bundle_path(tile.index, tile.width), bundle)
    _put(folder / CHECKPOINT, checkpoint.encode())


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
