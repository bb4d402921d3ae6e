"""``kt bench recovery``: how soon signer and front end are back, with their disks and without."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from kt_es.cli.addresses import free_address
from kt_es.cli.bench import Row
from kt_es.cli.bench_signer import PER_APPEND, begin_when_up, signed_events, wait_for_entries
from kt_es.cli.output import Output
from kt_es.cli.setup import NewDirectory, write_directory
from kt_es.cli.supervisor import Child, Supervisor
from kt_es.config import FILE_NAME, Address, Settings
from kt_es.errors import KtError
from kt_es.eventstore.esdb import EsdbLog, connect
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.queue import MUTATIONS

ENTRIES = 1_000_000
RESTART_LIMIT = 2.0  # seconds
REBUILD_LIMIT = 10_000  # records/s
STEP = 100_000
DEADLINE = 1_800.0
STOP_SECONDS = 60.0


def bench_recovery(directory: Path, entries: int = ENTRIES, runs: int = 3) -> list[Row]:
    """Restarts with ``entries`` in the map, ``runs`` of each, and one rebuild from the logs alone.

    The signer is back when a head decides what was queued while it was away; the front end when it says
    it is ready. Starting Python is in both times.
    """
    bench = _Bench(directory)
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


class _Bench:
    """A node, a signer and a front end as processes over a directory of their own."""

    def __init__(self, directory: Path) -> None:
        # Short epochs: what is measured is the way back, not the pause between two heads.
        new = NewDirectory("bench", "localhost/bench", "", "text", 0.05, 60.0)
        node = free_address(Address(host="127.0.0.1", port=0))
        self._frontend_at = free_address(Address(host="127.0.0.1", port=0))
        self._uri = f"esdb://{node}?Tls=false"
        self._settings: Settings = write_directory(directory, new)
        self._common = ("-q", "-c", str(directory / FILE_NAME))
        self._supervisor = Supervisor(Output().fail, lambda _: None)
        self._log: EsdbLog | None = None
        self.entries = 0
        self._batch = 0
        try:
            data = str(directory / "node")
            self._start("node", "node", "--data", data, "--listen", str(node))
            begin_when_up(self._settings, self._uri, new)
            self._signer = self._start("signer", "signer", "--log", self._uri)
            self._log = connect(self._uri)
            wait_for_entries(self._log, self._settings, 0, DEADLINE)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        self._supervisor.stop()

    def fill(self, entries: int) -> None:
        """Bring ``entries`` into the map, and a front end to the last of them."""
        while self.entries < entries:
            self._submit(min(STEP, entries - self.entries))
            self._decided()
        self._frontend = self._start_frontend()
        epoch = self._decided()
        self._wait(lambda: self._answers(f"/v1/heads/{epoch}"), "the front end has followed")

    def restart_signer(self) -> float:
        """Seconds from the start of a signer to the head that decides what was waiting for it."""
        self._stop(self._signer)
        self._submit(1)
        started = time.perf_counter()
        self._signer = self._start("signer", "signer", "--log", self._uri)
        self._decided()
        return time.perf_counter() - started

    def restart_frontend(self) -> float:
        """Seconds from the start of a front end to its being ready."""
        self._stop(self._frontend)
        started = time.perf_counter()
        self._frontend = self._start_frontend()
        self._wait(lambda: self._answers("/readyz"), "the front end is ready")
        return time.perf_counter() - started

    def rebuild_signer(self) -> tuple[int, float]:
        """Records replayed, and the seconds of it, by a signer that has lost its data directory."""
        self._stop(self._signer)
        self._stop(self._frontend)
        shutil.rmtree(self._settings.path(self._settings.signer.data))
        self._submit(1)
        started = time.perf_counter()
        self._signer = self._start("signer", "signer", "--log", self._uri)
        epoch = self._decided()
        seconds = time.perf_counter() - started
        if epoch == 0:
            raise KtError("the signer has published nothing")
        return self._records, seconds

    def _start(self, name: str, *arguments: str) -> Child:
        return self._supervisor.start(name, (*self._common, *arguments))

    def _start_frontend(self) -> Child:
        return self._start("frontend", "frontend", "--log", self._uri, "--listen", str(self._frontend_at))

    def _stop(self, child: Child) -> None:
        if child.process is None:
            raise KtError(f"the {child.name} was not started")
        child.process.send_signal(signal.SIGTERM)
        try:
            child.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise KtError(f"the {child.name} did not stop within {STOP_SECONDS:.0f} s") from None

    def _submit(self, count: int) -> None:
        log = self._connection()
        events = signed_events(self._settings.origin, self._batch, count)
        self._batch += 1
        for at in range(0, len(events), PER_APPEND):
            queue = self._settings.names.queue
            batch = [content_event(queue, MUTATIONS, data) for data in events[at : at + PER_APPEND]]
            log.append(queue, ANY, batch)
        self.entries += count

    def _decided(self) -> int:
        """Wait for the head that has all entries; its epoch."""
        head = wait_for_entries(self._connection(), self._settings, self.entries, DEADLINE)
        self._records = head.log_size
        return head.epoch

    def _connection(self) -> EsdbLog:
        if self._log is None:
            raise KtError("the event log is not connected")
        return self._log

    def _answers(self, path: str) -> bool:
        try:
            return (
                httpx.get(f"http://{self._frontend_at}{path}", timeout=5, trust_env=False).status_code == 200
            )
        except httpx.HTTPError:
            return False

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not done():
            if time.monotonic() > deadline:
                raise KtError(f"waited {DEADLINE:.0f} s in vain until {what}")
            threading.Event().wait(0.02)
