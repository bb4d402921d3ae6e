"""Signers over a log in memory: started, crashed and stopped by tests; and what must hold of their logs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from kt_es.errors import KtError
from kt_es.eventstore.streams import ANY, NO_STREAM, EventLog, StreamNames, content_event
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import CONFIG, MUTATIONS, Record, decode_records, encode_mutations
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.replay import Replay
from kt_es.ledger.tables import FAMILIES
from kt_es.process.outage import Outage
from signer.keys import KeyRing
from signer.limits import Effects, EpochLimits
from signer.loop import Signer
from signer.metrics import SignerMetrics
from signer.service import run_forever
from tests.builders import ORIGIN, SIGNER, SIGNER_KEY, START, config, seed, signed_config
from tests.reference.memory_log import MemoryLog

NAMES = StreamNames("people")

# Of all signers of a test process: a nonce that comes twice makes the same marker, which is one event.
_NONCES = itertools.count()
PATIENCE = 30.0

# Small enough that every bound of the loop is met in a short test.
LIMITS = EpochLimits(batch_limit=50, outbox=4096, unacknowledged=20, patience=0.02, watchdog=0.2)


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Poll until ``done``; fail after a time that only a hanging test needs."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain until {what}")
        pause.wait(0.002)


def new_log(min_interval: int = 5, max_interval: int = 60_000) -> MemoryLog:
    """A log whose queue begins with the config of the tests' directory; intervals in ms."""
    log = MemoryLog()
    signed = signed_config(config(min_interval=min_interval, max_interval=max_interval))
    log.append(NAMES.queue, NO_STREAM, [content_event(NAMES.queue, CONFIG, signed.encode())])
    return log


def submit(log: EventLog, mutations: Sequence[Mutation | bytes], kind: str = MUTATIONS) -> None:
    """Append one queue event of these mutations."""
    encoded = [thing if isinstance(thing, bytes) else thing.encode() for thing in mutations]
    log.append(NAMES.queue, ANY, [content_event(NAMES.queue, kind, encode_mutations(encoded))])


def new_ledger(store: MemoryStore | None = None) -> Ledger:
    return Ledger(MemoryStore(FAMILIES) if store is None else store, ORIGIN, SIGNER_KEY)


def effects(connect: Callable[[], EventLog]) -> Effects:
    """A wall clock that goes on by a millisecond a look, and nonces by number."""
    clock = itertools.count(START)
    lock = threading.Lock()

    def now() -> int:
        with lock:
            return next(clock)

    return Effects(connect, now, time.monotonic, lambda: seed(f"nonce {next(_NONCES)}")[:16])


def new_signer(log: EventLog, ledger: Ledger, limits: EpochLimits = LIMITS) -> Signer:
    return Signer(log, NAMES, ledger, KeyRing([SIGNER]), effects=effects(lambda: log), limits=lambda: limits)


@contextmanager
def signing(
    log: EventLog,
    ledger: Ledger,
    limits: EpochLimits = LIMITS,
    connect: Callable[[], EventLog] | None = None,
    keys: KeyRing | None = None,
) -> Iterator[list[KtError]]:
    """A signer in a thread that is started anew after outages; what ended it for good is in the list."""
    stop = threading.Event()
    ended: list[KtError] = []
    outside = effects(connect or (lambda: log))
    metrics = SignerMetrics(outside.now, outside.monotonic)

    def run() -> None:
        def signer(found: EventLog) -> Signer:
            ring = KeyRing([SIGNER]) if keys is None else keys
            return Signer(found, NAMES, ledger, ring, effects=outside, limits=lambda: limits, metrics=metrics)

        try:
            outage = Outage("signer", structlog.get_logger("signer"))
            run_forever(outside.connect, signer, NAMES.queue, stop, metrics, outage=outage)
        except KtError as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def heads(log: EventLog) -> list[MapHead]:
    return [
        SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head for event in log.read(NAMES.heads)
    ]


def records(log: EventLog) -> list[Record]:
    return [
        Record.decode(data) for event in log.read(NAMES.mutations) for data in decode_records(event.data)[1]
    ]


def verdicts(log: EventLog) -> list[str]:
    """Of everything but configs and markers, in order."""
    return [
        record.verdict.label for record in records(log) if record.verdict.label not in ("epoch", "config")
    ]


def decided(log: EventLog) -> int:
    """How many queue events are sealed by a head."""
    found = heads(log)
    return found[-1].queue_next if found else 0


def wait_decided(log: EventLog) -> None:
    """Until everything that is in the queue now is sealed by a head."""
    end = log.last_revision(NAMES.queue) + 1
    wait_until(lambda: decided(log) >= end, f"{end} queue events are decided")


def data_of(log: EventLog, stream: str) -> list[tuple[str, bytes]]:
    return [(event.type, event.data) for event in log.read(stream)]


def check_logs(log: EventLog) -> Ledger:
    """What must hold of published logs: they verify from the start, and the queue gives the same bytes."""
    ledger = new_ledger()
    for _ in Replay(log, NAMES, ledger).catch_up():
        pass
    assert [head.epoch for head in heads(log)] == list(range(1, ledger.committed.epoch + 1))
    again = replayed_queue(log)
    # The queue may have gone on after what is published.
    for stream in (NAMES.mutations, NAMES.heads):
        published = data_of(log, stream)
        assert data_of(again, stream)[: len(published)] == published
    return ledger


def replayed_queue(log: EventLog) -> MemoryLog:
    """The logs that a signer with an empty disk and empty logs makes of the same queue."""
    fresh = MemoryLog()
    for event in log.read(NAMES.queue):
        fresh.append(NAMES.queue, event.revision - 1, [content_event(NAMES.queue, event.type, event.data)])
    signer = new_signer(fresh, new_ledger())
    for event in fresh.read(NAMES.queue):
        signer._process(event)
    return fresh
