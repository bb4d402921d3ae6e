"""``kt cosign`` as a process: at its interval it reads the newest head, asks the witnesses, and publishes."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from kt_es.api.codec import decode_model
from kt_es.api.cosigned import CosignedBody
from kt_es.api.models import ConsistencyBody
from kt_es.api.operations import COSIGNED as COSIGNED_HEADS
from kt_es.api.paths import consistency_path
from kt_es.client.transport import Transport
from kt_es.errors import AccessDeniedError, MalformedError, UnavailableError, WrongRevisionError
from kt_es.eventstore.connecting import Connector
from kt_es.eventstore.rights import MAX_COUNT
from kt_es.eventstore.streams import ANY, EventLog, StreamNames, content_event
from kt_es.formats.cosignatures import CosignerKey
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.process.exposition import exposed
from kt_es.process.folders import one_process
from kt_es.process.outage import Backoff, Outage, keep_trying
from kt_es.process.signals import Reload, reloading
from kt_es.server.cosigning import COSIGNED
from projections.cosigning.asking import WitnessClient
from projections.cosigning.memory import Memory
from projections.cosigning.metrics import CosignMetrics
from projections.cosigning.rounds import Rounds, patient
from projections.cosigning.shown import Shown

KEPT: Final = 4096
"""Events that the stream keeps, one and a half days at two a minute. Front ends read them at their start."""
PROOF_SECONDS: Final = 5.0

_LOG = structlog.get_logger("cosign")


@dataclass(frozen=True, slots=True)
class AskedWitness:
    """A witness of the policy: its name there, its key, and its submission prefix."""

    name: str
    key: CosignerKey
    url: str


@dataclass(frozen=True, slots=True)
class CosignSettings:
    """``log`` is a connection string, ``server`` the URL of a front end that proves, ``interval`` in seconds.

    ``ca`` is the authority that front end and witnesses may have a certificate of, beside the usual ones. It
    is in the ``verify`` of ``serve``, so a reload does not change it and says so.
    """

    names: StreamNames
    log: str
    server: str
    data: Path
    witnesses: Sequence[AskedWitness]
    interval: float
    metrics: tuple[str, int] | None = None  # host and port to serve metrics at
    ca: Path | None = None


def serve(
    settings: CosignSettings,
    verify: ssl.SSLContext,
    stop: threading.Event,
    reread: Callable[[], CosignSettings] | None = None,
    *,
    connect: Callable[[], EventLog] | None = None,
) -> None:
    """Ask for cosignatures until ``stop``; wait while the event log is away or the disk is full.

    After each SIGHUP ``reread`` returns the new settings, and a new interval is in force.

    Raises:
        ConfigError: The data directory, a URL or the connection string cannot be used.
        LockedError: Another process uses the data directory.
        KtError: The event log denies the right to write cosignatures.
    """
    connect = connect or Connector(settings.log)
    reload = Reload(settings, reread, ("interval",))
    metrics = CosignMetrics()
    outage = Outage("cosign", _LOG, on_begin=metrics.outage)
    with ExitStack() as stack:
        stack.enter_context(one_process(settings.data, "kt cosign"))
        memory = Memory(settings.data)
        frontend = stack.enter_context(closing(Transport(settings.server, verify=verify)))
        witnesses = [
            stack.enter_context(closing(WitnessClient(each.name, each.key, each.url, verify)))
            for each in settings.witnesses
        ]
        prove = patient(_prover(frontend), PROOF_SECONDS, stop)
        rounds = stack.enter_context(closing(Rounds(witnesses, memory, prove, metrics)))
        shown = Shown(_shower(frontend), {each.key: each.name for each in settings.witnesses})
        if settings.metrics is not None:
            stack.enter_context(exposed(metrics.registry, *settings.metrics))
        stack.enter_context(reloading(reload))
        _LOG.info("asking", witnesses=[each.name for each in witnesses], interval=settings.interval)
        stream, backoff = settings.names.cosignatures, Backoff()

        def attempt() -> None:
            with closing(connect()) as log:
                _bound(log, stream)
                while not stop.is_set():
                    due = time.monotonic() + reload.current.interval
                    # What the round before has published; front ends have read it by now.
                    shown.look()
                    for note in _round(log, settings.names, rounds, metrics, stop):
                        shown.published(note)
                    outage.over()
                    backoff.reset()
                    stop.wait(max(0.0, due - time.monotonic()))

        keep_trying(attempt, stop, outage, backoff)


def _round(
    log: EventLog, names: StreamNames, rounds: Rounds, metrics: CosignMetrics, stop: threading.Event
) -> Iterator[bytes]:
    """Ask about the newest head, publish what comes back at once, and yield it. Nothing without a head."""
    newest = log.last_event(names.heads)
    if newest is None:
        return
    try:
        event = HeadEvent.decode(newest.data)
        epoch = SignedMapHead.decode(event.smh_bytes).head.epoch
        for name, note in (("heads", event.heads_checkpoint), ("mutations", event.mutations_checkpoint)):
            for cosigned in rounds.ask(name, note, stop):
                log.append(names.cosignatures, ANY, [content_event(names.cosignatures, COSIGNED, cosigned)])
                yield cosigned
    except MalformedError as error:
        # Front ends and monitors stop at such a head; nobody is to cosign it.
        _LOG.error("the newest head is malformed", revision=newest.revision, problem=str(error))
        return
    metrics.size.set(epoch)


def _prover(frontend: Transport) -> Callable[[str, int, int], tuple[bytes, ...]]:
    def prove(log: str, old: int, size: int) -> tuple[bytes, ...]:
        path = consistency_path(log, old, size)
        answer = frontend.get(path, frontend.deadline(PROOF_SECONDS), patient=False)
        return decode_model(ConsistencyBody, answer.body).hashes

    return prove


def _shower(frontend: Transport) -> Callable[[], tuple[str, ...]]:
    def show() -> tuple[str, ...]:
        answer = frontend.get(COSIGNED_HEADS.path, frontend.deadline(PROOF_SECONDS), patient=False)
        body = decode_model(CosignedBody, answer.body)
        return body.heads + body.mutations

    return show


def _bound(log: EventLog, stream: str) -> None:
    """Let the server remove cosignatures that newer ones have replaced long ago."""
    metadata = log.metadata(stream)
    if MAX_COUNT in metadata.values:
        return
    try:
        log.set_metadata(stream, {**metadata.values, MAX_COUNT: KEPT}, metadata.revision)
    except WrongRevisionError:
        raise UnavailableError("another process has just changed the metadata of the cosignatures") from None
    except AccessDeniedError as error:
        _LOG.warning("cosignatures are kept for ever", problem=str(error), advice="run kt init --acl")
