"""Real processes for the tests: ``kt`` as a stranger runs it, ``kt up`` from start to clean stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kt_es.cli.owners.importing import MERGING
from kt_es.client.bulk import BulkProgress, BulkReport, publish_all
from kt_es.client.client import Client
from kt_es.client.planning import Wanted
from kt_es.client.state import FileStateStore
from kt_es.client.trusted import Pinned
from kt_es.crypto.signatures import PrivateKey
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import Event, StreamNames
from kt_es.formats.entries import ProfileKey
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import Record, decode_records

KT = str(Path(sys.executable).with_name("kt"))
NAMES = StreamNames("people")
ORIGIN = "localhost/people"
ANYWHERE = ("--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0")
SHORT = ("--min-interval", "0.2", "--max-interval", "5")
SPOKEN_TAIL = 6000
ENVIRONMENT: dict[str, str] = {}
"""What processes that go on find in their environment, besides what every user has."""

_T = TypeVar("_T")


def until(condition: Callable[[], _T], what: str, seconds: float = 45.0) -> _T:
    """The first true value of ``condition``; an AssertionError names ``what`` did not come true."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        pause.wait(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Ran:
    """What a finished command said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line that a failed command says."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("✗ "), self.err
        return lines[0].removeprefix("✗ ")


class Stranger:
    """A user with a home of their own, who knows of the directory only what ``environment`` says.

    ``command`` is the ``kt`` that they have.
    """

    def __init__(self, home: Path, *, command: str | Path = KT, **environment: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._command = str(command)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "LANG": "C.UTF-8",
            **environment,
        }

    @property
    def state(self) -> Path:
        return self.home / "state" / "kt-es"

    def kt(self, *arguments: str | Path, code: int = 0, seconds: float = 90.0) -> Ran:
        """Run ``kt`` to its end; it has to end with ``code``, and never with a traceback."""
        done = subprocess.run(
            [self._command, *map(str, arguments)],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in ran.out + ran.err, ran
        assert "internal error" not in ran.err, ran
        assert ran.code == code, ran
        return ran


class Running:
    """A ``kt`` process that goes on until it is stopped; what it says is kept in a file."""

    def __init__(self, spoken: Path, *arguments: str | Path) -> None:
        self._spoken = spoken
        with spoken.open("wb") as file:
            self.process = subprocess.Popen(
                [KT, *map(str, arguments)],
                env=Stranger(spoken.parent / "home", **ENVIRONMENT).environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    @property
    def spoken(self) -> str:
        return self._spoken.read_text(errors="replace")

    def wait_for_line(self, text: str, seconds: float = 45.0) -> str:
        """Wait until a line with ``text`` was said; that line."""

        def line() -> str:
            found = [line for line in self.spoken.splitlines() if text in line]
            assert found or self.process.poll() is None, f"ended without {text!r}:\n{self.spoken}"
            return found[0] if found else ""

        return until(line, f"{text!r} in what it says:\n{self.spoken}", seconds)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()
            self.process.wait()


class Up(Running):
    """``kt up`` over a data directory. Addresses and pids are those of its ``up.json``."""

    def __init__(self, data: Path, *options: str) -> None:
        data.parent.mkdir(parents=True, exist_ok=True)
        self.data = data
        self.state_file = data / "up.json"
        self.state_file.unlink(missing_ok=True)
        self._seen: set[int] = set()
        super().__init__(data.with_name(data.name + ".log"), "up", "-v", "--data", data, *ANYWHERE, *options)

    def wait(self) -> Up:
        """Until everything is served."""
        self.wait_for_line(" is served at ", 90)
        return self

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.state_file.read_text())
        self._seen.update(state["processes"].values())
        return state

    @property
    def url(self) -> str:
        return str(self.state["url"])

    @property
    def log_uri(self) -> str:
        return str(self.state["log"])

    @property
    def vkey(self) -> str:
        return str(self.state["key"])

    @property
    def settings(self) -> Path:
        return self.data / "kt.toml"

    def pid(self, name: str) -> int:
        return int(self.state["processes"][name])

    def restarted(self, name: str, before: int) -> int:
        """Wait until ``name`` runs as another process than ``before``; its pid."""
        return until(
            lambda: next(
                (pid for pid in [self.state["processes"].get(name)] if pid not in (None, before)), 0
            ),
            f"{name} runs again",
        )

    def end(self) -> None:
        """Interrupt; it has to end cleanly and to leave no process behind."""
        children = set(self.state["processes"].values()) if self.state_file.exists() else set()
        assert self.stop() == 0, self.spoken[-SPOKEN_TAIL:]
        assert not [pid for pid in children | self._seen if is_alive(pid)]
        assert not self.state_file.exists()
        assert "Traceback" not in self.spoken

    def client(self, state: Path, timeout: float = 60.0) -> Client:
        return Client(self.url, FileStateStore(state), pinned=Pinned.parse(self.vkey), timeout=timeout)

    def stranger(self, home: Path, command: str | Path = KT) -> Stranger:
        """Somebody who was given the address and the directory's key."""
        return Stranger(home, command=command, KT_SERVER=self.url, KT_VKEY=self.vkey)

    def audit(self) -> dict[str, Any]:
        """``kt audit`` from the start, which has to find everything correct."""
        someone = Stranger(self.data.parent / "auditor")
        ran = someone.kt("--json", "-c", self.settings, "audit", "--allow-gaps", "--log", self.log_uri)
        document: dict[str, Any] = ran.document
        assert document["compared_with_queue"] == document["records"]
        return document


@contextmanager
def running_up(data: Path, *options: str) -> Iterator[Up]:
    """A ``kt up`` that is ready, and ends cleanly afterwards."""
    up = Up(data, *(options or SHORT))
    try:
        yield up.wait()
        up.end()
    finally:
        up.stop(signal.SIGTERM)


@contextmanager
def log_at(uri: str) -> Iterator[EsdbLog]:
    log = connect(uri)
    try:
        yield log
    finally:
        log.close()


def heads_of(log: EsdbLog) -> list[MapHead]:
    """All published heads; they have to be one per epoch without a gap, in the order of time."""
    heads: list[MapHead] = []
    for event in log.read(NAMES.heads):
        head = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
        assert head.epoch == event.revision + 1 == len(heads) + 1
        assert not heads or head.timestamp > heads[-1].timestamp
        heads.append(head)
    return heads


def stream_of(log: EsdbLog, stream: str) -> list[tuple[str, bytes]]:
    """Type and bytes of every event of a stream."""
    return [(event.type, event.data) for event in log.read(stream)]


def records_of(log: EsdbLog) -> list[Record]:
    return [Record.decode(data) for event in log.read(NAMES.mutations) for data in _encoded(event)]


def _encoded(event: Event) -> list[bytes]:
    return decode_records(event.data)[1]


def account(name: str) -> Wanted:
    """A small account to import."""
    return Wanted(f"{name}@example.org", (ProfileKey("laptop", "raw", f"key of {name}".encode()),))


def import_accounts(
    client: Client,
    names: Sequence[str],
    key: PrivateKey,
    *,
    at: int,
    then: Callable[[], None],
    patience: float = 90.0,
) -> BulkReport:
    """Import one account for each name, as ``kt import`` does; the ``at``-th submission calls ``then``."""
    lock = threading.Lock()
    submitted = 0

    def step() -> None:
        nonlocal submitted
        with lock:
            submitted += 1
            if submitted == at:
                then()

    progress = BulkProgress(step, lambda: None)
    return publish_all(
        client, map(account, names), [key], progress, merging=MERGING, jobs=4, patience=patience
    )
