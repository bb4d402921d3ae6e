"""What commands that run once wait for: the event log; and what they do not wait for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kt_es.client.transport import Transport
from kt_es.errors import (
    AccessDeniedError,
    ConfigError,
    KtError,
    MisfitError,
    TlsError,
    UnavailableError,
)
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.patient import PAUSE, Patience, PatientLog
from kt_es.eventstore.streams import NO_STREAM, Event, EventLog, content_event
from kt_es.node.server import NodeConfig
from tests.contracts.certificates import certify
from tests.contracts.nodes import ServedNode
from tests.reference.memory_log import MemoryLog


class Waiting:
    """A patience whose time passes only by waiting."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.patience = Patience(seconds, self.said.append, clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Outages:
    """Connects to ``log``; as many calls in turn fail as ``failures`` says, and every second read is cut."""

    def __init__(self, failures: int, error: type[KtError] = UnavailableError) -> None:
        self.log = MemoryLog()
        self.failures = failures
        self.error = error
        self.connections = 0
        self.cuts = 0

    def connect(self) -> EventLog:
        self.connections += 1
        self.fail()
        return _Cut(self)  # type: ignore[return-value]

    def fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error("no leader")


class _Cut:
    def __init__(self, outages: Outages) -> None:
        self._outages = outages

    def __getattr__(self, name: str) -> object:
        self._outages.fail()
        return getattr(self._outages.log, name)

    def close(self) -> None:
        return

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        for count, event in enumerate(self._outages.log.read(stream, start, limit)):
            if count == 2:
                self._outages.cuts += 1
                raise UnavailableError("the leader has changed")
            yield event


def numbered(count: int) -> list[Any]:
    return [content_event("s", "T", b"%d" % number) for number in range(count)]


def test_the_log_is_waited_for_and_that_is_reported_once() -> None:
    outages, waiting = Outages(5), Waiting(30)
    log = PatientLog(outages.connect, waiting.patience)
    assert log.last_revision("s") == -1
    assert waiting.now == 5 * PAUSE
    assert waiting.said == ["waiting up to 30 s for the event log: no leader"]
    outages.failures = 2
    log.append("s", NO_STREAM, numbered(1))
    assert len(waiting.said) == 1


def test_each_outage_has_the_whole_patience() -> None:
    outages, waiting = Outages(3), Waiting(2)
    log = PatientLog(outages.connect, waiting.patience)
    for _ in range(5):
        outages.failures = 3
        assert log.last_event("s") is None


def test_patience_ends() -> None:
    outages, waiting = Outages(10**6), Waiting(30)
    with pytest.raises(UnavailableError, match="no leader") as error:
        PatientLog(outages.connect, waiting.patience).last_revision("s")
    assert error.value.exit_code == 7
    assert 30 - PAUSE <= waiting.now <= 30


def test_without_patience_nothing_is_waited_for_or_reported() -> None:
    waiting = Waiting(0)
    with pytest.raises(UnavailableError):
        PatientLog(Outages(1).connect, waiting.patience).last_revision("s")
    assert (waiting.now, waiting.said) == (0, [])


@pytest.mark.parametrize("error", [TlsError, AccessDeniedError, ConfigError])
def test_what_does_not_pass_is_not_waited_for(error: type[KtError]) -> None:
    waiting = Waiting(30)
    with pytest.raises(error):
        PatientLog(Outages(1, error).connect, waiting.patience).last_revision("s")
    assert (waiting.now, waiting.said) == (0, [])


@pytest.mark.parametrize("limit", [None, 5])
def test_a_read_goes_on_where_it_was_cut(limit: int | None) -> None:
    outages, waiting = Outages(0), Waiting(30)
    outages.log.append("s", NO_STREAM, numbered(7))
    log = PatientLog(outages.connect, waiting.patience)
    assert [event.revision for event in log.read("s", 1, limit)] == list(range(1, 7))[:limit]
    assert outages.cuts == 2
    assert outages.connections == 3


def test_a_whole_attempt_is_repeated() -> None:
    outages, waiting = Outages(3), Waiting(30)

    def attempt() -> str:
        outages.fail()
        return "done"

    assert waiting.patience.until_done(attempt) == "done"
    assert waiting.now == 3 * PAUSE


# --- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """A node with TLS: its address, its authority, and another one."""
    (tmp_path / "own").mkdir()
    (tmp_path / "other").mkdir()
    made, other = certify(tmp_path / "own"), certify(tmp_path / "other")
    config = NodeConfig(
        tmp_path / "node", port=0, anonymous=True, tls_cert=made.certificate, tls_key=made.key
    )
    with ServedNode(config) as node:
        yield node.address, made.authority, other.authority


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_authority_that_is_another_is_tls(
    secure: tuple[str, Path, Path], seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kt_es.eventstore.esdb_client.DISCOVERY_DEADLINE", 0.1)
    address, authority, other = secure
    targets = ",".join([address] * seeds)

    def ask(ca: Path) -> int:
        log = connect(f"esdb://u:p@{targets}?TlsCaFile={ca}")
        try:
            return log.last_revision("s")
        finally:
            log.close()

    with pytest.raises(TlsError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(other)
    # With the right one it is the user that the server does not know.
    with pytest.raises(KtError) as error:
        ask(authority)
    assert not isinstance(error.value, TlsError)


def test_tls_to_a_server_without_is_tls(secure: tuple[str, Path, Path], tmp_path: Path) -> None:
    with ServedNode(NodeConfig(tmp_path / "plain", port=0, anonymous=True)) as node:
        log = connect(f"esdb://u:p@{node.address}?TlsCaFile={secure[1]}")
        with pytest.raises(TlsError):
            log.last_revision("s")
        log.close()


def asked(uri: str) -> None:
    log = connect(uri)
    try:
        log.last_revision("s")
    finally:
        log.close()


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_tls_to_a_server_with_it_is_tls(
    secure: tuple[str, Path, Path], seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kt_es.eventstore.esdb_client.DISCOVERY_DEADLINE", 0.1)
    with pytest.raises(TlsError, match="leave Tls=false out"):
        asked(f"esdb://{','.join([secure[0]] * seeds)}?Tls=false")


def test_what_to_do_about_tls_is_reported(secure: tuple[str, Path, Path], tmp_path: Path) -> None:
    address, authority, other = secure
    with pytest.raises(TlsError, match="with TlsCaFile=FILE"):
        asked(f"esdb://u:p@{address}?TlsCaFile={other}")
    with (
        ServedNode(NodeConfig(tmp_path / "plain", port=0, anonymous=True)) as node,
        pytest.raises(TlsError, match="write Tls=false if that is meant"),
    ):
        asked(f"esdb://u:p@{node.address}?TlsCaFile={authority}")


@contextmanager
def answering(words: bytes) -> Iterator[str]:
    """A server that says ``words`` to everybody and hangs up; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.sendall(words)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        def serve() -> None:
            with suppress(OSError):
                while True:
                    # A client may open its next connection before it has closed the last one.
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_another_protocol_is_not_waited_for() -> None:
    for words in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n"):
        with answering(words) as address, pytest.raises(MisfitError, match="is not an event log"):
            asked(f"esdb://{address}?Tls=false")


def test_a_server_that_hangs_up_is_waited_for() -> None:
    with answering(b"") as address, pytest.raises(UnavailableError) as error:
        asked(f"esdb://{address}?Tls=false")
    assert not isinstance(error.value, MisfitError)


@pytest.mark.parametrize(
    ("words", "scheme", "said"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "http", "does not speak HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "https", "does not speak TLS"),
    ],
)
def test_a_front_end_that_is_none_is_reported_at_once(words: bytes, scheme: str, said: str) -> None:
    with answering(words) as address, pytest.raises(MisfitError, match=said):
        Transport(f"{scheme}://{address}").get("/v1/config", time.monotonic() + 600)


def test_a_front_end_with_tls_has_an_address_with_https(secure: tuple[str, Path, Path]) -> None:
    with pytest.raises(MisfitError, match="write https://"):
        Transport(f"http://{secure[0]}").get("/v1/config", time.monotonic() + 600)
    with pytest.raises(MisfitError, match=r"certificate is not accepted.*--ca"):
        Transport(f"https://{secure[0]}").get("/v1/config", time.monotonic() + 600)


def test_nobody_there_is_not_tls() -> None:
    log = connect("esdb://127.0.0.1:1?Tls=false")
    with pytest.raises(UnavailableError) as error:
        log.last_revision("s")
    assert not isinstance(error.value, TlsError)
    log.close()
