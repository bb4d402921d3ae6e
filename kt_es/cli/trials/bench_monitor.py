"""``kt bench monitor``: both logs replayed from nothing, over tiles and over the event log by turns."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

from kt_es.cli.addresses import free_address
from kt_es.cli.trials.alone import run_alone
from kt_es.cli.trials.asking import until_ready
from kt_es.cli.trials.bench_report import Row
from kt_es.cli.trials.bench_signer import STEP, BenchDirectory, stop
from kt_es.cli.trials.limits import Ed25519Limit
from kt_es.config.settings import FILE_NAME
from kt_es.errors import KtError
from kt_es.formats.tiles import CHECKPOINT
from kt_es.ledger.verifiers import usable_processors
from projections.tiles.export import TileExport

LIMIT = 0.5
"""The least rate over tiles, as a part of the signatures/s that two processors verify and do nothing else."""
PART = 10
"""The memory is measured at the number of entries, and at this part of it before."""

Measured = dict[str, dict[str, float]]


def bench_monitor(
    directory: Path, entries: int, runs: int = 3, *, note: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Replay a directory of ``entries``, each a mutation with one signature, in ``runs`` by turns.

    Each replay is a process of its own with an empty data directory, and verifies every signature. The tiles
    are files on a static web server beside it. The signer is stopped meanwhile. Before each turn all
    processors verify signatures and do nothing else.
    """
    with closing(BenchDirectory(directory, min_interval=1.0, deadline=1_800.0)) as bench:
        monitors = _Monitors(directory, bench)
        monitors.fill(max(1, entries // PART))
        monitors.export()
        first = monitors.replay_tiles()
        note(f"{monitors.entries:,} entries: {first['memory']:.0f} MB over tiles")
        monitors.fill(entries)
        # It would publish another epoch, so it stops before the logs are exported.
        stop(bench.signer)
        monitors.export()
        turns, limits = [], []
        with closing(Ed25519Limit()) as alone:
            for _ in range(runs):
                limits.append(alone.measure())
                turns.append(monitors.turn())
                note(f"{monitors.entries:,} entries: {_rate(turns[-1], 'tiles'):,.0f} records/s over tiles")
    bound = LIMIT * median(limits) * min(2, usable_processors()) / usable_processors()
    rates = {source: [_rate(turn, source) for turn in turns] for source in ("tiles", "log")}
    return [
        Row.of("over tiles", "mutations/s", rates["tiles"], bound),
        Row.of("over the event log", "mutations/s", rates["log"]),
        Row.of("Ed25519 alone, all processors", "signatures/s", limits),
        *(
            Row.of(f"share of that limit, {source}", "%", _shares(rates[source], limits))
            for source in ("tiles", "log")
        ),
        Row.of("entries", "entries", [float(monitors.entries)]),
        Row.of("peak memory over tiles", "MB", [turn["tiles"]["memory"] for turn in turns]),
        Row.of(f"the same, 1/{PART} of the entries", "MB", [first["memory"]]),
        Row.of("peak memory over the event log", "MB", [turn["log"]["memory"] for turn in turns]),
    ]


def _rate(turn: Measured, source: str) -> float:
    return turn[source]["records"] / turn[source]["seconds"]


def _shares(rates: list[float], limits: list[float]) -> list[float]:
    return [100 * rate / most for rate, most in zip(rates, limits, strict=True)]


class _Monitors:
    """Fills a directory, and replays it."""

    def __init__(self, base: Path, bench: BenchDirectory) -> None:
        self._base = base
        self._bench = bench
        self._batch = 0
        self.entries = 0

    def fill(self, entries: int) -> None:
        """Bring ``entries`` into the map."""
        while self.entries < entries:
            count = min(STEP, entries - self.entries)
            self._bench.submit(self._bench.sign(self._batch, count))
            self._batch += 1
            self.entries += count
        self._bench.wait_for_entries(self.entries)

    def export(self) -> None:
        """Write what is published now as tiles."""
        with closing(
            TileExport(self._base / "tiles", self._bench.settings.origin, self._bench.settings.names)
        ) as export:
            self._bench.export(export)

    def turn(self) -> Measured:
        """Replay everything over tiles and over the event log."""
        found = {"tiles": self.replay_tiles(), "log": self._replay("replica", self._bench.uri)}
        if {one["records"] for one in found.values()} != {found["tiles"]["records"]}:
            raise KtError(f"a replay has other records than the other: {found}; report it")
        return found

    def replay_tiles(self) -> dict[str, float]:
        """Replay everything over tiles."""
        with _web_server(self._base / "tiles") as url:
            return self._replay("tiles", url)

    def _replay(self, which: str, address: str) -> dict[str, float]:
        data = self._base / "replayed"
        try:
            found = run_alone(which, self._base / FILE_NAME, data, address)
        finally:
            shutil.rmtree(data, ignore_errors=True)
        if found["records"] < self.entries:
            raise KtError(f"{found['records']} records were replayed, there are {self.entries}; report it")
        return {name: float(value) for name, value in found.items()}


@contextmanager
def _web_server(folder: Path) -> Iterator[str]:
    """Serve ``folder`` by the web server of Python, in a process of its own."""
    where = free_address()
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
        [sys.executable, "-m", "kt_es.cli.trials.static", str(folder), where.host, str(where.port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # A replay that finds nobody waits for half a second.
        until_ready(process, where, f"/heads/{CHECKPOINT}", "the web server")
        yield f"http://{where}"
    finally:
        process.kill()
        process.wait()
