"""``kt bench signer``: mutations a second from the queue to a published head, through real processes."""

from __future__ import annotations

import time
from pathlib import Path

from kt_es.cli.trials.bench_directory import BenchDirectory
from kt_es.cli.trials.bench_report import Row
from kt_es.errors import KtError

DEADLINE = 300.0


def bench_signer(directory: Path, mutations: int = 30_000, runs: int = 3) -> list[Row]:
    """Measure ``runs`` of ``mutations`` new entries each, on one growing map.

    The time begins with the first append and ends with the head that has all entries. Signing is not in it.
    """
    bench = BenchDirectory(directory, min_interval=1.0, deadline=DEADLINE)
    try:
        if bench.signer.process is None:
            raise KtError("the signer was not started")
        rates, latencies = [], []
        for run in range(runs):
            events = bench.sign(run, mutations)
            started = time.perf_counter()
            bench.submit(events)
            last = bench.wait_for_entries(bench.first.map_size + (run + 1) * mutations)
            seconds = time.perf_counter() - started
            rates.append(mutations / seconds)
            latencies.append(seconds * 1e6 / mutations)
        peak = _peak_memory(bench.signer.process.pid)
        if last.map_size != bench.first.map_size + runs * mutations:
            raise KtError(f"{last.map_size} entries came out, {runs * mutations} went in")
    finally:
        bench.close()
    return [
        Row.of("mutations, queue to head", "mutations/s", rates, 3_000),
        Row.of("per mutation", "µs", latencies),
        Row.of("peak memory of the signer", "MB", [peak]),
    ]


def _peak_memory(pid: int) -> float:
    """Return the most memory that a process had resident, in MB; nan if the system does not report it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
