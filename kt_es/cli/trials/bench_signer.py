"""``kt bench signer``: mutations a second from the queue to a published head, through real processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kt_es.cli.addresses import free_address
from kt_es.cli.operators.setup import NewDirectory, begin_queue, write_directory
from kt_es.cli.output import Output
from kt_es.cli.supervisor import Child, Supervisor
from kt_es.cli.trials.bench_report import Row
from kt_es.config import FILE_NAME, Settings
from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.entries import Entry, Mutation, PublicKey
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import MAX_EVENT_ITEMS, MUTATIONS, encode_mutations

PER_APPEND = 4
START_SECONDS = 30.0

_T = TypeVar("_T")


class BenchDirectory:
    """A directory in ``base``, with its node and signer running. Each wait has ``deadline`` seconds."""

    def __init__(self, base: Path, min_interval: float, deadline: float) -> None:
        new = NewDirectory("bench", "localhost/bench", "", "text", min_interval, 60.0)
        node = free_address()
        self.uri = f"esdb://{node}?Tls=false"
        self.settings: Settings = write_directory(base, new)
        self._deadline = deadline
        self._common = ("-q", "-c", str(base / FILE_NAME))
        self._supervisor = Supervisor(Output().fail, lambda _: None)
        self._log: EsdbLog | None = None
        try:
            self.start("node", "--data", str(base / "node"), "--listen", str(node))
            self._log = self._begin(new)
            self.signer = self.start("signer", "--log", self.uri)
            self.first = self.wait_for_entries(0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        self._supervisor.stop()

    def start(self, command: str, *arguments: str) -> Child:
        """Start a process of the directory by its ``kt`` command."""
        return self._supervisor.start(command, (*self._common, command, *arguments))

    def sign(self, batch: int, count: int) -> list[bytes]:
        """Sign ``count`` first entries, in queue events. Each ``batch`` has indices of its own."""
        origin, key = self.settings.origin, PrivateKey.from_seed(ED25519, os.urandom(32))
        authorized = (PublicKey(ED25519, key.public),)
        encoded = [
            Mutation.sign(
                Entry(sha256(f"{batch} {number}".encode()), 1, sha256(bytes(32)), authorized, None),
                origin,
                [key],
            ).encode()
            for number in range(count)
        ]
        return [
            encode_mutations(encoded[at : at + MAX_EVENT_ITEMS]) for at in range(0, count, MAX_EVENT_ITEMS)
        ]

    def submit(self, events: list[bytes]) -> None:
        """Append ``events`` to the queue."""
        queue = self.settings.names.queue
        for at in range(0, len(events), PER_APPEND):
            batch = [content_event(queue, MUTATIONS, data) for data in events[at : at + PER_APPEND]]
            self._connected.append(queue, ANY, batch)

    def wait_for_entries(self, size: int) -> MapHead:
        """Wait for the first head with at least ``size`` entries."""

        def large_head() -> MapHead | None:
            event = self._connected.last_event(self.settings.names.heads)
            if event is None:
                return None
            head = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
            return head if head.map_size >= size else None

        return self.wait(large_head, f"the signer has published {size} entries")

    def wait(self, ask: Callable[[], _T | None], what: str) -> _T:
        """Return the answer of ``ask`` as soon as it has one. Raises ``KtError`` with ``what`` otherwise."""
        deadline = time.monotonic() + self._deadline
        while (answer := ask()) is None:
            if time.monotonic() > deadline:
                raise KtError(f"waited {self._deadline:.0f} s in vain until {what}")
            threading.Event().wait(0.02)
        return answer

    def _begin(self, new: NewDirectory) -> EsdbLog:
        """Connect to the node as soon as it answers, and begin the queue."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            log = None
            try:
                log = connect(self.uri)
                begin_queue(self.settings, log, new)
            except UnavailableError:
                if log is not None:
                    log.close()
                if time.monotonic() > deadline:
                    raise
                threading.Event().wait(0.1)
            else:
                return log

    @property
    def _connected(self) -> EsdbLog:
        if self._log is None:
            raise KtError("the event log is not connected")
        return self._log


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
