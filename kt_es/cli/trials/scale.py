"""A directory of any size, made at once, whose parts are measured one after the other for ``kt bench all``.

The map, the entries and the first epoch are made as ``synthetic`` says, over RocksDB. The event log gets as
many queue events of noise, in a stream of its own, as the entries would have taken. Signer, replicas and
front end each begin with a copy of these data and then work as always: the signer decides and publishes new
mutations, and the others follow.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

from kt_es.cli.addresses import free_address
from kt_es.cli.operators.init import SIGNER_KEY, NewDirectory, begin_queue, write_directory
from kt_es.cli.output import Output
from kt_es.cli.supervisor import Child, Supervisor
from kt_es.cli.trials import synthetic
from kt_es.cli.trials.asking import until_ready
from kt_es.cli.trials.bench_node import until_answered
from kt_es.cli.trials.bench_signer import PER_APPEND, queue_events, stop
from kt_es.cli.trials.synthetic import Sampled
from kt_es.config.settings import FILE_NAME, Settings
from kt_es.config.tables import Address
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import KtError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import ANY, NewEvent, content_event
from kt_es.formats.configs import SignedConfig
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import MAX_EVENT_ITEMS, MUTATIONS
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.process.files import read_key
from signer.keys import load_key

MUTATION_BYTES = 277
"""Bytes of a first entry in a queue event: what ``synthetic`` signs, with its length."""
FILLER = "bench-filler"
DEADLINE = 1_800.0
"""Seconds that a wait may take: a copy of the store is opened, or mutations are decided."""
# A head must not become old while the directory is filled and measured.
_INTERVAL = 30 * 86_400.0

_T = TypeVar("_T")


class ScaleDirectory:
    """A directory in ``base`` with its node running. ``fill`` comes first.

    Attributes:
        settings: Its kt.toml.
        uri: Where its event log is.
        sample: Labels of the map that can be looked up.
        node: The process of the event log.
    """

    def __init__(self, base: Path) -> None:
        new = NewDirectory("bench", "localhost/bench", "", "text", 1.0, _INTERVAL)
        address = free_address()
        self.uri = f"esdb://{address}?Tls=false"
        self.settings: Settings = write_directory(base, new)
        self.sample: list[Sampled] = []
        self.config = base / FILE_NAME
        self.node_data = base / "node"
        self._filled = base / "filled"
        self._copies = base / "copies"
        self._vrf = read_key(
            self.settings.path(self.settings.frontend.vrf_key), "the VRF key", VrfPrivateKey.from_pem
        )
        self._supervisor = Supervisor(Output().fail, lambda _: None)
        with ExitStack() as stack:
            stack.callback(self._supervisor.stop)
            self.node = self._start("node", "--data", str(self.node_data), "--listen", str(address))
            until_answered(self.uri, lambda log: begin_queue(self.settings, log, new))
            self._log = stack.enter_context(closing(connect(self.uri)))
            self.close = stack.pop_all().close

    def _start(self, command: str, *arguments: str) -> Child:
        return self._supervisor.start(command, ("-q", "-c", str(self.config), command, *arguments))

    def fill_log(self, mutations: int) -> float:
        """Append events of noise as large as those of ``mutations``; return the mutations/s."""
        events = -(-mutations // MAX_EVENT_ITEMS)
        began = time.perf_counter()
        for at in range(0, events, PER_APPEND):
            count = min(PER_APPEND, events - at)
            self._log.append(FILLER, ANY, [_noise() for _ in range(count)])
        return events * MAX_EVENT_ITEMS / (time.perf_counter() - began)

    def fill(self, entries: int, sample: int) -> tuple[float, int]:
        """Make the map of ``entries``, those of ``sample`` labels among them, and publish its epoch.

        Returns:
            The entries/s of making map and entries, and the bytes on disk of the compacted store.
        """
        settings, names = self.settings, self.settings.names
        self.sample = synthetic.sample_labels(settings.origin, self._vrf, sample)
        with closing(RocksStore.open(self._filled, FAMILIES)) as store:
            began = time.perf_counter()
            root = synthetic.fill([store], self.sample, entries, lambda _: None)
            rate = entries / (time.perf_counter() - began)
            config = SignedConfig.decode(next(iter(self._log.read(names.queue, 0, 1))).data)
            key = load_key(settings.path(SIGNER_KEY))
            event = synthetic.commit_epoch([store], settings, config, root, key)
            store.compact()
            size = sum(path.stat().st_size for path in self._filled.glob("*.sst"))
            synthetic.publish_openings(self._log, names, self.sample, OpeningTable(store))
        synthetic.publish_epoch(self._log, names, event)
        return rate, size

    @contextmanager
    def copy(self, name: str) -> Iterator[Path]:
        """Yield a copy of the filled store, which is deleted afterwards.

        RocksDB never changes a table file, so the copy has links to those, and is made at once.
        """
        where = self._copies / name
        where.mkdir(parents=True)
        try:
            for path in self._filled.iterdir():
                if path.suffix == ".sst":
                    (where / path.name).hardlink_to(path)
                else:
                    shutil.copy2(path, where / path.name)
            yield where
        finally:
            shutil.rmtree(where)

    @contextmanager
    def signer(self, data: Path) -> Iterator[Child]:
        """Run a signer over ``data``, a copy."""
        child = self._start("signer", "--log", self.uri, "--data", str(data))
        try:
            yield child
        finally:
            stop(child)

    @contextmanager
    def frontend(self, data: Path) -> Iterator[tuple[Child, Address]]:
        """Run a front end over ``data``, a copy, until it is ready and after."""
        where = free_address()
        child = self._start("frontend", "--log", self.uri, "--listen", str(where), "--data", str(data))
        try:
            until_ready(child.process, where)
            yield child, where
        finally:
            stop(child)

    def audit(self, data: Path) -> float:
        """Run ``kt audit``, which goes on from ``data``, a copy; return the seconds of the whole command."""
        arguments = ("-q", "-c", str(self.config), "audit", "--log", self.uri, "--data", str(data))
        began = time.perf_counter()
        try:
            subprocess.run(  # noqa: S603 - our own interpreter and our own arguments
                [sys.executable, "-m", "kt_es.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise KtError(
                f"kt audit ended with exit code {error.returncode}: see its message above"
            ) from None
        return time.perf_counter() - began

    def more(self, count: int) -> list[bytes]:
        """Sign first entries of ``count`` new accounts, in queue events."""
        return queue_events(self.settings.origin, count, os.urandom(8).hex())

    def submit(self, events: Sequence[bytes], stream: str) -> None:
        """Append queue events to ``stream``, several at a time."""
        for at in range(0, len(events), PER_APPEND):
            batch = [content_event(stream, MUTATIONS, data) for data in events[at : at + PER_APPEND]]
            self._log.append(stream, ANY, batch)

    def wait_for_entries(self, size: int, child: Child) -> MapHead:
        """Wait for a head with at least ``size`` entries from the signer ``child``, and return it."""

        def large_head() -> MapHead | None:
            event = self._log.last_event(self.settings.names.heads)
            if event is None:
                return None
            head = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
            return head if head.map_size >= size else None

        return self.wait(large_head, child, f"the signer has published {size} entries")

    def wait(self, ask: Callable[[], _T | None], child: Child, what: str) -> _T:
        """Return the answer of ``ask`` once it has one; ``KtError`` if ``child`` ends or is slow."""
        deadline = time.monotonic() + DEADLINE
        while (answer := ask()) is None:
            if (code := child.process.poll()) is not None:
                raise KtError(f"the {child.name} ended with exit code {code}: see the log above")
            if time.monotonic() > deadline:
                raise KtError(f"waited {DEADLINE:.0f} s in vain until {what}: see the log above")
            time.sleep(0.02)
        return answer


def _noise() -> NewEvent:
    return content_event(FILLER, MUTATIONS, os.urandom(MAX_EVENT_ITEMS * MUTATION_BYTES))
