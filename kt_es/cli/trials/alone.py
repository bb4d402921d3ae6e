"""Programs that ``kt bench all`` runs as processes of their own, so that their memory is theirs alone.

  python -m kt_es.cli.trials.alone map KT_TOML DATA COUNT TURNS
  python -m kt_es.cli.trials.alone replica KT_TOML DATA LOG
  python -m kt_es.cli.trials.alone tiles KT_TOML DATA URL

Each prints one JSON document.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from structlog.processors import JSONRenderer

from kt_es.cli.trials.bench_report import peak_memory
from kt_es.cli.trials.limits import hashes_per_second
from kt_es.config.settings import load_settings
from kt_es.crypto.hashes import HASH_SIZE
from kt_es.errors import KtError
from kt_es.eventstore.connecting import connect
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.pages import PageTable, page_cache
from kt_es.ledger.replay import Replay
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.rows import StateTable
from kt_es.ledger.tables import FAMILIES
from kt_es.ledger.verifiers import Verifiers
from kt_es.merkle.map import Map, Root
from kt_es.process.clock import collect_rarely
from kt_es.process.logs import configure
from projections.tiles.following import replayed_tiles
from projections.tiles.server import TileServer


def run_alone(*arguments: object) -> dict[str, Any]:
    """Run one of the programs, and return its document."""
    command = [sys.executable, "-m", "kt_es.cli.trials.alone", *map(str, arguments)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)  # noqa: S603
    except subprocess.CalledProcessError as error:
        raise KtError(f"{' '.join(command[2:5])} failed: {error}; see its message above") from None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_map(data: Path, root: Root, count: int, turns: int) -> dict[str, Any]:
    """Update ``count`` entries that the map in ``data`` has, in each of ``turns``.

    Apply, write and sync are timed. Beside each turn, one processor makes hashes alone.

    Returns:
        ``updates`` a second of each turn, ``processor``, the µs of processor time that each took, which
        other processes change less, ``hashing``, the updates a second if nothing but the necessary hashes
        took time, ``hashes``, how many an update needs, and ``memory``, the peak in MB.
    """
    with closing(RocksStore.open(data, FAMILIES)) as store:
        tree = Map(PageTable(store))
        found = {tree.leaf_near(root, os.urandom(HASH_SIZE)).index for _ in range(count * turns)}
        needed = necessary_hashes(tree, root, sorted(random.sample(sorted(found), min(count, len(found)))))
    # The pages that were read for that are no longer in memory when the store is opened again.
    updates, processor, hashing = [], [], []
    with closing(RocksStore.open(data, FAMILIES)) as store:
        table = PageTable(store)
        tree = Map(table, page_cache())
        chosen = random.sample(sorted(found), len(found))
        size = max(1, len(chosen) // turns)
        for turn in range(turns):
            slice_ = [(index, os.urandom(HASH_SIZE)) for index in chosen[turn * size : (turn + 1) * size]]
            version = root.version + 1
            used, began = time.process_time(), time.perf_counter()
            root, pages = tree.apply(root, version, slice_)
            store.write(table.put(version, pages))
            updates.append(len(slice_) / (time.perf_counter() - began))
            processor.append((time.process_time() - used) * 1e6 / len(slice_))
            hashing.append(hashes_per_second() / needed)
    return {
        "updates": updates,
        "processor": processor,
        "hashing": hashing,
        "hashes": needed,
        "memory": peak_memory(),
    }


def necessary_hashes(tree: Map, root: Root, indices: Sequence[bytes]) -> float:
    """Return how many hashes an update needs if the sorted ``indices`` are updated together.

    These are the leaves, and the inner nodes above them, of which neighbours share those near the top.
    """
    hashes, before, above = 0, b"", 0
    for index, proof in zip(indices, (tree.prove(root, index) for index in indices), strict=True):
        depth = len(proof.siblings)
        shared = min(depth, above, _common_bits(before, index) + 1) if before else 0
        hashes += 1 + depth - shared
        before, above = index, depth
    return hashes / len(indices)


def _common_bits(first: bytes, second: bytes) -> int:
    differing = int.from_bytes(first) ^ int.from_bytes(second)
    return 8 * len(first) - differing.bit_length()


def measure_replica(config: Path, data: Path, where: str, *, by_tiles: bool = False) -> dict[str, Any]:
    """Replay what was published after the state in ``data``, with every signature verified.

    Args:
        where: The connection string of the event log, or with ``by_tiles`` the address of a server of tiles.

    Returns:
        ``records``, the ``seconds`` that they took, with the start of the processes that verify, and
        ``memory``, the peak in MB of this process.
    """
    settings = load_settings(config)
    with closing(RocksStore.open(data, FAMILIES)) as store, Verifiers(settings.origin) as verifiers:
        ledger = Ledger(store, settings.origin, settings.pinned)
        before = ledger.committed.log.size
        began = time.perf_counter()
        if by_tiles:
            with closing(TileServer(where, timeout=30.0)) as tiles:
                _take(replayed_tiles(tiles, ledger, _ignore, verifiers, patience=30.0, say=_ignore))
        else:
            with closing(connect(where)) as log:
                _take(Replay(log, settings.names, ledger, verifiers=verifiers).catch_up())
        seconds = time.perf_counter() - began
        records = ledger.committed.log.size - before
    return {"records": records, "seconds": seconds, "memory": peak_memory()}


def _take(epochs: Iterable[object]) -> None:
    for _ in epochs:
        pass


def _ignore(_: object) -> None: ...


def committed_root(config: Path, data: Path) -> Root:
    """Return the root of the map of the committed epoch in ``data``."""
    settings = load_settings(config)
    with closing(RocksStore.view(data, FAMILIES)) as store:
        state = StateTable(store).committed(settings.origin, settings.pinned)
    if state is None:
        raise KtError(f"{data} has no committed epoch")
    return state.root


def main(arguments: Sequence[str]) -> None:
    which, config, data, *others = arguments
    # As `kt` itself does.
    collect_rarely()
    configure("kt bench", sys.stderr, [JSONRenderer()], logging.WARNING, serves=False)
    if which == "map":
        count, turns = map(int, others)
        found = measure_map(Path(data), committed_root(Path(config), Path(data)), count, turns)
    else:
        found = measure_replica(Path(config), Path(data), others[0], by_tiles=which == "tiles")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
