"""The long-lived call of all appends: one for many exchanges, also after the server was away or hung."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kt_es.cli.addresses import free_address
from kt_es.errors import UnavailableError
from kt_es.eventstore import appending
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.driver import shared_pb2
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import ANY, Append, NewEvent
from tests.reference.frontends import until


@contextmanager
def node(data: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kt_es.node", "--data", str(data), "--listen", address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()


def some(count: int) -> list[Append]:
    return [
        Append(f"kt_test-{uuid.uuid4().hex}", ANY, [NewEvent("T", b"x", uuid.uuid4())]) for _ in range(count)
    ]


def open_calls() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "appends"]


def lengths(log: EsdbLog, appends: list[Append]) -> list[int]:
    return [len(list(log.read(append.stream))) for append in appends]


def test_one_call_serves_many_exchanges_and_ends_with_the_client(tmp_path: Path) -> None:
    address = str(free_address())
    with node(tmp_path, address), closing(connect(f"esdb://{address}?Tls=false")) as log:
        assert log.append_all(some(5)) == [None] * 5
        (call,) = open_calls()
        for _ in range(3):
            assert log.append_all(some(5)) == [None] * 5
            assert open_calls() == [call]
        log.close()
        call.join(30)
        assert not call.is_alive()


def test_a_single_append_leaves_no_call_open(tmp_path: Path) -> None:
    address = str(free_address())
    with node(tmp_path, address), closing(connect(f"esdb://{address}?Tls=false")) as log:
        assert log.append_all(some(1)) == [None]
        assert open_calls() == []


def test_after_an_outage_the_same_appends_are_made_once(tmp_path: Path) -> None:
    address = str(free_address())
    appends = some(9)
    with closing(_connected_once(tmp_path, address, appends)) as log:
        # The server was killed: the outcome is unknown to whoever asks now.
        more = some(4)
        assert [type(outcome) for outcome in log.append_all([*appends, *more])] == [UnavailableError] * 13
        with node(tmp_path, address):
            until(lambda: list(log.append_all([*appends, *more])) == [None] * 13)
            assert lengths(log, [*appends, *more]) == [1] * 13


def _connected_once(data: Path, address: str, appends: list[Append]) -> EsdbLog:
    with node(data, address):
        log = connect(f"esdb://{address}?Tls=false")
        assert log.append_all(appends) == [None] * len(appends)
    return log


def test_a_server_that_hangs_leaves_the_outcome_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(free_address())
    with node(tmp_path, address) as process, closing(connect(f"esdb://{address}?Tls=false")) as log:
        assert log.append_all(some(3)) == [None] * 3
        (call,) = open_calls()
        monkeypatch.setattr(log._appending, "_deadline", 0.3)
        appends = some(3)
        process.send_signal(signal.SIGSTOP)
        try:
            outcomes = log.append_all(appends)
        finally:
            process.send_signal(signal.SIGCONT)
        assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3
        monkeypatch.undo()
        call.join(30)
        until(lambda: list(log.append_all(appends)) == [None] * 3)
        assert lengths(log, appends) == [1] * 3


def test_a_correlation_id_is_the_same_in_both_forms() -> None:
    # The two halves of the structured form are signed.
    correlation = uuid.UUID("f0000000-0000-4000-8000-0000000000ff")
    high, low = correlation.int >> 64, correlation.int & (2**64 - 1)
    halves = shared_pb2.UUID.Structured(
        most_significant_bits=high - 2**64, least_significant_bits=low - 2**64
    )
    forms = shared_pb2.UUID(string=str(correlation)), shared_pb2.UUID(structured=halves)
    assert [appending._number(form) for form in forms] == [correlation.int] * 2
