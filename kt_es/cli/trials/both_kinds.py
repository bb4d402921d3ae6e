"""A directory with front ends of both kinds: local ones, with a replica, and thin ones over a shared store.

The directory is made at once (``synthetic``). What a lookup costs below HTTP is measured in this process.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from kt_es.api.models import LookupRequest
from kt_es.api.operations import LOOKUP
from kt_es.cli.addresses import free_address
from kt_es.cli.operators.init import SIGNER_KEY, NewDirectory, begin_queue, write_directory
from kt_es.cli.output import Output
from kt_es.cli.supervisor import Child, Supervisor
from kt_es.cli.trials import load, synthetic
from kt_es.cli.trials.asking import ask, json_body, until_ready
from kt_es.cli.trials.bench_node import processor_seconds, until_answered
from kt_es.cli.trials.bench_report import Row, resident_memory
from kt_es.cli.trials.bench_signer import share, stop
from kt_es.cli.trials.synthetic import Sampled
from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME, Settings
from kt_es.config.tables import Address
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import KtError
from kt_es.eventstore.connecting import connect
from kt_es.formats.configs import SignedConfig
from kt_es.ledger.adoption import LEVELS
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.pages import CACHE_BYTES, PageTable, page_cache
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.shared_tables import tables_of
from kt_es.ledger.store import Store
from kt_es.ledger.stores import open_store
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.map import Map, Root
from kt_es.process.files import read_key
from signer.keys import load_key

FINDS = 1_000
"""Lookups of each run below HTTP."""
RUNS = 2
VERIFIED = 20
"""Lookups by the real client in each turn."""
SHARED_FILE = "shared.toml"
LOCAL, THIN = "local", "thin"
# A head must not become old while the directory is filled and measured.
_INTERVAL = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What one front end showed from its start to its end.

    Attributes:
        ready: Seconds from the start of the process until it was ready.
        started: Resident memory then, in MB.
        first: Each label of the sample looked up once, with nothing but the topmost pages in memory.
        again: The same labels looked up again and again.
        ended: Resident memory after these lookups, in MB.
        absent: Labels without an entry looked up once; None if there were none.
        peak: Most resident memory of the whole turn, in MB.
        processor: Processor time of the front end for each lookup of ``again``, in seconds; None if the
            system does not report it.
    """

    ready: float
    started: float
    first: load.Load
    again: load.Load
    ended: float
    absent: load.Load | None
    peak: float
    processor: float | None


class BothKinds:
    """A directory with its node running, and two files of settings: for local and for thin front ends."""

    def __init__(self, base: Path, shared: str) -> None:
        new = NewDirectory("bench", "localhost/bench", "", "text", 1.0, _INTERVAL)
        node = free_address()
        self._uri = f"esdb://{node}?Tls=false"
        self._settings: Settings = write_directory(base, new)
        shutil.copy(base / FILE_NAME, base / SHARED_FILE)
        self._shared = share(base / SHARED_FILE, shared)
        self._files = {LOCAL: base / FILE_NAME, THIN: base / SHARED_FILE}
        self._data = {LOCAL: self._settings.path(self._settings.frontend.data), THIN: base / THIN}
        self._sample: list[Sampled] = []
        self._answer = b""
        self._supervisor = Supervisor(Output().fail, lambda _: None)
        with ExitStack() as stack:
            stack.callback(self._supervisor.stop)
            self._start(LOCAL, "node", "--data", str(base / "node"), "--listen", str(node))
            until_answered(self._uri, lambda log: begin_queue(self._settings, log, new))
            self.close = stack.pop_all().close

    def _start(self, kind: str, command: str, *arguments: str) -> Child:
        return self._supervisor.start(command, ("-q", "-c", str(self._files[kind]), command, *arguments))

    def fill(self, entries: int, sample: int, note: Callable[[str], None]) -> tuple[float, list[Row]]:
        """Make the epoch and publish it. Return the entries/s and what a lookup costs in each store."""
        settings = self._settings
        vrf = read_key(settings.path(settings.frontend.vrf_key), "the VRF key", VrfPrivateKey.from_pem)
        self._sample = synthetic.sample_labels(settings.origin, vrf, sample)
        with ExitStack() as stack:
            log = stack.enter_context(closing(connect(self._uri)))
            local = stack.enter_context(closing(RocksStore.open(self._data[LOCAL], FAMILIES)))
            thin = stack.enter_context(closing(open_store(None, self._shared.sharing)))
            began, steps = time.perf_counter(), _Steps(entries, note)
            root = synthetic.fill([local, thin], self._sample, entries, steps)
            filling = entries / (time.perf_counter() - began)
            config = SignedConfig.decode(next(iter(log.read(settings.names.queue, 0, 1))).data)
            key = load_key(settings.path(SIGNER_KEY))
            event = synthetic.commit_epoch([local, thin], settings, config, root, key)
            synthetic.publish_openings(log, settings.names, self._sample, OpeningTable(local))
            local.compact()
            synthetic.publish_epoch(log, settings.names, event)
            note(f"filled with {filling:,.0f} entries/s")
            caches = {LOCAL: CACHE_BYTES, THIN: self._shared.store.cache}
            costs = [
                row
                for kind, store in ((LOCAL, local), (THIN, thin))
                for row in _costs(kind, store, root, caches[kind], self._sample)
            ]
        note("the costs below HTTP are measured")
        return filling, costs

    def turn(self, kind: str, seconds: float, absent: int) -> Turn:
        """Start a front end, measure it, verify some of its answers and stop it."""
        where = free_address()
        began = time.perf_counter()
        arguments = ("--log", self._uri, "--listen", str(where), "--data", str(self._data[kind]))
        child = self._start(kind, "frontend", *arguments)
        until_ready(child.process, where)
        ready = time.perf_counter() - began
        started, _ = resident_memory(child.process.pid)
        bodies = [_body(sampled.label) for sampled in self._sample]
        strangers = [_body(f"stranger {number}") for number in range(absent)]
        first = load.measure(where, LOOKUP.path, bodies)
        used = processor_seconds(child.process.pid)
        again = load.measure(where, LOOKUP.path, bodies, seconds)
        used_after = processor_seconds(child.process.pid)
        ended, _ = resident_memory(child.process.pid)
        others = load.measure(where, LOOKUP.path, strangers) if strangers else None
        _, peak = resident_memory(child.process.pid)
        self._verify(where)
        stop(child)
        processor = None if used is None or used_after is None else (used_after - used) / again.answers
        return Turn(ready, started, first, again, ended, others, peak, processor)

    def _verify(self, where: Address) -> None:
        """Look some labels up with the real client, which verifies every proof."""
        pinned = Pinned(self._settings.origin, self._settings.pinned)
        with Client(f"http://{where}", MemoryStateStore(), pinned=pinned) as client:
            for sampled in random.sample(self._sample, min(VERIFIED, len(self._sample))):
                found = client.lookup(sampled.label)
                if found.mutation != sampled.mutation or not found.profile:
                    raise KtError(f"a front end answered a lookup of {sampled.label!r} with another entry")
        _, self._answer = ask(where, "POST", LOOKUP.path, _body(self._sample[0].label))

    def generator_alone(self, seconds: float) -> load.Load:
        """Return what the load generator can do against a constant answer as long as a front end's."""
        with load.constant_answer(self._answer) as where:
            bodies = [_body(self._sample[0].label)] * load.CONNECTIONS
            return load.measure(where, LOOKUP.path, bodies, seconds)


def _body(label: str) -> bytes:
    return json_body(LookupRequest(label))


@dataclass(slots=True)
class _Steps:
    """Notes every tenth of the entries."""

    entries: int
    note: Callable[[str], None]
    next_tenth: int = 1

    def __call__(self, written: int) -> None:
        if written * 10 >= self.next_tenth * self.entries:
            self.note(f"{written:,} of {self.entries:,} entries are written")
            self.next_tenth = written * 10 // self.entries + 1


@dataclass(slots=True)
class _Counted:
    """A table of pages that counts the pages that are read. Implements ``merkle.pages.NodeStore``."""

    pages: PageTable
    count: int = 0

    def get_many(self, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        self.count += len(keys)
        return self.pages.get_many(keys, again=again)


def _costs(kind: str, store: Store, root: Root, cache_bytes: int, sample: Sequence[Sampled]) -> list[Row]:
    """Measure finding one index and its proof, with the topmost pages in memory and then with all of them.

    The store has read every page once before.
    """
    indices = [sampled.mutation.entry.index for sampled in sample[:FINDS]]
    measured: dict[str, list[float]] = defaultdict(list)
    for run in range(RUNS + 1):
        pages = _Counted(tables_of(store).pages)
        tree = Map(pages, page_cache(cache_bytes))
        tree.warm(root, LEVELS)
        pages.count = 0
        first = _microseconds(tree, root, indices)
        if run:
            measured["first"].append(first)
            measured["pages"].append(pages.count / len(indices))
            measured["again"].append(_microseconds(tree, root, indices))
    return [
        Row.of(f"{kind}: first find in the map", "µs", measured["first"]),
        Row.of(f"{kind}: pages read by a first find", "pages", measured["pages"]),
        Row.of(f"{kind}: repeated find in the map", "µs", measured["again"]),
    ]


def _microseconds(tree: Map, root: Root, indices: Sequence[bytes]) -> float:
    began = time.perf_counter()
    for index in indices:
        tree.find(root, index)
    return (time.perf_counter() - began) / len(indices) * 1e6
