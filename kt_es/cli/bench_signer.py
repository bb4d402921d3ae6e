"""``kt bench signer``: mutations a second from the queue to a published head, through real processes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from kt_es.cli.addresses import free_address
from kt_es.cli.bench import Row
from kt_es.cli.output import Output
from kt_es.cli.setup import NewDirectory, begin_queue, write_directory
from kt_es.cli.supervisor import Supervisor
from kt_es.config import FILE_NAME, Address, Settings
from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.esdb import connect
from kt_es.eventstore.streams import ANY, EventLog, content_event
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.queue import MAX_EVENT_ITEMS, MUTATIONS, encode_mutations

PER_APPEND = 4
DEADLINE = 300.0


def bench_signer(directory: Path, mutations: int = 30_000, runs: int = 3) -> list[Row]:
    """Rates over ``runs`` of ``mutations`` new entries each, on one growing map.

    Signing them is not in the time; from the first append to the head that has all of them is.
    """
    new = NewDirectory("bench", "localhost/bench", "", "text", 1.0, 60.0)
    node = free_address(Address(host="127.0.0.1", port=0))
    uri = f"esdb://{node}?Tls=false"
    settings = write_directory(directory, new)
    output = Output(quiet=False)
    supervisor = Supervisor(output.fail, lambda _: None)
    common = ("-q", "-c", str(directory / FILE_NAME))
    try:
        supervisor.start("node", (*common, "node", "--data", str(directory / "node"), "--listen", str(node)))
        begin_when_up(settings, uri, new)
        signer = supervisor.start("signer", (*common, "signer", "--log", uri))
        if signer.process is None:
            raise KtError("the signer was not started")
        rates, latencies = [], []
        log = connect(uri)
        first = wait_for_entries(log, settings, 0)
        for run in range(runs):
            events = signed_events(settings.origin, run, mutations)
            started = time.perf_counter()
            for at in range(0, len(events), PER_APPEND):
                batch = [
                    content_event(settings.names.queue, MUTATIONS, data)
                    for data in events[at : at + PER_APPEND]
                ]
                log.append(settings.names.queue, ANY, batch)
            last = wait_for_entries(log, settings, first.map_size + (run + 1) * mutations)
            seconds = time.perf_counter() - started
            rates.append(mutations / seconds)
            latencies.append(seconds * 1e6 / mutations)
        peak = _peak_memory(signer.process.pid)
        log.close()
        if last.map_size != first.map_size + runs * mutations:
            raise KtError(f"{last.map_size} entries came out, {runs * mutations} went in")
    finally:
        supervisor.stop()
    return [
        Row.of("mutations, queue to head", "mutations/s", rates, 3_000),
        Row.of("per mutation", "µs", latencies),
        Row.of("peak memory of the signer", "MB", [peak]),
    ]


def begin_when_up(settings: Settings, uri: str, new: NewDirectory) -> None:
    """Begin the directory's queue as soon as its node answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            log = connect(uri)
            try:
                begin_queue(settings, log, new)
                return
            finally:
                log.close()
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.1)


def signed_events(origin: str, run: int, count: int) -> list[bytes]:
    """``count`` first entries at indices of their own, each signed, packed into queue events."""
    key = PrivateKey.from_seed(ED25519, os.urandom(32))
    authorized = (PublicKey(ED25519, key.public),)
    encoded = [
        Mutation.sign(
            Entry(sha256(f"{run} {number}".encode()), 1, sha256(bytes(32)), authorized, None), origin, [key]
        ).encode()
        for number in range(count)
    ]
    return [encode_mutations(encoded[at : at + MAX_EVENT_ITEMS]) for at in range(0, count, MAX_EVENT_ITEMS)]


def wait_for_entries(log: EventLog, settings: Settings, size: int, patience: float = DEADLINE) -> MapHead:
    """The first head with at least ``size`` entries; KtError after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        event = log.last_event(settings.names.heads)
        if event is not None:
            head = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
            if head.map_size >= size:
                return head
        if time.monotonic() > deadline:
            raise KtError(f"the signer did not publish {size} entries within {patience:.0f} s")
        threading.Event().wait(0.02)


def _peak_memory(pid: int) -> float:
    """The most memory that a process had resident, in MB, where the system tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
