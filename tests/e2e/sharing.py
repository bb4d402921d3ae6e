"""A directory over a shared store in real processes: a node, signers and front ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from kt_es.api.operations import JSON_MEDIA
from kt_es.client.client import Client
from kt_es.client.state import FileStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME, load_settings
from kt_es.ledger.cassandra_tables import ABOUT, PARTITIONS, Table
from tests.e2e.processes import Running, Stranger, account
from tests.reference.cassandra import connected

# Heads of an idle directory are 30 s apart, so an outage on a busy machine makes none too old for clients.
SHORT = ("--min-interval", "0.2", "--max-interval", "30")
AWAY = "the shared store cannot be used; try again later"
WRONG = "rows of the shared store are missing or wrong; try again later"


def share(operator: Stranger, settings: Path, address: str, replicas: int) -> None:
    """Let ``settings`` name the store at ``address``, and make its tables."""
    settings.write_text(f'{settings.read_text()}\n[store]\nshared = "{address}"\n')
    operator.kt("-c", settings, "store", "init", "--replication", str(replicas), seconds=300)


@dataclass(slots=True)
class SharedDirectory:
    """``addresses`` and ``port`` are those of Cassandra. What each process says is in a file in ``base``."""

    base: Path
    addresses: Sequence[str]
    port: int
    keyspace: str
    replicas: int
    stack: ExitStack
    uri: str = ""
    operator: Stranger = field(init=False)

    def __post_init__(self) -> None:
        self.operator = Stranger(self.base / "operator")

    @property
    def settings(self) -> Path:
        return self.base / FILE_NAME

    @property
    def vkey(self) -> str:
        return load_settings(self.settings).key

    @property
    def spoken(self) -> str:
        """What all processes here said."""
        return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(self.base.glob("*.log")))

    def begin(self) -> None:
        """Start the node, and make the directory and the tables of its store."""
        node = self.run("node", "node", "--data", self.base / "node", "--listen", "127.0.0.1:0")
        self.uri = node.wait_for_line("listening on").rpartition(" ")[2]
        self.operator.kt("init", "--data", self.base, "--log", self.uri, *SHORT)
        hosts = ",".join(f"{address}:{self.port}" for address in self.addresses)
        share(self.operator, self.settings, f"cassandra://{hosts}/{self.keyspace}", self.replicas)

    def run(self, name: str, *command: str | Path) -> Running:
        """Start a process that goes on until the end of the test, at the latest."""
        running = Running(self.base / f"{name}.log", *command)
        self.stack.callback(running.stop, signal.SIGKILL)
        return running

    def signer(self, name: str) -> Running:
        data = ("--data", self.base / name)
        return self.run(name, "-c", self.settings, "signer", "--log", self.uri, *data)

    def frontend(self, name: str, data: Path | None = None, settings: Path | None = None) -> FrontEnd:
        where = ("--data", data or self.base / name, "--listen", "127.0.0.1:0")
        command = ("-c", settings or self.settings, "frontend", "--log", self.uri, *where)
        running = self.run(name, *command)
        return FrontEnd(self, running, running.wait_for_line(" at http").rpartition(" ")[2])

    def kt(self, *arguments: str | Path, code: int = 0) -> Any:
        """Run a command of the operator and return its document."""
        words = ("--json", "-c", self.settings, *arguments, "--log", self.uri)
        return self.operator.kt(*words, code=code, seconds=300).document


@dataclass(slots=True)
class FrontEnd:
    directory: SharedDirectory
    running: Running
    url: str

    def stranger(self, home: Path) -> Stranger:
        return Stranger(home, KT_SERVER=self.url, KT_VKEY=self.directory.vkey)

    def client(self, state: Path, timeout: float = 120.0) -> Client:
        pinned = Pinned.parse(self.directory.vkey)
        return Client(self.url, FileStateStore(state), pinned=pinned, timeout=timeout)

    def lookup(self, label: str) -> httpx.Response:
        return self.post("/v1/lookup", {"label": label})

    def post(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, headers={"content-type": JSON_MEDIA}, timeout=120)

    def is_ready(self) -> bool:
        return httpx.get(f"{self.url}/readyz", timeout=120).status_code == httpx.codes.OK


@contextmanager
def shared_directory(
    base: Path, addresses: Sequence[str], port: int, keyspace: str, replicas: int = 1
) -> Iterator[SharedDirectory]:
    """A directory with a node and an empty store. Its processes end with the context."""
    with ExitStack() as stack:
        directory = SharedDirectory(base, addresses, port, keyspace, replicas, stack)
        directory.begin()
        yield directory


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a keyspace as its administrator sees and changes them, by family and key."""

    session: Any
    keyspace: str

    def read(self, family: str) -> dict[bytes, bytes]:
        rows = self.session.execute(Table(family, self.keyspace).select_all, timeout=60)
        return {b"".join(row[:-1]): row[-1] for row in rows}

    def write(self, family: str, rows: Mapping[bytes, bytes | None]) -> None:
        """Change rows at the present time, and so above the times that kt-es gives its rows."""
        table = Table(family, self.keyspace)
        columns = (*table.keys, table.value)
        marks = ", ".join("?" for _ in columns)
        insert = self.session.prepare(f"INSERT INTO {table.path} ({', '.join(columns)}) VALUES ({marks})")
        where = " AND ".join(f"{column} = ?" for column in table.keys)
        delete = self.session.prepare(f"DELETE FROM {table.path} WHERE {where}")
        for key, value in rows.items():
            if value is None:
                self.session.execute(delete, table.split(key))
            else:
                self.session.execute(insert, [*table.split(key), value])

    def empty(self) -> None:
        """Lose all rows but those that say whose the store is."""
        for family in PARTITIONS.keys() - {ABOUT}:
            self.session.execute(f"TRUNCATE {Table(family, self.keyspace).path}", timeout=120)


@contextmanager
def rows_of(directory: SharedDirectory) -> Iterator[Rows]:
    with connected(tuple(directory.addresses), directory.port) as session:
        yield Rows(session, directory.keyspace)


def all_there(front: FrontEnd, state: Path, names: Sequence[str]) -> None:
    """Every account of ``names`` is found with its keys, and every proof verified."""
    with front.client(state) as client:
        for name in names:
            wanted = account(name)
            assert client.lookup(wanted.label).profile == wanted.profile
