"""The directory under torture: its processes, each behind its own proxy, and their log messages."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from kt_es.cli.addresses import free_address
from kt_es.cli.operators.init import NewDirectory, begin_queue, write_directory
from kt_es.cli.supervisor import PARENT_PIPE
from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME
from kt_es.errors import UnavailableError
from kt_es.eventstore.connecting import connect
from tools.torture.proxy import Network

ROOT = Path(__file__).parents[2]
SIGNERS = ("signer-1", "signer-2")
CLIENTS = (*SIGNERS, "frontend", "monitor")
PROCESSES = ("node", *CLIENTS)
# A third signer, which does not wait to become active. It runs only in special rounds.
TWIN = "twin"
WRITERS = "writers"
MIN_INTERVAL = 0.5
MAX_INTERVAL = 5.0
# Milliseconds that are added to the allowed age of a head. Outages last longer than a head may be old, and
# the age of heads is not tested here.
SLACK = 3_600_000
ROLES = ("active", "standby", "the event log cannot be reached")


class TortureError(Exception):
    """A check failed."""


def eventually(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until ``condition`` is true. Raises ``TortureError`` with ``what`` after ``seconds``."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TortureError(f"not within {seconds:.0f} s: {what}")
        pause.wait(0.05)


@dataclass(slots=True)
class Spoken:
    """The log messages of a process so far, read from its growing log file."""

    path: Path
    said: Counter[str] = field(default_factory=Counter)
    role: str = ""
    verified: int = 0
    _offset: int = 0

    def update(self) -> Spoken:
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
            end = data.rfind(b"\n") + 1
            self._offset += end
            for line in data[:end].splitlines():
                self._take(line)
        return self

    def _take(self, line: bytes) -> None:
        if b"Traceback" in line or b"internal error" in line:
            raise TortureError(f"{self.path.stem} has a bug: {self.path} has {line[:200]!r}")
        try:
            document = json.loads(line)
        except ValueError:
            # A kill truncated the line.
            return
        if not isinstance(document, dict):
            return
        event = str(document.get("event"))
        self.said[event] += 1
        self.role = event if event in ROLES else self.role
        if event == "verified":
            self.verified = max(self.verified, int(document["epoch"]))


@dataclass(slots=True)
class TortureProcess:
    """One process. ``arguments`` are those of ``kt``. ``data`` is the directory that a fault may delete."""

    name: str
    arguments: tuple[str, ...]
    data: Path
    spoken: Spoken
    module: str = "kt_es.cli.main"
    process: subprocess.Popen[bytes] | None = None
    frozen: bool = False


class TortureDirectory:
    """A node, two signers, a front end and a monitor in ``base``. Only the torture restarts them."""

    def __init__(self, base: Path) -> None:
        self.base = base = base.resolve()
        self.node = free_address()
        frontend = free_address()
        self.url = f"http://{frontend}"
        self.log_uri = f"esdb://{self.node}?Tls=false"
        self._new = NewDirectory(
            "people", "localhost/torture", self.log_uri, "email", MIN_INTERVAL, MAX_INTERVAL
        )
        self.settings = write_directory(base, self._new)
        self.network = Network(self.node.port)
        self.members: dict[str, TortureProcess] = {}
        self._read_end, self._write_end = os.pipe()
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        self._add("node", "node", "--listen", str(self.node))
        for name in SIGNERS:
            self._add(name, "signer", "--log", self.network.add(name))
        self._add(TWIN, "signer", "--log", self.network.add(TWIN))
        self.members[TWIN].module = "tools.torture.twin"
        self._add("frontend", "frontend", "--log", self.network.add("frontend"), "--listen", str(frontend))
        self._add("monitor", "monitor", "--log", self.network.add("monitor"))
        self.writers_uri = self.network.add(WRITERS)

    def _add(self, name: str, command: str, *options: str) -> None:
        data = self.base / name
        arguments = ("-q", "-c", str(self.base / FILE_NAME), command, "--data", str(data), *options)
        self.members[name] = TortureProcess(name, arguments, data, Spoken(self.base / f"{name}.log"))

    def begin(self) -> None:
        """Start all processes and wait until the directory serves."""
        self.start("node")
        eventually(self._queue_begun, "the node answers", 60)
        for name in CLIENTS:
            self.start(name)
        eventually(self.is_ready, "the front end is ready", 60)

    def _queue_begun(self) -> bool:
        self.check_alive()
        log = connect(self.log_uri)
        try:
            begin_queue(self.settings, log, self._new)
        except UnavailableError:
            return False
        finally:
            log.close()
        return True

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def client(self, timeout: float) -> Client:
        pinned = Pinned(self.settings.origin, self.settings.pinned)
        return Client(self.url, MemoryStateStore(), pinned=pinned, timeout=timeout, slack=SLACK)

    # --- actions on processes ---------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start the process ``name`` unless it runs."""
        member = self.members[name]
        if member.process is not None:
            return
        member.spoken.update().role = ""
        with member.spoken.path.open("ab") as spoken:
            member.process = subprocess.Popen(
                [sys.executable, "-m", member.module, *member.arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=spoken,
                stderr=spoken,
                pass_fds=(self._read_end,),
                # PYTHONFAULTHANDLER makes an aborted process print the stack of each thread.
                env={**os.environ, PARENT_PIPE: str(self._read_end), "PYTHONFAULTHANDLER": "1"},
                start_new_session=True,
            )

    def kill(self, name: str, number: int = signal.SIGKILL, seconds: float = 30.0) -> None:
        """End the process ``name`` by a signal and wait. A process that does not end in time is an error."""
        self.check_alive()
        member = self.members[name]
        process, member.process = member.process, None
        if process is None:
            return
        process.send_signal(number)
        if member.frozen and number != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        member.frozen = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise TortureError(f"{name} does not end by signal {number}") from None
        # A process that gets the signal before it installs its handler ends by the signal itself.
        if process.returncode not in (0, -number):
            raise TortureError(f"{name} ended with code {process.returncode} when it was told to stop")

    def freeze(self, name: str) -> None:
        member = self.members[name]
        if member.process is not None and not member.frozen:
            member.process.send_signal(signal.SIGSTOP)
            member.frozen = True

    def wake(self, name: str) -> None:
        member = self.members[name]
        if member.process is not None and member.frozen:
            member.process.send_signal(signal.SIGCONT)
        member.frozen = False

    def wipe(self, name: str) -> None:
        """Kill the process ``name`` and delete its data directory."""
        self.kill(name)
        shutil.rmtree(self.members[name].data, ignore_errors=True)

    def heal(self) -> None:
        """Let every connection pass, and wake or start every process."""
        self.network.heal()
        for name in PROCESSES:
            self.wake(name)
            self.start(name)

    # --- observations -----------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Raise if a process ended by itself, or logged a message that shows a bug."""
        for member in self.members.values():
            member.spoken.update()
            if member.process is not None and (code := member.process.poll()) is not None:
                raise TortureError(f"{member.name} ended by itself with code {code}: {member.spoken.path}")

    def spoken(self, name: str) -> Spoken:
        return self.members[name].spoken.update()

    def active(self) -> str | None:
        """Return the signer whose log says that it is active; None if no log or both logs say so."""
        active = [name for name in SIGNERS if self.spoken(name).role == "active"]
        return active[0] if len(active) == 1 else None

    def has_roles(self) -> bool:
        """Return whether one signer is active and the other waits."""
        return sorted(self.spoken(name).role for name in SIGNERS) == ["active", "standby"]

    def stop(self, cleanly: bool) -> None:
        """End all processes: ``cleanly`` by SIGTERM, with exit code 0, or by SIGABRT.

        A process that SIGABRT ends writes the stacks of its threads to its log.
        """
        try:
            if cleanly:
                for name in (TWIN, *reversed(PROCESSES)):
                    self.kill(name, signal.SIGTERM)
        finally:
            for member in self.members.values():
                self._abort(member)
            self.network.close()
            os.close(self._write_end)
            os.close(self._read_end)

    def _abort(self, member: TortureProcess) -> None:
        process, member.process = member.process, None
        if process is None:
            return
        process.send_signal(signal.SIGABRT)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
