"""A front end of several processes: kills, restarts, reloads, metrics, and limits over all workers."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kt_es.client.client import Client
from kt_es.client.state import FileStateStore
from kt_es.client.trusted import Pinned
from kt_es.crypto.signatures import PrivateKey
from tests.e2e.processes import Up, account, import_accounts, running_up, until
from tests.e2e.test_reload import Reloading

pytestmark = pytest.mark.e2e

KEY = PrivateKey.from_seed(1, bytes(range(32)))
NAMES = [f"user{number}" for number in range(40)]
FAST = ("--min-interval", "0.05", "--max-interval", "2")
"""Epochs follow each other quickly."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("workers") / "data", *FAST) as up:
        base = tmp_path_factory.mktemp("owner")
        with up.client(base / "state") as client:
            report = import_accounts(client, NAMES, KEY, at=0, then=lambda: None)
        assert not report.refused, report
        yield up


class Workers(Reloading):
    """``kt frontend`` with workers, beside the front end of ``kt up``."""

    def __init__(self, up: Up, base: Path, *options: str, workers: int = 2) -> None:
        arguments = ("--log", up.log_uri, "--data", base / "data", "--listen", "127.0.0.1:0")
        count = ("--workers", str(workers))
        super().__init__(base / "log", "-c", up.settings, "frontend", *arguments, *count, *options)
        self.url = self.wait_for_line("serving").split('"url": "')[1].split('"')[0]
        self.where = self.url.removeprefix("http://")
        until(lambda: self.ready[0] == 200, "it is ready")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the document of one request on a connection of its own."""
        with closing(http.client.HTTPConnection(self.where, timeout=20)) as connection:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text.startswith(b"{") else text.decode()

    @property
    def ready(self) -> tuple[int, Any]:
        return self.ask("GET", "/readyz")

    def lookup(self, number: int = 0) -> tuple[int, Any]:
        return self.ask("POST", "/v1/lookup", {"label": account(f"user{number}").label})

    @property
    def children(self) -> dict[int, str]:
        """The roles of the processes that it has started, by their ids."""
        found = {}
        for pid in _children(self.process.pid):
            # One that has ended meanwhile has no files any more.
            with suppress(FileNotFoundError):
                found[pid] = "replica" if _has_data(pid) else "worker"
        return found

    def pids(self, role: str) -> list[int]:
        return [pid for pid, found in self.children.items() if found == role]

    def metric(self, name: str) -> float:
        """A value of the one page of metrics; 0 if there is none."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("GET", "/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread that ended meanwhile has none.
        with suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _has_data(pid: int) -> bool:
    """Whether the process holds the lock of a data directory."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if link.readlink().name == "LOCK":
                return True
        except OSError:
            continue
    return False


@contextmanager
def workers(up: Up, base: Path, *options: str, count: int = 2) -> Iterator[Workers]:
    """Workers that SIGTERM ends without a complaint afterwards."""
    base.mkdir(parents=True, exist_ok=True)
    running = Workers(up, base, *options, workers=count)
    try:
        yield running
        assert running.process.poll() is None, running.spoken
        children = running.children
        assert running.stop(signal.SIGTERM) == 0, running.spoken
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    finally:
        running.stop(signal.SIGKILL)


class Asking:
    """Clients that look labels up all the time, verify the answers, and note what failed."""

    def __init__(self, front: Workers, up: Up, base: Path, clients: int = 3) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(front, up, base / f"client{number}"))
            for number in range(clients)
        ]

    def _run(self, front: Workers, up: Up, state: Path) -> None:
        number = 0
        while not self._stop.is_set():
            # One connection for each, so that each worker gets some.
            with Client(front.url, FileStateStore(state), pinned=Pinned.parse(up.vkey), timeout=20) as client:
                for _ in range(5):
                    number += 1
                    try:
                        assert client.lookup(account(f"user{number % 40}").label).profile
                        self.answered += 1
                    except Exception as error:
                        self.failures.append(f"{type(error).__name__}: {error}")

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def more(self, count: int) -> None:
        """Wait until ``count`` further lookups were answered."""
        least = self.answered + count
        until(lambda: self.answered >= least, f"{count} more answers; failures: {self.failures[-3:]}")


def _publish(front: Workers, up: Up, base: Path, names: list[str]) -> None:
    """Publish accounts through the workers. Each is looked up, with its proofs, after its verdict."""
    pinned = Pinned.parse(up.vkey)

    def publish(name: str) -> None:
        # A client of its own has connections of its own, so each worker gets some.
        with Client(front.url, FileStateStore(base / name), pinned=pinned, timeout=60) as client:
            wanted = account(name)
            client.publish(wanted.label, wanted.profile, [KEY])
            assert client.lookup(wanted.label).profile == wanted.profile

    with ThreadPoolExecutor(6) as pool:
        for _ in pool.map(publish, names):
            pass


def test_lookups_and_submissions_at_every_worker(directory: Up, tmp_path: Path) -> None:
    with workers(directory, tmp_path, count=3) as front:
        assert len(front.pids("replica")) == 1
        assert len(front.pids("worker")) == 3
        # Connections that stay open land on the worker with the fewest.
        connections = [http.client.HTTPConnection(front.where, timeout=20) for _ in range(6)]
        for connection in connections:
            connection.connect()
        for number, connection in enumerate(connections):
            body = json.dumps({"label": account(NAMES[number]).label})
            connection.request("POST", "/v1/lookup", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200
            response.read()
        sockets = [len(_sockets(pid)) for pid in front.pids("worker")]
        assert max(sockets) - min(sockets) <= 1, sockets
        for connection in connections:
            connection.close()
        # More of them than one connection has, with epochs in quick succession.
        _publish(front, directory, tmp_path / "owner", [f"new{number}" for number in range(60)])
        until(lambda: front.metric('kt_submissions_total{verdict="accepted"}') == 60, "all are counted")
        until(lambda: front.metric('kt_lookups_total{result="found"}') >= 66, "lookups are counted")
        assert front.metric("kt_workers") == 3


def _sockets(pid: int) -> set[str]:
    """The established TCP connections of a process, by their inodes."""
    table = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    established = {f"socket:[{row[9]}]" for row in table if row[3] == "01"}
    links = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.add(str(link.readlink()))
        except OSError:
            continue
    inbound = {f"socket:[{row[9]}]" for row in table if row[1].split(":")[1] in _ports(table)}
    return established & links & inbound


def _ports(table: list[list[str]]) -> set[str]:
    return {row[1].split(":")[1] for row in table if row[3] == "0A"}


def test_a_worker_that_is_killed_is_started_again(directory: Up, tmp_path: Path) -> None:
    with workers(directory, tmp_path) as front, Asking(front, directory, tmp_path) as asking:
        asking.more(20)
        counted = front.metric('kt_lookups_total{result="found"}')
        killed = front.pids("worker")[0]
        os.kill(killed, signal.SIGKILL)
        until(
            lambda: len(front.pids("worker")) == 2 and killed not in front.pids("worker"), "another one runs"
        )
        until(lambda: front.metric("kt_workers") == 2, "it takes connections")
        asking.more(20)
        assert front.metric('kt_lookups_total{result="found"}') >= counted
        assert front.metric('kt_process_restarts_total{role="worker"}') == 1
        assert "died: it is started again" in front.spoken
        # What the killed worker was answering is lost, and nothing else.
        assert len(asking.failures) <= 3, asking.failures


def test_workers_answer_while_the_replica_is_gone_and_say_so(directory: Up, tmp_path: Path) -> None:
    with workers(directory, tmp_path) as front, Asking(front, directory, tmp_path) as asking:
        (replica,) = front.pids("replica")
        os.kill(replica, signal.SIGSTOP)
        os.kill(replica, signal.SIGKILL)
        found = until(lambda: _not_ready(front), "they are not ready")
        assert found is not None
        status, document = found
        assert status == 503
        assert document["reasons"] == ["replica-away"]
        assert front.lookup()[0] == 200
        until(lambda: front.ready[0] == 200, "the replica is back")
        (again,) = front.pids("replica")
        assert again != replica
        _publish(front, directory, tmp_path / "owner", [f"later{number}" for number in range(10)])
        asking.more(20)
        assert not asking.failures, asking.failures
        assert front.metric('kt_process_restarts_total{role="replica"}') == 1


def _not_ready(front: Workers) -> tuple[int, Any] | None:
    answer = front.ready
    return None if answer[0] == 200 else answer


def test_sigusr1_replaces_the_workers_and_no_request_fails(directory: Up, tmp_path: Path) -> None:
    with workers(directory, tmp_path) as front, Asking(front, directory, tmp_path) as asking:
        asking.more(10)
        before = set(front.pids("worker"))
        front.process.send_signal(signal.SIGUSR1)
        until(lambda: len(now := set(front.pids("worker"))) == 2 and not now & before, "all are new")
        asking.more(20)
        assert not asking.failures, asking.failures
        assert front.spoken.count("a worker is being replaced") == 2


def test_a_client_has_one_rate_over_all_workers(directory: Up, tmp_path: Path) -> None:
    # A burst of four seconds, once at each worker, before they have told each other.
    # A client that is refused is not read for a while, so its connections stay: fewer than 64, their limit.
    rate, burst = 1, 4
    options = ("--address-rate", str(rate), "--exempt", "192.0.2.0/24")
    with workers(directory, tmp_path, *options, count=3) as front:
        began = time.monotonic()
        answers = [front.lookup()[0] for _ in range(40)]
        seconds = time.monotonic() - began
        assert burst <= answers.count(200) <= 3 * (burst + 1) + rate * seconds, answers
        # Each worker refuses now, also one that has answered nothing before.
        until(lambda: {front.lookup()[0] for _ in range(6)} == {429}, "all refuse")


def test_sighup_brings_new_limits_to_every_worker(directory: Up, tmp_path: Path) -> None:
    settings = tmp_path / "kt.toml"
    folder = directory.settings.parent
    text = re.sub(r'"keys/', f'"{folder}/keys/', directory.settings.read_text())
    settings.write_text(text)
    base = tmp_path / "front"
    base.mkdir()
    with workers(directory, base) as front:
        front.reload()
        until(lambda: front.spoken.count('"reloaded"') >= 3, "this process and both workers did")
        assert front.ready[0] == 200


def test_the_processes_end_with_the_one_that_started_them(directory: Up, tmp_path: Path) -> None:
    front = Workers(directory, tmp_path)
    children = front.children
    assert len(children) == 3
    front.stop(signal.SIGKILL)
    until(lambda: not [pid for pid in children if _runs(pid)], "they have ended")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
