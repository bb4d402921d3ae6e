"""``kt bench signer`` and ``kt bench recovery``: a directory under load, through real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import httpx

from kt_es.cli.addresses import free_address
from kt_es.cli.operators.init import NewDirectory, begin_queue, write_directory
from kt_es.cli.output import Output
from kt_es.cli.shared import make_store, required_sharing
from kt_es.cli.supervisor import Child, Supervisor
from kt_es.cli.trials.bench_node import until_answered
from kt_es.cli.trials.bench_report import Row, resident_memory
from kt_es.cli.trials.limits import Ed25519Limit
from kt_es.config.settings import FILE_NAME, Settings, load_settings
from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.errors import ConfigError, KtError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.entries import Entry, Mutation, PublicKey
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import MAX_EVENT_ITEMS, MUTATIONS, encode_mutations
from projections.tiles.export import TileExport

ENTRIES = 1_000_000
RESTART_LIMIT = 2.0  # seconds
REBUILD_LIMIT = 10_000  # records/s
PER_APPEND = 4  # events
STEP = 100_000  # entries
LIMIT = 3_000  # mutations/s
SHARED_LIMIT = 1_500  # mutations/s, with one Cassandra node on the same two cores
STOP_SECONDS = 60.0

_T = TypeVar("_T")


def bench_signer(
    directory: Path, mutations: int = 30_000, runs: int = 3, *, shared: str | None = None
) -> list[Row]:
    """Measure ``runs`` of ``mutations`` new entries each, on one growing map.

    The time begins with the first append and ends with the head that has all entries. Signing is not in it.
    Before each run, all processors verify signatures and do nothing else, which is the limit of any signer.
    """
    with (
        closing(BenchDirectory(directory, min_interval=1.0, deadline=300.0, shared=shared)) as bench,
        closing(Ed25519Limit()) as alone,
    ):
        rates, latencies, limits = [], [], []
        for run in range(runs):
            events = bench.sign(run, mutations)
            limits.append(alone.measure())
            started = time.perf_counter()
            bench.submit(events)
            last = bench.wait_for_entries(bench.first.map_size + (run + 1) * mutations)
            seconds = time.perf_counter() - started
            rates.append(mutations / seconds)
            latencies.append(seconds * 1e6 / mutations)
        _, peak = resident_memory(bench.signer.process.pid)
        if last.map_size != bench.first.map_size + runs * mutations:
            problem = f"{last.map_size} entries came out, {runs * mutations} went in"
            raise KtError(f"{problem}: the signer lost some; report it")
    return [
        Row.of("mutations, queue to head", "mutations/s", rates, SHARED_LIMIT if shared else LIMIT),
        Row.of("per mutation", "µs", latencies),
        Row.of("Ed25519 alone, all processors", "signatures/s", limits),
        Row.of(
            "share of that limit", "%", [100 * rate / most for rate, most in zip(rates, limits, strict=True)]
        ),
        Row.of("peak memory of the signer", "MB", [peak]),
    ]


def bench_recovery(directory: Path, entries: int = ENTRIES, runs: int = 3) -> list[Row]:
    """Measure ``runs`` restarts of each process with ``entries`` in the map, and one rebuild from the logs.

    The signer is back when a head decides what was queued meanwhile, and the front end when it is ready. The
    start of Python is part of both times.
    """
    # Epochs are short, because the pause between two heads is not measured.
    with closing(BenchDirectory(directory, min_interval=0.05, deadline=1_800.0)) as processes:
        bench = _RecoveryBench(processes)
        bench.fill(entries)
        signer = [bench.restart_signer() for _ in range(runs)]
        frontend = [bench.restart_frontend() for _ in range(runs)]
        records, rebuild = bench.rebuild_signer()
    return [
        Row.of("restart of the signer", "s", signer, RESTART_LIMIT),
        Row.of("restart of the front end", "s", frontend, RESTART_LIMIT),
        Row.of("rebuild from the logs", "records/s", [records / rebuild], REBUILD_LIMIT),
        Row.of("rebuild, whole", "s", [rebuild]),
        Row.of("entries", "entries", [float(bench.entries)]),
    ]


class BenchDirectory:
    """A directory in ``base``, with its node and signer running. Each wait has ``deadline`` seconds.

    ``shared`` is the address of a shared store with a keyspace that does not exist yet.
    """

    def __init__(
        self, base: Path, min_interval: float, deadline: float, *, shared: str | None = None
    ) -> None:
        new = NewDirectory("bench", "localhost/bench", "", "text", min_interval, 60.0)
        node = free_address()
        self.uri = f"esdb://{node}?Tls=false"
        self.settings: Settings = write_directory(base, new)
        if shared is not None:
            self.settings = share(base / FILE_NAME, shared)
        self._deadline = deadline
        self._common = ("-q", "-c", str(base / FILE_NAME))
        self._supervisor = Supervisor(Output().fail, lambda _: None)
        with ExitStack() as stack:
            stack.callback(self._supervisor.stop)
            self.start("node", "--data", str(base / "node"), "--listen", str(node))
            until_answered(self.uri, lambda log: begin_queue(self.settings, log, new))
            self._log = stack.enter_context(closing(connect(self.uri)))
            self.signer = self.start("signer", "--log", self.uri)
            self.first = self.wait_for_entries(0)
            self.close = stack.pop_all().close

    def start(self, command: str, *arguments: str) -> Child:
        return self._supervisor.start(command, (*self._common, command, *arguments))

    def sign(self, batch: int, count: int) -> list[bytes]:
        """Sign ``count`` first entries, in queue events. Each ``batch`` has indices of its own."""
        return queue_events(self.settings.origin, count, str(batch))

    def submit(self, events: list[bytes]) -> None:
        queue = self.settings.names.queue
        for at in range(0, len(events), PER_APPEND):
            batch = [content_event(queue, MUTATIONS, data) for data in events[at : at + PER_APPEND]]
            self._log.append(queue, ANY, batch)

    def export(self, export: TileExport) -> None:
        """Write what is published now as tiles."""
        for _ in export.run(self._log):
            pass

    def wait_for_entries(self, size: int) -> MapHead:
        def large_head() -> MapHead | None:
            event = self._log.last_event(self.settings.names.heads)
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
                raise KtError(f"waited {self._deadline:.0f} s in vain until {what}: see the log above")
            threading.Event().wait(0.02)
        return answer


def queue_events(origin: str, count: int, batch: str) -> list[bytes]:
    """Sign ``count`` first entries, and return queue events with them. Each ``batch`` has its own indices."""
    key = PrivateKey.from_seed(ED25519, os.urandom(32))
    authorized = (PublicKey(ED25519, key.public),)
    encoded = [
        Mutation.sign(
            Entry(sha256(f"{batch} {number}".encode()), 1, sha256(bytes(32)), authorized, None),
            origin,
            [key],
        ).encode()
        for number in range(count)
    ]
    return [encode_mutations(encoded[at : at + MAX_EVENT_ITEMS]) for at in range(0, count, MAX_EVENT_ITEMS)]


def share(path: Path, shared: str) -> Settings:
    """Put the map of the new directory of ``path`` into a shared store, and make its keyspace."""
    path.write_text(f'{path.read_text()}\n[store]\nshared = "{shared}"\n')
    settings = load_settings(path)
    sharing = required_sharing(settings)
    keyspace = sharing.cassandra.keyspace
    schema, _ = make_store(sharing, 1)
    if keyspace not in schema.made:
        raise ConfigError(f"the keyspace {keyspace} exists: name a new one, and drop it afterwards")
    return settings


def stop(child: Child) -> None:
    """End a process cleanly; ``KtError`` if it does not end."""
    child.process.send_signal(signal.SIGTERM)
    try:
        child.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise KtError(f"the {child.name} did not stop within {STOP_SECONDS:.0f} s; report it") from None


class _RecoveryBench:
    """A directory with a front end, whose processes are stopped and started."""

    def __init__(self, directory: BenchDirectory) -> None:
        self._frontend_at = free_address()
        self._directory = directory
        self._signer = directory.signer
        self._batch = 0
        self.entries = 0

    def fill(self, entries: int) -> None:
        """Bring ``entries`` into the map, and start a front end that follows to the last of them."""
        while self.entries < entries:
            self._submit(min(STEP, entries - self.entries))
            self._decided()
        self._frontend = self._start_frontend()
        self._wait_for_answer(f"/v1/heads/{self._decided().epoch}", "the front end has followed")

    def restart_signer(self) -> float:
        """Return the seconds from the start of a signer to the head that decides what waited for it."""
        stop(self._signer)
        self._submit(1)
        started = time.perf_counter()
        self._signer = self._start_signer()
        self._decided()
        return time.perf_counter() - started

    def restart_frontend(self) -> float:
        stop(self._frontend)
        started = time.perf_counter()
        self._frontend = self._start_frontend()
        self._wait_for_answer("/readyz", "the front end is ready")
        return time.perf_counter() - started

    def rebuild_signer(self) -> tuple[int, float]:
        """Return the records that a signer without its data replays, and the seconds that it takes."""
        stop(self._signer)
        stop(self._frontend)
        settings = self._directory.settings
        shutil.rmtree(settings.path(settings.signer.data))
        self._submit(1)
        started = time.perf_counter()
        self._signer = self._start_signer()
        head = self._decided()
        seconds = time.perf_counter() - started
        if head.epoch == 0:
            raise KtError("the signer has published nothing: see its log above")
        return head.log_size, seconds

    def _start_signer(self) -> Child:
        return self._directory.start("signer", "--log", self._directory.uri)

    def _start_frontend(self) -> Child:
        listen = str(self._frontend_at)
        return self._directory.start("frontend", "--log", self._directory.uri, "--listen", listen)

    def _submit(self, count: int) -> None:
        self._directory.submit(self._directory.sign(self._batch, count))
        self._batch += 1
        self.entries += count

    def _decided(self) -> MapHead:
        return self._directory.wait_for_entries(self.entries)

    def _wait_for_answer(self, path: str, what: str) -> None:
        def answer() -> bool | None:
            try:
                response = httpx.get(f"http://{self._frontend_at}{path}", timeout=5, trust_env=False)
            except httpx.HTTPError:
                return None
            return True if response.status_code == httpx.codes.OK else None

        self._directory.wait(answer, what)
