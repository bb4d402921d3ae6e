"""gRPC of a front end with workers: one port, kills, replacements, certificates, one rate over all."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from kt_es.formats.entries import decode_profile
from kt_es.formats.proofs import LookupAnswer
from tests.contracts.certificates import certify
from tests.e2e.processes import Running, Up, account, import_accounts, running_up, until
from tests.e2e.test_grpc import trusting
from tests.e2e.test_workers import FAST, KEY, Workers, workers
from tests.reference.grpc_doors import PATIENCE, Stub, channel_to, failure_of

pytestmark = pytest.mark.e2e

NAMES = [f"user{number}" for number in range(10)]
GRPC = ("--grpc-port", "0")
LOOKUPS = 'kt_request_seconds_count{route="/kt.v1.DirectoryService/Lookup"}'
CLIENTS = 4
_Status = health_pb2.HealthCheckResponse
_PAGE = (Path(__file__).parents[2] / "docs/GRPC.md").read_text()
RETRIES = re.findall(r"```json\n(.*?)```", _PAGE, re.DOTALL)[0]
"""The service config that the page recommends."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("workers") / "data", *FAST) as up:
        with up.client(tmp_path_factory.mktemp("owner") / "state") as client:
            report = import_accounts(client, NAMES, KEY, at=0, then=lambda: None)
        assert not report.refused, report
        yield up


def served_at(front: Workers) -> int:
    line: dict[str, Any] = json.loads(front.wait_for_line('"serving"'))
    return int(line["grpc"].rpartition(":")[2])


@contextmanager
def stubs(port: int, count: int, *options: tuple[str, Any]) -> Iterator[list[Stub]]:
    """Clients with a connection each."""
    with ExitStack() as stack:
        yield [Stub(stack.enter_context(channel_to(port, *options))) for _ in range(count)]


def found(stub: Stub, name: str) -> bool:
    """Look ``name`` up; the profile has to be its own."""
    wanted = account(name)
    answer = stub.call("Lookup", label=wanted.label)
    assert LookupAnswer.decode(answer.answer).mutation is not None
    return decode_profile(answer.profile) == wanted.profile


def connections_at(pid: int, port: int) -> set[str]:
    """The established connections to ``port`` that a process has, by their inodes."""
    found = set()
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]
        found |= {f"socket:[{row[9]}]" for row in rows if row[3] == "01" and row[1].endswith(f":{port:04X}")}
    links = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        # One that was closed meanwhile.
        with suppress(OSError):
            links.add(str(link.readlink()))
    return found & links


def health(stub: Stub) -> int:
    check = stub.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return int(check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status)


class Callers:
    """Clients that look up and watch all the time, each over a connection of its own that it keeps."""

    def __init__(self, port: int, clients: int = CLIENTS) -> None:
        self.answered = 0
        self.heads = 0
        self.failures: list[str] = []
        self._port = port
        self._stop = threading.Event()
        runs = [self._look_up] * clients + [self._watch]
        self._threads = [threading.Thread(target=run) for run in runs]

    def _channel(self) -> grpc.Channel:
        return channel_to(self._port, ("grpc.service_config", RETRIES))

    def _look_up(self) -> None:
        with self._channel() as channel:
            stub = Stub(channel)
            while not self._stop.is_set():
                try:
                    assert found(stub, NAMES[self.answered % len(NAMES)])
                    self.answered += 1
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")

    def _watch(self) -> None:
        """Watch as docs/GRPC.md says: again after each end, since the last head. Nothing may be missed."""
        with self._channel() as channel:
            stub = Stub(channel)
            since = stub.call("LatestHead").epoch
            while not self._stop.is_set():
                try:
                    for message in stub.call("WatchHeads", since=since, timeout=2 * PATIENCE):
                        assert message.head.epoch == since + 1
                        since = message.head.epoch
                        self.heads += 1
                        if self._stop.is_set():
                            break
                except grpc.RpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                        self.failures.append(f"watch: {error}")
                except Exception as error:
                    self.failures.append(f"watch: {type(error).__name__}: {error}")

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(3 * PATIENCE)

    def more(self, count: int) -> None:
        """Wait until ``count`` further lookups were answered, and heads came."""
        answers, heads = self.answered + count, self.heads + 2
        until(
            lambda: self.answered >= answers and self.heads >= heads,
            f"{count} more answers and two heads; failures: {self.failures[-3:]}",
        )


def test_every_worker_answers_and_is_counted(directory: Up, tmp_path: Path) -> None:
    with workers(directory, tmp_path, *GRPC) as front, stubs(served_at(front), 24) as clients:
        for number, stub in enumerate(clients):
            assert found(stub, NAMES[number % len(NAMES)])
            assert health(stub) == _Status.SERVING
        # The system has chosen a worker for each connection. All at one is as likely as 24 tosses of a coin.
        port = served_at(front)
        assert all(connections_at(pid, port) for pid in front.pids("worker"))
        until(lambda: front.metric(LOOKUPS) == len(clients), "the calls of all workers are counted")
        _other_front_ends_are_refused(directory, tmp_path, port)
        # What was published elsewhere is soon at every worker.
        name = "written"
        with directory.client(tmp_path / "state") as client:
            assert client.publish(account(name).label, account(name).profile, [KEY]).stands
        epoch = clients[0].call("LatestHead").epoch
        for stub in clients:
            until(lambda stub=stub: reached(stub, epoch), "each worker has the epoch")  # type: ignore[misc]
            assert found(stub, name)


def _other_front_ends_are_refused(directory: Up, folder: Path, port: int) -> None:
    someone = directory.stranger(folder / "someone")
    words = ("-c", directory.settings, "frontend", "--log", directory.log_uri, "--listen", "127.0.0.1:0")
    for count in (1, 2):
        other = ("--data", folder / f"other{count}", "--grpc-port", str(port), "--workers", str(count))
        ran = someone.kt(*words, *other, code=2)
        assert f"gRPC cannot listen on 127.0.0.1:{port}: Address already in use" in ran.err


def reached(stub: Stub, epoch: int) -> bool:
    return bool(stub.call("LatestHead").epoch >= epoch)


def test_sigusr1_replaces_the_workers_and_no_call_fails(directory: Up, tmp_path: Path) -> None:
    with workers(directory, tmp_path, *GRPC) as front, Callers(served_at(front)) as callers:
        for round_ in (1, 2):
            callers.more(20)
            before = set(front.pids("worker"))
            front.process.send_signal(signal.SIGUSR1)
            until(lambda: len(now := set(front.pids("worker"))) == 2 and not now & before, "all are new")  # noqa: B023
            callers.more(20)
            assert front.spoken.count("a worker is being replaced") == 2 * round_
        assert not callers.failures, callers.failures


def test_a_killed_worker_costs_the_calls_that_it_was_answering(directory: Up, tmp_path: Path) -> None:
    with workers(directory, tmp_path, *GRPC) as front:
        with Callers(served_at(front)) as callers:
            callers.more(20)
            killed = front.pids("worker")[0]
            os.kill(killed, signal.SIGKILL)
            callers.more(20)
            until(lambda: len(set(front.pids("worker")) - {killed}) == 2, "another one runs")
            until(lambda: front.metric("kt_workers") == 2, "it takes connections")
            callers.more(20)
        # A call is not repeated once a part of its answer has come. Each client had one call.
        assert len(callers.failures) <= CLIENTS, callers.failures
        assert all("StatusCode.UNAVAILABLE" in failure for failure in callers.failures), callers.failures
        _health_without_a_replica(front)


def _health_without_a_replica(front: Workers) -> None:
    with stubs(served_at(front), 8) as clients:
        (replica,) = front.pids("replica")
        os.kill(replica, signal.SIGKILL)
        until(lambda: health(clients[0]) == _Status.NOT_SERVING, "it is not in service")
        assert found(clients[0], NAMES[0])
        until(lambda: {health(stub) for stub in clients} == {_Status.SERVING}, "all are in service again")


def test_a_client_has_one_rate_over_all_workers(directory: Up, tmp_path: Path) -> None:
    rate, burst = 1, 4
    options = (*GRPC, "--address-rate", str(rate), "--exempt", "192.0.2.0/24")
    with workers(directory, tmp_path, *options, count=3) as front, stubs(served_at(front), 20) as clients:
        began = time.monotonic()
        # Half of them over HTTP, which has the same account.
        answers = [front.lookup()[0] == 200 for _ in range(10)] + [_answered(stub) for stub in clients]
        seconds = time.monotonic() - began
        assert burst <= answers.count(True) <= 3 * (burst + 1) + rate * seconds, answers
        # Each worker refuses now, also one that has answered nothing before.
        until(lambda: not any(_answered(stub) for stub in clients), "all refuse")


def _answered(stub: Stub) -> bool:
    try:
        return found(stub, NAMES[0])
    except grpc.RpcError as error:
        failure = failure_of(error)
        if failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED and failure.reason == "too-many-requests":
            return False
        raise


def test_sighup_exchanges_the_certificate_of_every_worker(directory: Up, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    first, second = (certify(folder) for folder in folders)
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    certificate.write_bytes(first.certificate.read_bytes())
    key.write_bytes(first.key.read_bytes())
    words = (*GRPC, "--tls-cert", str(certificate), "--tls-key", str(key))
    arguments = ("--log", directory.log_uri, "--data", tmp_path / "data", "--listen", "127.0.0.1:0")
    count = ("--workers", "2")
    front = Running(tmp_path / "log", "-c", directory.settings, "frontend", *arguments, *count, *words)
    try:
        served = json.loads(front.wait_for_line('"serving"'))
        with trusting(first, served) as old:
            until(lambda: _is_ready(old), "it answers")
            certificate.write_bytes(second.certificate.read_bytes())
            key.write_bytes(second.key.read_bytes())
            front.process.send_signal(signal.SIGHUP)
            until(lambda: front.spoken.count('"reloaded"') >= 3, "this process and both workers did")
            for _ in range(6):
                with trusting(second, served) as new:
                    assert new.call("LatestHead").epoch
        assert front.stop(signal.SIGTERM) == 0, front.spoken
    finally:
        front.stop(signal.SIGKILL)


def _is_ready(stub: Stub) -> bool:
    try:
        return bool(stub.call("LatestHead").epoch)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
