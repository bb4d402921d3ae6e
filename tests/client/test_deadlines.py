"""Servers that drip: whatever they send, and however slowly, a call ends by its deadline."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpcore
import pytest

from kt_es.api.models import ErasureRequest
from kt_es.client.deadlines import Deadline
from kt_es.client.transport import Transport
from kt_es.errors import KtError, UnavailableError
from tests.contracts.certificates import certify, trusting

DEADLINE = 0.6
# Nothing takes so long; a call that is not bounded takes for ever.
LONG = 20.0

NEVER = threading.Event()

Talk = Callable[[socket.socket], None]


def forever(piece: bytes, before: bytes = b"") -> Talk:
    """Send ``before`` and then ``piece`` again and again, faster than any timeout for silence."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(before)
        for _ in itertools.count():
            connection.sendall(piece)
            NEVER.wait(0.02)

    return talk


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"

DRIPS: dict[str, Talk] = {
    "status line": forever(b"H", b""),
    "header": forever(b"a", b"HTTP/1.1 200 OK\r\nx: "),
    "headers": forever(b"x: y\r\n", b"HTTP/1.1 200 OK\r\n"),
    "informational answers": forever(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "continue": forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": forever(b" ", HEAD + b"content-length: 1000000\r\n\r\n"),
    "body without a length": forever(b" ", HEAD + b"\r\n"),
    "chunks": forever(b"1\r\n \r\n", CHUNKED),
    "chunk size": forever(b"0", CHUNKED),
    "chunk extension": forever(b";a=b", CHUNKED + b"1"),
    "trailers": forever(b"x: y\r\n", CHUNKED + b"2\r\n{}\r\n0\r\n"),
    "trailer": forever(b"y", CHUNKED + b"2\r\n{}\r\n0\r\nx: "),
    "nothing at all": forever(b""),
}


@contextmanager
def server(talk: Talk, read_first: bool = True) -> Iterator[int]:
    """The port of a server that talks so to each connection, after a first look at the request."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_now: list[socket.socket] = []
    closing = threading.Event()

    def converse(connection: socket.socket) -> None:
        with suppress(OSError):
            if read_first:
                connection.recv(65536)
            talk(connection)

    def accept() -> None:
        while not closing.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                open_now.append(connection)
                threading.Thread(target=converse, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        closing.set()
        # Wakes the thread up that accepts.
        with suppress(OSError):
            socket.create_connection(listener.getsockname(), 1).close()
        thread.join(LONG)
        listener.close()
        for connection in open_now:
            connection.close()


def ends(transport: Transport, request: ErasureRequest | None = None) -> KtError:
    """The error that a call ends with, by its deadline and no much later."""
    begun = time.monotonic()
    deadline = transport.deadline(DEADLINE)
    with pytest.raises(KtError) as ended:
        _ = transport.get("/", deadline) if request is None else transport.post("/", request, deadline)
    transport.close()
    assert time.monotonic() - begun < LONG
    return ended.value


@pytest.mark.parametrize("part", DRIPS)
def test_whatever_is_dripped_the_call_ends(part: str) -> None:
    with server(DRIPS[part]) as port:
        ends(Transport(f"http://127.0.0.1:{port}"))


def silent(connection: socket.socket) -> None:
    del connection
    NEVER.wait(LONG)


def test_a_request_that_is_not_read_ends() -> None:
    with server(silent, read_first=False) as port:
        transport = Transport(f"http://127.0.0.1:{port}")
        assert isinstance(ends(transport, ErasureRequest(bytes(40_000_000))), UnavailableError)


def test_a_handshake_that_is_dripped_ends(tmp_path: Path) -> None:
    made = certify(tmp_path)
    context = trusting(made.authority)
    # A record of a handshake that says it has 16 KiB.
    with server(forever(b"\x00", b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")) as port:
        ends(Transport(f"https://localhost:{port}", verify=context))


def test_an_answer_in_time_is_an_answer() -> None:
    def talk(connection: socket.socket) -> None:
        for byte in HEAD + b"content-length: 2\r\n\r\n{}":
            connection.sendall(bytes([byte]))

    with server(talk) as port:
        transport = Transport(f"http://127.0.0.1:{port}")
        assert transport.get("/", transport.deadline(LONG)).body == {}
        transport.close()


def test_a_name_that_takes_long_to_resolve_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = threading.Event()

    def slowly(*_: object, **__: object) -> None:
        resolved.wait(LONG)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "create_connection", slowly)
    try:
        assert isinstance(ends(Transport("http://kt.test")), UnavailableError)
    finally:
        resolved.set()


def test_through_a_proxy_the_deadline_holds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(DRIPS["header"]) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        ends(Transport("http://kt.test"))


def test_without_a_call_there_is_no_deadline() -> None:
    deadline = Deadline()
    assert deadline.bound(3.0, httpcore.ReadTimeout) == 3.0
    with deadline.until(time.monotonic() - 1), pytest.raises(httpcore.ReadTimeout):
        deadline.bound(3.0, httpcore.ReadTimeout)
    assert deadline.bound(None, httpcore.ReadTimeout) is None
