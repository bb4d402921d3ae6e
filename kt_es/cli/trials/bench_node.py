"""``kt bench node``: events a second through a real node process and the client library that kt-es uses.

The rates include the work of the client, because users have it as well. On systems that report it, the
processor time that an event costs the node alone is in rows of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

from kt_es.cli.addresses import free_address
from kt_es.cli.output import Output
from kt_es.cli.supervisor import Supervisor
from kt_es.cli.trials.bench_report import Row
from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.esdb_client import plain_append, plain_client

SMALL = 500  # bytes of an event
LARGE = 60_000
THREADS = 8
BATCH = 500
START_SECONDS = 30.0
RUNS = 5


@dataclass(frozen=True, slots=True)
class Sizes:
    """Events of each kind in a run; ``bulk`` is a multiple of ``BATCH``."""

    single: int = 1_000
    concurrent: int = 2_400
    bulk: int = 20_000
    large: int = 200


Measurements: TypeAlias = defaultdict[str, list[float]]
"""The values of all runs, by the name of the measurement."""

LIMITS = {
    "append, 1 thread": 600,
    "append, 8 threads": 1_270,
    "append, batches of 500": 35_000,
    "read_stream": 8_100,
    "catch-up subscription": 8_100,
    "persistent subscription, acknowledged": 5_900,
    "append, 60 kB": 450,
    "read_stream, 60 kB": 4_100,
}


def bench_node(directory: Path, sizes: Sizes | None = None, runs: int = RUNS) -> list[Row]:
    """Measure ``runs``, each on streams of its own, against a node with data in ``directory``."""
    rates: Measurements = defaultdict(list)
    costs: Measurements = defaultdict(list)
    with _node(directory) as (uri, pid):
        for _ in range(runs):
            _Run(uri, pid, sizes or Sizes(), rates, costs).all()
    return [
        *(Row.of(name, "events/s", rates[name], limit) for name, limit in LIMITS.items()),
        *(Row.of(f"node alone: {name}", "µs", values) for name, values in costs.items()),
    ]


@contextmanager
def _node(directory: Path) -> Iterator[tuple[str, int]]:
    where = free_address()
    uri = f"esdb://{where}?Tls=false"
    supervisor = Supervisor(Output().fail, lambda _: None)
    try:
        arguments = ("-q", "node", "--data", str(directory / "node"), "--listen", str(where))
        child = supervisor.start("node", arguments)
        until_answered(uri, lambda log: log.last_event("bench"))
        yield uri, child.process.pid
    finally:
        supervisor.stop()


def until_answered(uri: str, ask: Callable[[EsdbLog], object]) -> None:
    """Call ``ask`` with a log at ``uri`` until the node, which has just been started, answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with closing(connect(uri)) as log:
                ask(log)
            return
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.1)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of everything. ``rates`` are events a second, ``costs`` µs of the node for each event."""

    uri: str
    pid: int
    sizes: Sizes
    rates: Measurements
    costs: Measurements
    stream: str = field(default_factory=lambda: f"bench-{uuid4().hex[:12]}")

    def all(self) -> None:
        sizes, stream = self.sizes, self.stream
        with plain_client(self.uri) as client:
            self._timed("append, 1 thread", sizes.single, lambda: self._singly("-one", sizes.single, SMALL))
            self._timed("append, 8 threads", sizes.concurrent, self._concurrently)
            self._timed("append, batches of 500", sizes.bulk, lambda: self._in_batches(client))
            self._timed("read_stream", sizes.bulk, lambda: _exactly(client.read_stream(stream), sizes.bulk))
            catch_up = client.subscribe_to_stream(stream)
            self._timed("catch-up subscription", sizes.bulk, lambda: _consume(catch_up, sizes.bulk))
            group = self._group(client)
            name = "persistent subscription, acknowledged"
            self._timed(name, sizes.bulk, lambda: _consume(group, sizes.bulk, acknowledge=True))
            self._timed("append, 60 kB", sizes.large, lambda: self._singly("-large", sizes.large, LARGE))
            large = f"{stream}-large"
            self._timed(
                "read_stream, 60 kB", sizes.large, lambda: _exactly(client.read_stream(large), sizes.large)
            )

    def _timed(self, name: str, events: int, work: Callable[[], None]) -> None:
        used, began = processor_seconds(self.pid), time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        self.rates[name].append(events / seconds)
        used_after = processor_seconds(self.pid)
        if used is not None and used_after is not None:
            self.costs[name].append((used_after - used) * 1e6 / events)

    def _singly(self, suffix: str, count: int, size: int) -> None:
        with plain_client(self.uri) as client:
            for number in range(count):
                plain_append(client, self.stream + suffix, number - 1, 1, size)

    def _concurrently(self) -> None:
        each = self.sizes.concurrent // THREADS
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                self._singly(f"-{number}", each, SMALL)
            except Exception as error:  # noqa: BLE001  raised below, in the thread that measures
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def _in_batches(self, client: Any) -> None:
        for at in range(0, self.sizes.bulk, BATCH):
            plain_append(client, self.stream, at - 1, BATCH, SMALL)

    def _group(self, client: Any) -> Any:
        """A consumer of a persistent subscription with the settings of a signer's."""
        client.create_subscription_to_stream(
            "bench",
            self.stream,
            max_subscriber_count=1,
            message_timeout=120,
            live_buffer_size=2000,
            history_buffer_size=2000,
            read_batch_size=200,
            min_checkpoint_count=1,
            max_checkpoint_count=500,
            checkpoint_after=1.0,
        )
        return client.read_subscription_to_stream(
            "bench", self.stream, event_buffer_size=500, max_ack_batch_size=200, max_ack_delay=0.02
        )


def _exactly(events: Iterable[Any], count: int) -> None:
    found = sum(1 for _ in events)
    if found != count:
        raise KtError(f"{found} events came out, {count} went in: the node lost some; report it")


def _consume(subscription: Any, count: int, *, acknowledge: bool = False) -> None:
    for number, event in enumerate(subscription, 1):
        if acknowledge:
            subscription.ack(event)
        if number == count:
            break
    subscription.stop()


def processor_seconds(pid: int) -> float | None:
    """Processor seconds of a process, if the system reports them (proc_pid_stat(5): utime, stime)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
