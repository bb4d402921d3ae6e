"""``kt bench all``: map, signer, replica, front end and event log at several sizes, beside their limits.

Each size is a directory of its own (``scale``). Its parts are measured one after the other while the others
do nothing. Each figure has a value for each turn. In the same turn, the machine does alone what the part
cannot do without: it verifies Ed25519, hashes, serves a constant answer, appends to the log, or syncs a file.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from kt_es.api.models import LookupRequest
from kt_es.api.operations import LOOKUP
from kt_es.cli.supervisor import Child
from kt_es.cli.trials import load
from kt_es.cli.trials.akd import AKD_ENTRIES, AkdProgram
from kt_es.cli.trials.alone import run_alone
from kt_es.cli.trials.asking import ask, json_body
from kt_es.cli.trials.bench_report import family_memory, resident_memory
from kt_es.cli.trials.constant import constant_server
from kt_es.cli.trials.figures import LIMITS, Figure
from kt_es.cli.trials.limits import Ed25519Limit, synced_bytes_per_second
from kt_es.cli.trials.scale import FILLER, MUTATION_BYTES, ScaleDirectory
from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.tables import Address
from kt_es.errors import KtError
from kt_es.formats.queue import MAX_EVENT_ITEMS

SIZES = (10_000, 100_000)
"""Entries; the command has others as an option."""
LEAST_ENTRIES = 100
TURNS = 3
VERIFIED = 20
"""Lookups by the real client for each size."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much each turn does, the same at every size.

    Attributes:
        turns: How often each figure is measured.
        updates: Entries of the map that a turn updates together.
        mutations: First entries that a turn submits to the signer.
        sample: Labels that can be looked up.
        absent: Labels without an entry that are looked up at the end, so that the caches are full.
        seconds: How long a front end answers in each turn.
    """

    turns: int = TURNS
    updates: int = 10_000
    mutations: int = 20_000
    sample: int = 10_000
    absent: int = 20_000
    seconds: float = 5.0


def bench_all(
    sizes: Sequence[int],
    amounts: Amounts | None = None,
    *,
    akd: Path | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Measure each of ``sizes``, numbers of entries, and return the figures of all.

    Args:
        amounts: How much each turn does; None for the default.
        akd: The program of ``tools/akd``, whose rate stands beside the signer's.
        note: Gets a line for people after each step.

    Raises:
        KtError: A process ended, did not answer in time, or answered something wrong.
    """
    figures: list[Figure] = []
    for entries in sizes:
        with tempfile.TemporaryDirectory(prefix="kt-bench-") as directory:
            figures += _Size(Path(directory), entries, amounts or Amounts(), akd, note).measure()
    return sorted(figures, key=lambda figure: (_PARTS.index(figure.part), figure.name, figure.entries))


_PARTS = ("map", "signer", "replica", "front end", "log")


@dataclass(slots=True)
class _Size:
    """The measurement of one size."""

    base: Path
    entries: int
    amounts: Amounts
    akd: Path | None
    note: Callable[[str], None]
    figures: list[Figure] = field(default_factory=list)

    def measure(self) -> list[Figure]:
        with closing(ScaleDirectory(self.base)) as directory, closing(Ed25519Limit()) as ed25519:
            self._log(directory)
            rate, size = directory.fill(self.entries, min(self.amounts.sample, self.entries))
            self._figure("map", "bulk load", "entries/s", [rate])
            self._figure("map", "disk, with entries", "bytes/entry", [size / self.entries])
            self._map(directory)
            self._signer(directory, ed25519)
            self._replica(directory, ed25519)
            self._frontend(directory)
        return self.figures

    def _figure(
        self, part: str, name: str, unit: str, runs: Sequence[float], **limits: Sequence[float]
    ) -> None:
        """Add a figure. The names of ``limits`` are the keys of ``LIMITS``."""
        named = {LIMITS[name]: tuple(values) for name, values in limits.items()}
        self.figures.append(
            Figure(part, name, unit, self.entries, tuple(runs), named, round(os.getloadavg()[0], 2))
        )
        self.note(f"{self.entries:,} entries: {part}, {name}: {self.figures[-1].value:,.1f} {unit}")

    def _log(self, directory: ScaleDirectory) -> None:
        amounts = self.amounts
        # The turns append the last events, when the log has its size.
        turn = max(MAX_EVENT_ITEMS, min(amounts.mutations, self.entries // amounts.turns))
        before = self.entries - amounts.turns * turn
        if before > 0:
            directory.fill_log(before)
        rates, synced = [], []
        for _ in range(amounts.turns):
            rates.append(directory.fill_log(turn))
            block = 4 * MAX_EVENT_ITEMS * MUTATION_BYTES
            synced.append(synced_bytes_per_second(self.base, block) / MUTATION_BYTES)
        size = sum(path.stat().st_size for path in directory.node_data.rglob("*") if path.is_file())
        _, peak = resident_memory(directory.node.process.pid)
        self._figure("log", "appends", "mutations/s", rates, disk=synced)
        self._figure("log", "disk", "bytes/entry", [size / self.entries])
        self._figure("log", "peak memory", "MB", [peak])

    def _map(self, directory: ScaleDirectory) -> None:
        amounts = self.amounts
        with directory.copy("map") as data:
            found = run_alone(
                "map", directory.config, data, min(amounts.updates, self.entries), amounts.turns
            )
        self._figure("map", "updates", "updates/s", found["updates"], hashing=found["hashing"])
        self._figure("map", "cost of an update", "µs", [1e6 / rate for rate in found["updates"]])
        self._figure("map", "processor time of it", "µs", found["processor"])
        self._figure("map", "hashes of an update", "hashes", [found["hashes"]])
        self._figure("map", "peak memory", "MB", [found["memory"]])

    def _signer(self, directory: ScaleDirectory, ed25519: Ed25519Limit) -> None:
        amounts, queue = self.amounts, directory.settings.names.queue
        rates, signatures, appends = [], [], []
        others: dict[str, list[float]] = {}
        with ExitStack() as stack:
            akd = None
            if self.akd is not None:
                labels = min(self.entries, AKD_ENTRIES)
                changed = min(amounts.mutations, labels)
                akd = stack.enter_context(closing(AkdProgram(self.akd, labels, changed)))
            data = stack.enter_context(directory.copy("signer"))
            child = stack.enter_context(directory.signer(data))
            # The first mutation is decided when the signer has started.
            directory.submit(directory.more(1), queue)
            size = directory.wait_for_entries(self.entries + 1, child).map_size
            for _ in range(amounts.turns):
                events = directory.more(amounts.mutations)
                signatures.append(ed25519.measure())
                if akd is not None:
                    others.setdefault("akd", []).append(akd.turn())
                began = time.perf_counter()
                directory.submit(events, FILLER)
                appends.append(amounts.mutations / (time.perf_counter() - began))
                size += amounts.mutations
                began = time.perf_counter()
                _decide(directory, events, size, child)
                rates.append(amounts.mutations / (time.perf_counter() - began))
            _, peak = resident_memory(child.process.pid)
            family = family_memory(child.process.pid)
        self._figure(
            "signer", "mutations", "mutations/s", rates, ed25519=signatures, appends=appends, **others
        )
        self._figure("signer", "peak memory", "MB", [peak])
        self._figure("signer", "with its verifiers", "MB", [family])

    def _replica(self, directory: ScaleDirectory, ed25519: Ed25519Limit) -> None:
        rates, audits, signatures, memory = [], [], [], []
        for turn in range(self.amounts.turns):
            with directory.copy(f"replica {turn}") as data:
                signatures.append(ed25519.measure())
                found = run_alone("replica", directory.config, data, directory.uri)
            if found["records"] < self.amounts.turns * self.amounts.mutations:
                raise KtError(
                    f"a replica found {found['records']} records, fewer than were decided: report it"
                )
            rates.append(found["records"] / found["seconds"])
            memory.append(found["memory"])
            with directory.copy(f"audit {turn}") as data:
                audits.append(found["records"] / directory.audit(data))
        self._figure("replica", "records", "records/s", rates, ed25519=signatures)
        self._figure("replica", "kt audit, whole", "records/s", audits, ed25519=signatures)
        self._figure("replica", "peak memory", "MB", memory)

    def _frontend(self, directory: ScaleDirectory) -> None:
        amounts = self.amounts
        bodies = [_body(sampled.label) for sampled in directory.sample]
        random.shuffle(bodies)
        strangers = [_body(f"stranger {number}") for number in range(amounts.absent)]
        again, constant = [], []
        with ExitStack() as stack:
            data = stack.enter_context(directory.copy("frontend"))
            child, where = stack.enter_context(directory.frontend(data))
            epoch = directory.wait_for_entries(self.entries, child).epoch
            directory.wait(lambda: _has(where, epoch), child, "the front end has followed")
            first = load.measure(where, LOOKUP.path, bodies)
            answer = stack.enter_context(constant_server(_verified(directory, where)))
            for _ in range(amounts.turns):
                again.append(load.measure(where, LOOKUP.path, bodies, amounts.seconds))
                constant.append(load.measure(answer, LOOKUP.path, bodies, amounts.seconds).rate)
            absent = load.measure(where, LOOKUP.path, strangers)
            _, peak = resident_memory(child.process.pid)
        self._figure("front end", "lookups", "lookups/s", [turn.rate for turn in again], constant=constant)
        self._figure("front end", "lookups, each first", "lookups/s", [first.rate])
        self._figure("front end", "lookups, absent labels", "lookups/s", [absent.rate])
        self._figure("front end", "lookup, p50", "ms", [turn.half for turn in again])
        self._figure("front end", "lookup, p99", "ms", [turn.most for turn in again])
        self._figure("front end", "peak memory", "MB", [peak])


def _decide(directory: ScaleDirectory, events: Sequence[bytes], size: int, child: Child) -> None:
    directory.submit(events, directory.settings.names.queue)
    found = directory.wait_for_entries(size, child).map_size
    if found != size:
        raise KtError(
            f"{found} entries are in the map, {size} were expected: the signer lost some; report it"
        )


def _has(where: Address, epoch: int) -> bool | None:
    return True if ask(where, "GET", f"/v1/heads/{epoch}")[0] == 200 else None


def _body(label: str) -> bytes:
    return json_body(LookupRequest(label, profile=False))


def _verified(directory: ScaleDirectory, where: Address) -> bytes:
    """Look some labels up with the real client, which verifies every proof; return the body of an answer."""
    settings = directory.settings
    pinned = Pinned(settings.origin, settings.pinned)
    with Client(f"http://{where}", MemoryStateStore(), pinned=pinned) as client:
        for sampled in random.sample(directory.sample, min(VERIFIED, len(directory.sample))):
            if client.lookup(sampled.label).mutation != sampled.mutation:
                raise KtError(f"a front end answered a lookup of {sampled.label!r} with another entry")
    return ask(where, "POST", LOOKUP.path, _body(directory.sample[0].label))[1]
