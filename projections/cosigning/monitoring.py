"""A monitor cosigns what it has replayed, shows it, and hands it to the directory.

It has the same memory as a witness (``kt_es.witness``): a folder with its key and what it has cosigned last.
So it never cosigns two logs, also if its data directory was lost and it has replayed anew. It compares
with a front end before it hands anything to it: one that shows another signed log is evidence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

import structlog

from kt_es.api.cosigned import CosignaturesRequest
from kt_es.api.operations import COSIGNATURES
from kt_es.client.elsewhere import Elsewhere
from kt_es.client.transport import Transport
from kt_es.errors import (
    ConfigError,
    DiskFullError,
    DivergenceError,
    MalformedError,
    RefusedError,
    UnavailableError,
)
from kt_es.formats.heads import LOG_NAMES, Checkpoint, LogName, log_origins
from kt_es.formats.notes import VerifierKey, parse_note, verifier_key
from kt_es.formats.witnessing import AddCheckpoint, origin_hash
from kt_es.ledger.comparing import compare_checkpoint
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.proofs import prove_consistency
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.process.clock import wall_clock
from kt_es.process.signals import working
from kt_es.process.site import Page
from kt_es.witness.state import opened
from kt_es.witness.witness import Witness
from projections.gossip import Gossip, Neighbour

INTERVAL: Final = 60.0
"""Seconds between two cosignatures of each log."""
PATIENCE: Final = 10.0
"""Seconds of one request to the directory, at most."""
_GRACE: Final = 15.0

_LOG = structlog.get_logger("monitor")


class CosignerMetrics(Protocol):
    """What ``MonitorMetrics`` is told."""

    def cosigned(self, log: LogName, size: int, time: int) -> None:
        """Report that a checkpoint of ``size`` leaves was cosigned at ``time`` (ms)."""

    def not_handed_over(self, place: str, times: int = 1) -> None:
        """Report that the front end has not taken so many cosignatures."""


@dataclass(frozen=True, slots=True)
class CosignerSettings:
    """``folder`` is as of ``kt_es.witness.state``; a new one needs ``name``.

    ``interval`` is in seconds. ``publish`` are URLs of front ends of the directory.
    """

    folder: Path
    name: str | None = None
    interval: float = INTERVAL
    publish: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CosignedLog:
    """What was cosigned last by this process: a checkpoint of ``size`` leaves, at ``time`` (ms)."""

    log: LogName
    size: int
    time: int


@dataclass(frozen=True, slots=True)
class Handed:
    """``time`` (ms) is when a front end took a cosignature last. ``problem`` is empty if it takes them."""

    url: str
    time: int | None = None
    problem: str = ""


class MonitorCosigner:
    """Cosigns what ``ledger`` has verified. One thread cosigns, and any may read what it shows.

    Args:
        witness: Has the key and the memory.
        ledger: What was verified here.
        directories: The front ends that get the cosignatures.
        gossip: Compares with the same front ends.
        metrics: Hears what was cosigned, and what no front end took.
    """

    def __init__(
        self,
        witness: Witness,
        ledger: Ledger,
        directories: Sequence[Transport],
        gossip: Gossip | None = None,
        metrics: CosignerMetrics | None = None,
    ) -> None:
        self._witness = witness
        self._ledger = ledger
        self._directories = directories
        self._gossip = gossip or Gossip((), ledger, wall_clock)
        self._metrics = metrics
        self._problems: dict[tuple[str, str], str] = {}
        self._latest: dict[LogName, CosignedLog] = {}
        self._handed = {directory.base_url: Handed(directory.base_url) for directory in directories}
        for directory in directories:
            if metrics is not None:
                metrics.not_handed_over(directory.base_url, 0)
        self._origins = log_origins(ledger.committed.standing.origin)

    @property
    def vkey(self) -> str:
        return self._witness.identity.public.vkey

    def page(self, log: LogName) -> Page | None:
        """Return the cosigned checkpoint of ``log``, None if there is none yet."""
        reply = self._witness.monitored(origin_hash(self._origins[log]))
        return Page(reply.body) if reply.status == HTTPStatus.OK else None

    @property
    def latest(self) -> tuple[CosignedLog, ...]:
        return tuple(self._latest.values())

    @property
    def handed(self) -> tuple[Handed, ...]:
        return tuple(self._handed.values())

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """The comparisons with the front ends that get the cosignatures."""
        return self._gossip.neighbours

    def run(self, stop: threading.Event, interval: float) -> None:
        """Cosign every ``interval`` seconds until ``stop``.

        Raises ``EquivocationError`` if what was cosigned before, or what a front end shows, is another log
        than was verified now.
        """
        while not stop.is_set():
            due = time.monotonic() + interval
            notes = [note for log in LOG_NAMES if (note := self._cosigned(log)) is not None]
            if notes:
                # Before the front end is told: one that finds the fork first shows its checkpoints no more.
                self._gossip.ask()
            for note in notes:
                self._hand_over(note, stop)
            stop.wait(max(0.0, due - time.monotonic()))

    def _cosigned(self, log: LogName) -> str | None:
        """Cosign the newest checkpoint of ``log``, and return it; None if there is nothing to cosign now.

        It is on the disk before this returns. Nothing is cosigned before the replay has reached what was
        cosigned by an earlier run.
        """
        committed = self._ledger.committed
        if not committed.epoch:
            return None
        event = self._ledger.tables.heads.event(committed.epoch)
        note = event.heads_checkpoint if log == "heads" else event.mutations_checkpoint
        if not note:
            # A replay from tiles has the checkpoints of some epochs only.
            return None
        signers = {signed.config.signer_key.raw for signed in config_chain(self._ledger, committed)}
        if self._ledger.pinned.raw not in signers:
            # It may be another directory's log. The replay says so at its end.
            return None
        self._witness.logs = {origin: _keys(origin, signers) for origin in self._origins.values()}
        shown = self._witness.monitored(origin_hash(self._origins[log]))
        old = 0
        if shown.status == HTTPStatus.OK:
            try:
                compared = compare_checkpoint(self._ledger, log, shown.body)
            except UnavailableError:
                raise ConfigError(
                    f"the data directory began with a snapshot that has more of the log of {log} than this "
                    "monitor cosigned before, so it cannot tell whether the log only grew: begin with an "
                    "older snapshot, or with none"
                ) from None
            if compared.ahead:
                return None
            old = compared.size
        size = Checkpoint.parse(parse_note(note).text).size
        if old > size:
            # The replay has reached what was cosigned since ``committed`` was read.
            return None
        nodes = HEADS_LOG if log == "heads" else MUTATIONS_LOG
        proof = prove_consistency(self._ledger, committed, nodes, old, size)
        try:
            reply = self._witness.add_checkpoint(AddCheckpoint(old, proof, note).encode())
        except DiskFullError as error:
            self._say("cosigned", str(error))
            return None
        if reply.status != HTTPStatus.OK:
            problem = reply.body.decode("utf-8", "replace").strip()
            raise DivergenceError(f"{self._origins[log]} of size {size} cannot be cosigned: {problem}")
        self._say("cosigned")
        self._latest[log] = CosignedLog(log, size, wall_clock())
        if self._metrics is not None:
            self._metrics.cosigned(log, size, self._latest[log].time)
        return note + reply.body.decode()

    def _hand_over(self, note: str, stop: threading.Event) -> None:
        for directory in self._directories:
            if stop.is_set():
                return
            url = directory.base_url
            try:
                directory.post(COSIGNATURES.path, CosignaturesRequest(note), directory.deadline())
            except (UnavailableError, RefusedError, MalformedError) as error:
                self._say("handed over", str(error), url)
                self._handed[url] = replace(self._handed[url], problem=str(error))
                if self._metrics is not None:
                    self._metrics.not_handed_over(url)
            else:
                self._say("handed over", to=url)
                self._handed[url] = Handed(url, wall_clock())

    def _say(self, what: str, problem: str = "", to: str = "") -> None:
        """Log once that something is not done, and once that it is done again. ``to`` is a front end."""
        before = self._problems.get((what, to), "")
        self._problems[what, to] = problem
        where = {"to": to} if to else {}
        if problem and problem != before:
            _LOG.warning(f"not {what}", problem=problem, **where)
        elif before and not problem:
            _LOG.info(f"{what} again", **where)


def _keys(origin: str, signers: set[bytes]) -> tuple[VerifierKey, ...]:
    return tuple(verifier_key(origin, signer) for signer in sorted(signers))


@contextmanager
def cosigning(
    settings: CosignerSettings | None,
    ledger: Ledger,
    ending: threading.Event,
    show: Callable[[MonitorCosigner], None],
    metrics: CosignerMetrics | None = None,
) -> Iterator[None]:
    """Cosign in a thread while the block runs.

    Args:
        ending: Is set by an error of the thread, which is raised as the block ends.
        show: Called with the cosigner before the thread begins.
        metrics: As in ``MonitorCosigner``.

    Raises ``ConfigError``, ``LockedError``, ``EquivocationError`` and ``DivergenceError``.
    """
    if settings is None:
        yield
        return
    with ExitStack() as stack:
        identity = stack.enter_context(opened(settings.folder, settings.name, option="--cosigner-name"))
        directories = [
            stack.enter_context(closing(Transport(url, timeout=PATIENCE))) for url in settings.publish
        ]
        origin = ledger.committed.standing.origin
        places = [stack.enter_context(closing(Elsewhere(url, origin))) for url in settings.publish]
        gossip = Gossip(places, ledger, wall_clock)
        witness = Witness(identity, {}, time.time)
        cosigner = MonitorCosigner(witness, ledger, directories, gossip, metrics)
        show(cosigner)
        _LOG.info("cosigning", name=identity.name, vkey=cosigner.vkey, publish=list(settings.publish))
        stack.enter_context(
            working("cosigner", lambda stop: cosigner.run(stop, settings.interval), ending, _GRACE)
        )
        yield
