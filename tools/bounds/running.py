"""Runs a node and a signer as processes. The queue is filled first, so that one epoch has all items."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kt_es.cli.addresses import free_address
from kt_es.cli.operators.init import NewDirectory, begin_queue, write_directory
from kt_es.cli.supervisor import Supervisor
from kt_es.config.settings import FILE_NAME, Settings
from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import ANY, NewEvent
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from tools.bounds.items import KINDS

APPEND_BYTES = 900 * 1024
APPEND_EVENTS = 500
GROUP = "kt-signer"
# The promises: MB of the signer, and bytes that a record may have more than its item, with its event.
MOST_MB = 400
MOST_PER_RECORD = 100


@dataclass(frozen=True, slots=True)
class MeasuredBounds:
    """The measurements of one run. Sizes are in bytes, memory is in MB, and times are in seconds."""

    kind: str
    items: int
    queue_events: int
    queue_bytes: int
    seconds: float
    signer_mb: float
    node_mb: float
    log_events: int
    log_bytes: int
    epochs: int
    largest_epoch: int
    acknowledged: bool
    restarts: int


def breaches(figures: MeasuredBounds) -> list[str]:
    """Return a sentence for each promise that a run breaks."""
    most = figures.queue_bytes + MOST_PER_RECORD * (figures.items + 100)
    found = {
        f"the signer had {figures.signer_mb:.0f} MB, more than {MOST_MB}": figures.signer_mb > MOST_MB,
        f"the log has {figures.log_bytes:,} bytes, more than {most:,}": figures.log_bytes > most,
        f"no epoch had all items, the largest {figures.largest_epoch:,}": figures.largest_epoch
        < figures.items,
        f"the signer was started again {figures.restarts} times": figures.restarts > 0,
        "the queue was not acknowledged": not figures.acknowledged,
    }
    return [words for words, is_so in found.items() if is_so]


def measure(
    directory: Path, kind: str, items: int, report: Callable[[str], None], limit: float
) -> MeasuredBounds:
    """Fill the queue, start the signer, and wait until a head has all items and all are acknowledged.

    Raises:
        KtError: This takes more than ``limit`` seconds, or a process ends for good.
    """
    new = NewDirectory("bounds", "localhost/bounds", "", "text", 1.0, 8.0)
    settings = write_directory(directory, new)
    toml = directory / FILE_NAME
    toml.write_text(toml.read_text().replace("batch_limit = 100000", "batch_limit = 10000000"))
    with _processes(directory, report) as (supervisor, uri, common):
        log = _until(lambda: _begun(settings, uri, new), 60, "the node is there")
        count, size = fill(log, KINDS[kind](settings.names.queue, settings.origin, items), settings)
        report(f"{kind}: {items} items in {count} events, {size >> 20} MiB; starting the signer")
        started = time.monotonic()
        signer = supervisor.start("signer", (*common, "signer", "--log", uri))
        head = _until(lambda: _done(supervisor, log, settings, items), limit, "a head has all items")
        seconds = time.monotonic() - started
        _until(lambda: _heads(log, settings)[-1].epoch > head.epoch, 120, "epochs go on")
        acknowledged = _until(lambda: _is_acknowledged(uri, settings, head), 60, "the queue is acknowledged")
        heads = _heads(log, settings)
        sizes = [after.log_size - before for before, after in zip(_sizes(heads), heads, strict=True)]
        events, written = _written(log, settings)
        figures = MeasuredBounds(
            kind,
            items,
            count,
            size,
            seconds,
            peak_memory(signer.process.pid if signer.process else 0),
            peak_memory(supervisor.children[0].process.pid if supervisor.children[0].process else 0),
            events,
            written,
            len(heads),
            max(sizes),
            acknowledged,
            signer.restarts,
        )
        log.close()
    return figures


@contextmanager
def _processes(
    directory: Path, report: Callable[[str], None]
) -> Iterator[tuple[Supervisor, str, tuple[str, ...]]]:
    node = free_address()
    supervisor = Supervisor(report, lambda _: None)
    common = ("-q", "-c", str(directory / FILE_NAME))
    try:
        data = str(directory / "node")
        supervisor.start("node", (*common, "node", "--data", data, "--listen", str(node)))
        yield supervisor, f"esdb://{node}?Tls=false", common
    finally:
        supervisor.stop()


def _begun(settings: Settings, uri: str, new: NewDirectory) -> EsdbLog | None:
    log = connect(uri)
    try:
        begin_queue(settings, log, new)
    except UnavailableError:
        log.close()
        return None
    return log


def fill(log: EsdbLog, events: Iterator[tuple[int, NewEvent]], settings: Settings) -> tuple[int, int]:
    """Append all events in large batches, and return the numbers of events and of bytes of data."""
    batch: list[NewEvent] = []
    count = total = size = 0
    for _, event in events:
        if batch and (size + len(event.data) > APPEND_BYTES or len(batch) == APPEND_EVENTS):
            log.append(settings.names.queue, ANY, batch)
            batch, size = [], 0
        batch.append(event)
        size += len(event.data)
        total += len(event.data)
        count += 1
    log.append(settings.names.queue, ANY, batch)
    return count, total


def _heads(log: EsdbLog, settings: Settings) -> list[MapHead]:
    return [
        SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
        for event in log.read(settings.names.heads)
    ]


def _sizes(heads: list[MapHead]) -> list[int]:
    return [0, *(head.log_size for head in heads[:-1])]


def _done(supervisor: Supervisor, log: EsdbLog, settings: Settings, items: int) -> MapHead | None:
    supervisor.check()
    refused = [child.name for child in supervisor.children if child.final_code is not None]
    if refused:
        raise KtError(f"{refused[0]} ended for good")
    heads = _heads(log, settings)
    return heads[-1] if heads and heads[-1].log_size > items else None


def _is_acknowledged(uri: str, settings: Settings, head: MapHead) -> bool:
    """Return whether the group has acknowledged the items of ``head``, according to the server."""
    log = connect(uri)
    try:
        info = log._client.get_subscription_info(GROUP, settings.names.queue, timeout=5)
    finally:
        log.close()
    checkpoint = info.last_checkpointed_event_position
    return bool(checkpoint) and int(str(checkpoint).split("@")[0]) >= head.queue_next - 1


def _written(log: EsdbLog, settings: Settings) -> tuple[int, int]:
    count = size = 0
    for event in log.read(settings.names.mutations):
        count += 1
        size += len(event.data)
    return count, size


def _until(condition: Callable[[], object], seconds: float, what: str):  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        try:
            if value := condition():
                return value
        except UnavailableError:
            pass
        if time.monotonic() > deadline:
            raise KtError(f"not within {seconds:.0f} s: {what}")
        pause.wait(0.5)


def peak_memory(pid: int) -> float:
    """Return the most memory that a process had resident, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
