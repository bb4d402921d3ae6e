"""``kt bench frontend``: lookups and submissions over HTTP, through real processes.

A directory gets its accounts through its event log, and its signer decides them. Then front ends are measured
by turns: that of this environment, and with ``beside`` that of another ``kt``, for instance of another
commit. Both follow the same event log, so changes of the machine and of the signer meet both.
"""

from __future__ import annotations

import http
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from kt_es.api.batches import MAX_SUBMISSIONS, BatchedMutation, MutationsRequest
from kt_es.api.codec import encode_request
from kt_es.api.models import LookupRequest
from kt_es.api.operations import LOOKUP, MUTATIONS, MUTATIONS_BATCH
from kt_es.cli.addresses import free_address
from kt_es.cli.trials import load
from kt_es.cli.trials.asking import ask, json_body, until_ready
from kt_es.cli.trials.bench_report import Row
from kt_es.cli.trials.bench_signer import STOP_SECONDS, BenchDirectory
from kt_es.cli.trials.constant import constant_server
from kt_es.cli.trials.frontend_rows import Measured, rates, ratio, rows, watched_rows
from kt_es.cli.trials.synthetic import Sampled, sample_labels
from kt_es.cli.trials.watched import monitors
from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.tables import Address
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import KtError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import NO_STREAM, content_event
from kt_es.formats.entries import OPENING
from kt_es.formats.queue import MAX_EVENT_ITEMS, encode_mutations
from kt_es.process.files import read_key

ACCOUNTS = 30_000
SUBMISSIONS = 2_000
TURNS = 2
SECONDS = 8.0
"""How long each front end answers lookups in each turn."""
SUBMITTERS = 32
"""Connections that submit."""
BACKGROUND = 100.0
"""Submissions a second beside the lookups whose times count."""
VERIFIED = 20
"""Lookups by the real client in each turn."""
MONITORS = 10
WATCHED_TURNS = 5
HERE, BESIDE = "here", "beside"


def bench_frontend(
    directory: Path,
    *,
    accounts: int = ACCOUNTS,
    submissions: int = SUBMISSIONS,
    seconds: float = SECONDS,
    turns: int = TURNS,
    workers: int = 1,
    watchers: int = MONITORS,
    beside: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure a front end with ``accounts`` in the map.

    Args:
        directory: Where the directory has its data; it is empty.
        submissions: First entries that are submitted in each turn, without waiting for verdicts; the same
            number is submitted in batches.
        workers: Processes of the front end of this environment.
        watchers: Monitors, which replay both logs from the front end, and then look at it each second.
        beside: The command ``kt`` of another environment, whose front end is measured by turns.
        note: Gets a line for people after each step.
    """
    with closing(_Bench(directory, note)) as bench:
        bench.fill(accounts)
        sides = {HERE: Measured()} | ({BESIDE: Measured()} if beside else {})
        for number in range(turns):
            for name, measured in sides.items():
                kt = beside if name == BESIDE else None
                bench.turn(measured, kt, workers if name == HERE else 1, seconds, submissions)
                looked, put = measured.again[-1].rate, measured.submitted[-1]
                note(
                    f"turn {number + 1} of {turns}, {name}: {looked:,.0f} lookups/s, {put:,.0f} submissions/s"
                )
        bench.watched(sides[HERE], workers, seconds, watchers)
        constant = bench.constant(min(seconds, 3.0))
    shown = [row for name, measured in sides.items() for row in rows(name, measured)]
    shown.append(Row.of("constant answer of the same size", "answers/s", [constant]))
    here = sides[HERE]
    if beside:
        other = sides[BESIDE]
        shown.append(ratio("lookups, here to beside", rates(here), rates(other)))
        shown.append(ratio("submissions, here to beside", here.submitted, other.submitted))
        shown.append(ratio("submissions in batches, here to single beside", here.batched, other.submitted))
    shown += watched_rows(here, watchers)
    return [*shown, ratio("lookups to constant answers", rates(here), [constant])]


def _batches(made: Sequence[BatchedMutation], size: int) -> list[bytes]:
    parts = [tuple(made[at : at + size]) for at in range(0, len(made), size)]
    return [json.dumps(encode_request(MutationsRequest(part))).encode() for part in parts]


class _Bench:
    """A directory with its node and signer running."""

    def __init__(self, base: Path, note: Callable[[str], None]) -> None:
        self._directory = BenchDirectory(base, min_interval=1.0, deadline=600.0)
        self._base = base
        self._note = note
        self._settings = self._directory.settings
        self._vrf = read_key(
            self._settings.path(self._settings.frontend.vrf_key), "the VRF key", VrfPrivateKey.from_pem
        )
        self._sample: list[Sampled] = []
        self._entries = 0
        self._answer = b""
        self.close = self._directory.close

    def fill(self, accounts: int) -> None:
        """Bring ``accounts`` into the map, with their openings."""
        self._sample = sample_labels(self._settings.origin, self._vrf, accounts)
        encoded = [sampled.mutation.encode() for sampled in self._sample]
        self._directory.submit(
            [
                encode_mutations(encoded[at : at + MAX_EVENT_ITEMS])
                for at in range(0, accounts, MAX_EVENT_ITEMS)
            ]
        )
        names = self._settings.names
        with closing(connect(self._directory.uri)) as log, ThreadPoolExecutor(load.CONNECTIONS) as pool:

            def publish(sampled: Sampled) -> None:
                stream = names.openings(sampled.mutation.entry.index)
                log.append(stream, NO_STREAM, [content_event(stream, OPENING, sampled.opening.encode())])

            for _ in pool.map(publish, self._sample):
                pass
        self._entries = accounts
        self._directory.wait_for_entries(self._entries)
        self._note(f"{accounts:,} accounts are published")

    def turn(
        self, measured: Measured, kt: str | None, workers: int, seconds: float, submissions: int
    ) -> None:
        """Start a front end, measure it, verify some of its answers and stop it."""
        bodies = [json_body(LookupRequest(sampled.label, profile=False)) for sampled in self._sample]
        random.shuffle(bodies)
        with self._running(kt, workers) as (process, where):
            head = self._directory.wait_for_entries(self._entries)
            until_ready(process, where)
            self._directory.wait(lambda: self._has(where, head.epoch), "the front end has followed")
            measured.first.append(load.measure(where, LOOKUP.path, bodies).rate)
            again = load.measure(where, LOOKUP.path, bodies, seconds)
            measured.again.append(again)
            measured.submitted.append(self._submit(where, submissions))
            if ask(where, "POST", MUTATIONS_BATCH.path, b"{}")[0] == http.HTTPStatus.BAD_REQUEST:
                measured.batched.append(self._submit(where, submissions, MAX_SUBMISSIONS))
            measured.paced.append(self._paced(where, bodies, again.rate / 2, seconds))
            self._verify(where)

    def watched(self, measured: Measured, workers: int, seconds: float, count: int) -> None:
        """Measure lookups by turns while ``count`` monitors look at the front end, and while none does."""
        bodies = [json_body(LookupRequest(sampled.label, profile=False)) for sampled in self._sample]
        with self._running(None, workers) as (process, where):
            until_ready(process, where)
            head = self._directory.wait_for_entries(self._entries)
            with monitors(count, where, self._settings.key, self._base) as looking:
                self._directory.wait(lambda: looking.have_verified(head.epoch), "the monitors have replayed")
                for _ in range(WATCHED_TURNS):
                    measured.watched.append(load.measure(where, LOOKUP.path, bodies, seconds).rate)
                    with looking.stopped():
                        measured.alone.append(load.measure(where, LOOKUP.path, bodies, seconds).rate)
        self._note(f"{count} monitors looked at it")

    def _has(self, where: Address, epoch: int) -> bool | None:
        return True if ask(where, "GET", f"/v1/heads/{epoch}")[0] == 200 else None

    @contextmanager
    def _running(self, kt: str | None, workers: int) -> Iterator[tuple[subprocess.Popen[bytes], Address]]:
        where = free_address()
        data = self._base / (HERE if kt is None else BESIDE)
        arguments = ["--log", self._directory.uri, "--listen", str(where), "--data", str(data)]
        if kt is None:
            several = ["--workers", str(workers)] if workers > 1 else []
            child = self._directory.start("frontend", *arguments, *several)
            try:
                yield child.process, where
            finally:
                self._end(child.process)
            return
        command = [kt, "-q", "-c", str(self._short_settings()), "frontend", *arguments]
        with subprocess.Popen(  # noqa: S603 - the command that the caller names
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as process:
            try:
                yield process, where
            finally:
                self._end(process)

    def _short_settings(self) -> Path:
        """Write a kt.toml that other versions understand, too: it has nothing that may be left out."""
        settings, path = self._settings, self._base / "beside.toml"
        names = {"directory": settings.directory, "origin": settings.origin, "key": settings.key}
        lines = [f"{name} = {json.dumps(value)}" for name, value in names.items()]
        vrf = json.dumps(str(settings.path(settings.frontend.vrf_key)))
        path.write_text("\n".join([*lines, "[frontend]", f"vrf_key = {vrf}", ""]))
        return path

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise KtError(f"the front end did not stop within {STOP_SECONDS:.0f} s; report it") from None

    def _made(self, count: int) -> list[BatchedMutation]:
        """Return ``count`` submissions of new accounts."""
        new = sample_labels(self._settings.origin, self._vrf, count, os.urandom(8).hex())
        return [
            BatchedMutation(one.label, one.mutation.encode(), one.opening.opening, one.opening.profile)
            for one in new
        ]

    def _submit(self, where: Address, count: int, size: int = 1) -> float:
        """Return how many submissions a second were decided, and proven by the front end that took them.

        ``size`` of them are in one request.
        """
        made = self._made(count)
        path, bodies = MUTATIONS.path, [json_body(one.alone) for one in made]
        if size > 1:
            path, bodies = MUTATIONS_BATCH.path, _batches(made, size)
        began = time.perf_counter()
        load.measure(where, path, bodies, connections=SUBMITTERS)
        self._entries += count
        head = self._directory.wait_for_entries(self._entries)
        self._directory.wait(lambda: self._has(where, head.epoch), "the front end has followed")
        return count / (time.perf_counter() - began)

    def _paced(self, where: Address, bodies: Sequence[bytes], rate: float, seconds: float) -> load.Load:
        """Return the times of lookups at ``rate`` while ``BACKGROUND`` submissions a second are decided."""
        put = [json_body(one.alone) for one in self._made(round(BACKGROUND * (seconds + 2)))]
        with ThreadPoolExecutor(1, thread_name_prefix="submissions") as pool:
            background = pool.submit(load.measure, where, MUTATIONS.path, put, rate=BACKGROUND)
            times = load.measure(where, LOOKUP.path, bodies, seconds, rate=rate)
            background.result()
        self._entries += len(put)
        return times

    def _verify(self, where: Address) -> None:
        """Look some labels up with the real client, which verifies every proof."""
        pinned = Pinned(self._settings.origin, self._settings.pinned)
        with Client(f"http://{where}", MemoryStateStore(), pinned=pinned) as client:
            for sampled in random.sample(self._sample, min(VERIFIED, len(self._sample))):
                if client.lookup(sampled.label).mutation != sampled.mutation:
                    raise KtError(f"a front end answered a lookup of {sampled.label!r} with another entry")
        body = json_body(LookupRequest(self._sample[0].label, profile=False))
        _, self._answer = ask(where, "POST", LOOKUP.path, body)

    def constant(self, seconds: float) -> float:
        """Return how many constant answers a second one process of the same server gives."""
        with constant_server(self._answer) as where:
            bodies = [json_body(LookupRequest(one.label, profile=False)) for one in self._sample[:1_000]]
            return load.measure(where, LOOKUP.path, bodies, seconds).rate
