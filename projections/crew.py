"""The processes of a front end with workers: started, heard, told, replaced and stopped."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import structlog

from kt_es.errors import ConfigError, DivergenceError, KtError, LockedError, VerificationError
from kt_es.process.channels import Channel
from kt_es.process.exposition import Samples as Registry
from kt_es.process.merging import Merged, page, snapshot
from kt_es.process.outage import Backoff
from kt_es.process.signals import Failure
from kt_es.server.clients import Uses
from kt_es.server.handing import pair
from kt_es.server.limits import Network
from projections.followed import Commit, Records, ReplicaState, Restart
from projections.frontend import FrontendSettings
from projections.messages import Failed, Page, Ready, Role, Samples, Start, Stop, Used

STOP_SECONDS = 15.0
START_SECONDS = 60.0
"""Seconds that a replacement may take to become ready."""
SETTLED = 10.0
"""Seconds after which a process counts as working."""
_TICK = 0.05

# After these errors a restart would end in the same way, or serve what is in doubt.
_FINAL = (ConfigError, DivergenceError, VerificationError)

_LOG = structlog.get_logger("kt_es.server")


@dataclass(slots=True)
class Process:
    """One process, from its start to its end. The crew's lock guards what changes."""

    key: str
    role: Role
    system: subprocess.Popen[bytes]
    channel: Channel
    door: socket.socket
    started_at: float
    is_ready: bool = False
    is_retiring: bool = False
    error: KtError | None = None
    connections: int = 0  # that it has, as it says, and that it was given since
    held: dict[Network, int] = field(default_factory=dict)  # connections by client
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Place:
    """What there has to be a process for."""

    role: Role
    name: str
    process: Process | None = None
    start_at: float = 0.0
    was_ready: bool = False
    backoff: Backoff = field(default_factory=lambda: Backoff(0.3, 5.0))


class Crew:
    """The processes. Safe for threads: each channel calls in a thread of its own.

    Attributes:
        settings: Of processes that are started from now on.
        failed: Called with the error after which the front end must stop.
        error: Why the replica served no more when it was stopped.
    """

    def __init__(
        self, settings: FrontendSettings, prepare: Callable[[str], None], scratch: Path, failed: Failure
    ) -> None:
        self.settings = settings
        self.failed = failed
        self.error: KtError | None = None
        self._prepare = prepare
        self._scratch = scratch
        self._lock = threading.RLock()  # guards all that follows
        self._stopping = False
        self._state: ReplicaState | None = None
        self._running: list[Process] = []
        self._numbers = count(1)
        self._merged = Merged()
        self._replica = None if settings.sharing is not None else Place(Role.REPLICA, "frontend replica")
        self._workers = [
            Place(Role.WORKER, f"frontend worker {number}") for number in range(1, settings.workers + 1)
        ]
        self._own = Registry()
        self._own.gauge("kt_workers", "Workers that take connections", lambda: len(self._ready_workers()))
        self._restarts = self._own.counter(
            "kt_process_restarts", "Processes of the front end that died and were started again", "role"
        )

    def begin(self, stop: threading.Event) -> bool:
        """Start all processes, the replica first. Return False if ``stop`` came first."""
        for places in ([self._replica] if self._replica else [], self._workers):
            while not all(place.process is not None and place.process.is_ready for place in places):
                self.tend(places)
                if stop.wait(_TICK):
                    return False
        return True

    def tend(self, places: Iterable[Place] | None = None) -> None:
        """Start what has to run and does not, unless it died a moment ago."""
        for place in places or [*([self._replica] if self._replica else []), *self._workers]:
            with self._lock:
                process = place.process
                if self._stopping or (process is not None and not process.ended.is_set()):
                    continue
                if process is not None:
                    self._died(place, process)
                elif time.monotonic() >= place.start_at:
                    place.process = self._start(place)

    def give(self, hand_over: Callable[[socket.socket], bool]) -> bool:
        """Give a connection to the worker with the fewest. Return False if none takes it now."""
        with self._lock:
            for process in sorted(self._ready_workers(), key=lambda worker: worker.connections):
                if hand_over(process.door):
                    process.connections += 1
                    return True
        return False

    def tell_all(self, message: object) -> None:
        """Send a message to every process."""
        for process in self._processes():
            process.channel.send(message)

    def replace_workers(self, stop: threading.Event) -> None:
        """Replace the workers one by one: each serves until its successor is ready, and ends its requests."""
        for place in self._workers:
            with self._lock:
                before = place.process
                if self._stopping or before is None or before.ended.is_set():
                    continue
                successor = self._start(place)
            _LOG.info("a worker is being replaced", worker=place.name)
            deadline = time.monotonic() + START_SECONDS
            while not (successor.is_ready or successor.ended.is_set() or stop.wait(_TICK)):
                if time.monotonic() > deadline:
                    break
            if not successor.is_ready:
                _LOG.error("a worker is not replaced: its successor is not ready", worker=place.name)
                self._stop([successor])
                return
            with self._lock:
                place.process = successor
            self._stop([before])

    def stop(self) -> None:
        """Stop the workers, and then the replica. A process that does not end in time is killed."""
        with self._lock:
            self._stopping = True
        self._stop([process for process in self._processes() if process.role is Role.WORKER])
        replica = [process for process in self._processes() if process.role is Role.REPLICA]
        self._stop(replica)
        self.error = next((process.error for process in replica if process.error), self.error)

    def _stop(self, processes: list[Process]) -> None:
        with self._lock:
            for process in processes:
                process.is_retiring = True
        for process in processes:
            process.channel.send(Stop())
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            if not process.ended.wait(max(0.0, deadline - time.monotonic())):
                _LOG.warning(
                    "a process of the front end did not end in time, so it is killed", process=process.key
                )
                process.system.kill()
                process.ended.wait(STOP_SECONDS)

    def _start(self, place: Place) -> Process:
        ours, theirs = socket.socketpair()
        door, doorway = pair()
        with theirs, doorway:
            system = subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
                [sys.executable, "-m", "projections.member", str(theirs.fileno()), str(doorway.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), doorway.fileno()),
                # An interrupt at the terminal goes only to this process, which stops the others in order.
                start_new_session=True,
            )
        key = f"{place.name} #{next(self._numbers)}"
        process = Process(key, place.role, system, Channel(ours, place.name), door, time.monotonic())
        scratch = self._scratch / str(system.pid)
        start = Start(
            place.role, place.name, self.settings, self._prepare, scratch, self._used_by_all(), self._state
        )
        process.channel.send(start)
        self._running.append(process)
        process.channel.start(lambda message: self._received(process, message), lambda: self._ended(process))
        return process

    def _received(self, process: Process, message: object) -> None:
        match message:
            case Ready():
                with self._lock:
                    process.is_ready = True
            case Used():
                self._used(process, message)
            case Samples():
                self._merged.put(process.key, message.families)
                if message.asks is not None:
                    self._merged.put("", snapshot(self._own.registry))
                    process.channel.send(Page(message.asks, page([self._merged])))
            case Failed():
                process.error = message.error
            case Records() | Commit() | Restart() | ReplicaState():
                with self._lock:
                    if isinstance(message, ReplicaState):
                        self._state = message
                    self._tell_workers(message)

    def _used(self, process: Process, message: Used) -> None:
        with self._lock:
            process.connections = message.connections
            for client, (_, change) in message.uses.items():
                process.held[client] = process.held.get(client, 0) + change
                if not process.held[client]:
                    del process.held[client]
            if message.uses:
                self._tell_workers(Used(message.uses), but=process)

    def _used_by_all(self) -> Uses:
        held: dict[Network, int] = {}
        for process in self._running:
            for client, connections in process.held.items():
                held[client] = held.get(client, 0) + connections
        return {client: (0.0, connections) for client, connections in held.items()}

    def _tell_workers(self, message: object, but: Process | None = None) -> None:
        for process in self._running:
            if process.role is Role.WORKER and process is not but:
                process.channel.send(message)

    def _ended(self, process: Process) -> None:
        """Clean up after the end of a process, or of its channel."""
        try:
            process.system.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.system.kill()
            process.system.wait()
        self._merged.end(process.key)
        with self._lock:
            self._running.remove(process)
            process.door.close()
            left = {client: (0.0, -connections) for client, connections in process.held.items()}
            if left:
                self._tell_workers(Used(left))
            if process.role is Role.REPLICA:
                self._state = None
                self._tell_workers(None)
        process.ended.set()

    def _died(self, place: Place, process: Process) -> None:
        """Decide what follows on the end of a process that should run. Called with the lock."""
        place.process = None
        error, code = process.error, process.system.returncode
        place.was_ready = place.was_ready or process.is_ready
        # Later, the data directory may be in use for a moment, by ``kt store prune`` for instance.
        if isinstance(error, _FINAL) or (isinstance(error, LockedError) and not place.was_ready):
            self.failed(error)
            return
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if time.monotonic() - process.started_at > SETTLED:
            place.backoff.reset()
        place.start_at = time.monotonic() + place.backoff.pause()
        self._restarts.labels(place.role).inc()
        _LOG.error(
            "a process of the front end died: it is started again",
            died=place.name,
            how=how,
            reason=None if error is None else str(error),
        )

    def _processes(self) -> list[Process]:
        with self._lock:
            return list(self._running)

    def _ready_workers(self) -> list[Process]:
        with self._lock:
            return [
                process
                for process in self._running
                if process.role is Role.WORKER and process.is_ready and not process.is_retiring
            ]
