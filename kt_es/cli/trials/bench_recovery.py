"""``kt bench recovery``: how soon signer and front end are back, with their data and without."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx

from kt_es.cli.addresses import free_address
from kt_es.cli.supervisor import Child
from kt_es.cli.trials.bench_report import Row
from kt_es.cli.trials.bench_signer import BenchDirectory
from kt_es.errors import KtError

ENTRIES = 1_000_000
RESTART_LIMIT = 2.0  # seconds
REBUILD_LIMIT = 10_000  # records/s
STEP = 100_000
DEADLINE = 1_800.0
STOP_SECONDS = 60.0


def bench_recovery(directory: Path, entries: int = ENTRIES, runs: int = 3) -> list[Row]:
    """Measure ``runs`` restarts of each process with ``entries`` in the map, and one rebuild from the logs.

    The signer is back when a head decides what was queued meanwhile, and the front end when it is ready. The
    start of Python is part of both times.
    """
    bench = _RecoveryBench(directory)
    try:
        bench.fill(entries)
        signer = [bench.restart_signer() for _ in range(runs)]
        frontend = [bench.restart_frontend() for _ in range(runs)]
        records, rebuild = bench.rebuild_signer()
    finally:
        bench.close()
    return [
        Row.of("restart of the signer", "s", signer, RESTART_LIMIT),
        Row.of("restart of the front end", "s", frontend, RESTART_LIMIT),
        Row.of("rebuild from the logs", "records/s", [records / rebuild], REBUILD_LIMIT),
        Row.of("rebuild, whole", "s", [rebuild]),
        Row.of("entries", "entries", [float(bench.entries)]),
    ]


class _RecoveryBench:
    """A node, a signer and a front end as processes with a separate directory."""

    def __init__(self, directory: Path) -> None:
        self._frontend_at = free_address()
        # Epochs are short, because the pause between two heads is not measured.
        self._directory = BenchDirectory(directory, min_interval=0.05, deadline=DEADLINE)
        self._signer = self._directory.signer
        self._batch = 0
        self.entries = 0
        self.close = self._directory.close

    def fill(self, entries: int) -> None:
        """Bring ``entries`` into the map, and start a front end that follows to the last of them."""
        while self.entries < entries:
            self._submit(min(STEP, entries - self.entries))
            self._decided()
        self._frontend = self._start_frontend()
        epoch, _ = self._decided()
        self._wait_for_answer(f"/v1/heads/{epoch}", "the front end has followed")

    def restart_signer(self) -> float:
        """Return the seconds from the start of a signer to the head that decides what was waiting for it."""
        self._stop(self._signer)
        self._submit(1)
        started = time.perf_counter()
        self._signer = self._start_signer()
        self._decided()
        return time.perf_counter() - started

    def restart_frontend(self) -> float:
        """Return the seconds until a front end that was started is ready."""
        self._stop(self._frontend)
        started = time.perf_counter()
        self._frontend = self._start_frontend()
        self._wait_for_answer("/readyz", "the front end is ready")
        return time.perf_counter() - started

    def rebuild_signer(self) -> tuple[int, float]:
        """Return the records that a signer without its data replays, and the seconds that it takes."""
        self._stop(self._signer)
        self._stop(self._frontend)
        settings = self._directory.settings
        shutil.rmtree(settings.path(settings.signer.data))
        self._submit(1)
        started = time.perf_counter()
        self._signer = self._start_signer()
        epoch, records = self._decided()
        seconds = time.perf_counter() - started
        if epoch == 0:
            raise KtError("the signer has published nothing")
        return records, seconds

    def _start_signer(self) -> Child:
        return self._directory.start("signer", "--log", self._directory.uri)

    def _start_frontend(self) -> Child:
        listen = str(self._frontend_at)
        return self._directory.start("frontend", "--log", self._directory.uri, "--listen", listen)

    def _stop(self, child: Child) -> None:
        if child.process is None:
            raise KtError(f"the {child.name} was not started")
        child.process.send_signal(signal.SIGTERM)
        try:
            child.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise KtError(f"the {child.name} did not stop within {STOP_SECONDS:.0f} s") from None

    def _submit(self, count: int) -> None:
        self._directory.submit(self._directory.sign(self._batch, count))
        self._batch += 1
        self.entries += count

    def _decided(self) -> tuple[int, int]:
        """Wait for the head that has all entries, and return its epoch and the size of its log."""
        head = self._directory.wait_for_entries(self.entries)
        return head.epoch, head.log_size

    def _wait_for_answer(self, path: str, what: str) -> None:
        def answer() -> bool | None:
            try:
                response = httpx.get(f"http://{self._frontend_at}{path}", timeout=5, trust_env=False)
            except httpx.HTTPError:
                return None
            return True if response.status_code == 200 else None

        self._directory.wait(answer, what)
