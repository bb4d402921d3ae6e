"""Connections that begin TLS and do not get through: they are counted, bounded and ended like all others."""

from __future__ import annotations

import os
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kt_es.server import connection
from kt_es.server.asgi import Receive, Scope, Send
from kt_es.server.limits import ClientLimits
from kt_es.server.listening import Exchangeable
from tests.contracts.certificates import Certified, certify, trusting
from tests.reference.doors import PATIENCE, Door, answer, door, is_closed, request
from tests.reference.frontends import until

LIMITS = ClientLimits(exempt=())


async def app(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certify(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def served(certified: Certified) -> ssl.SSLContext:
    return Exchangeable(certified.certificate, certified.key).context


def ask(made: Door, authority: Path, source: str = "127.0.0.1") -> int:
    """A whole request over TLS; its status."""
    with trusting(authority).wrap_socket(made.connect(source=source), server_hostname="localhost") as client:
        client.sendall(request("/"))
        return answer(client)[0]


def test_a_request_over_tls_is_answered(certified: Certified, served: ssl.SSLContext) -> None:
    with door(app, LIMITS, context=served) as made:
        assert ask(made, certified.authority) == 200
        until(lambda: len(made.connections) == 0)


def test_silent_connections_of_an_address_are_bounded(certified: Certified, served: ssl.SSLContext) -> None:
    few = replace(LIMITS, address_connections=3)
    with door(app, few, context=served) as made:
        silent = [made.connect(source="127.0.0.2") for _ in range(3)]
        until(lambda: len(made.connections) == 3)
        assert is_closed(made.connect(source="127.0.0.2"))
        assert made.count("address-connections") == 1
        assert ask(made, certified.authority, "127.0.1.2") == 200
        silent[0].close()
        until(lambda: made.connections.clients.neighbours("127.0.0.2") == 2)
        assert ask(made, certified.authority, "127.0.0.2") == 200


def test_a_silent_connection_gives_way_to_a_new_one(certified: Certified, served: ssl.SSLContext) -> None:
    with door(app, LIMITS, most=2, context=served) as made:
        silent = [made.connect(source=f"127.0.2.{number}") for number in (1, 2)]
        until(lambda: len(made.connections) == 2)
        assert ask(made, certified.authority) == 200
        assert is_closed(silent[0])
        assert made.count("displaced") == 1


def test_no_handshake_within_the_time_of_a_head(served: ssl.SSLContext) -> None:
    with door(app, replace(LIMITS, head_seconds=0.2), context=served) as made:
        client = made.connect(b"\x16\x03\x01\x40\x00")
        assert is_closed(client)
        until(lambda: made.count("slow-handshake") == 1)
        assert len(made.connections) == 0


NO_HANDSHAKE: dict[str, Callable[[Door], socket.socket]] = {
    "plain HTTP": lambda made: made.connect(request("/")),
    "another protocol": lambda made: made.connect(b"SSH-2.0-x\r\n"),
    "an end at once": lambda made: made.connect(),
    "an end within it": lambda made: made.connect(b"\x16\x03\x01\x40\x00"),
}


@pytest.mark.parametrize("how", NO_HANDSHAKE)
def test_what_is_no_handshake_is_counted_and_keeps_no_file(
    how: str, certified: Certified, served: ssl.SSLContext
) -> None:
    with door(app, LIMITS, context=served) as made:

        def counted(number: int) -> bool:
            return made.count("handshake") == number

        assert ask(made, certified.authority) == 200
        until(lambda: len(made.connections) == 0)
        before = files()
        for number in range(20):
            client = NO_HANDSHAKE[how](made)
            client.shutdown(socket.SHUT_WR)
            assert drained(client)
            client.close()
            until(partial(counted, number + 1))
        made.sockets.clear()
        assert len(made.connections) == 0
        until(lambda: files() <= before)


def test_an_end_of_the_server_waits_for_no_handshake(served: ssl.SSLContext) -> None:
    before = files()
    with door(app, LIMITS, context=served) as made:
        client = made.connect()
        until(lambda: len(made.connections) == 1)
        made.sockets.clear()
    with client:
        assert is_closed(client)
    until(lambda: files() <= before)


def files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, reads no path


def drained(client: socket.socket) -> bool:
    """Read to the server's end of the connection: an alert of TLS may come before it."""
    try:
        while client.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def test_a_connection_over_tls_ends_when_asked_and_keeps_no_file(
    certified: Certified, served: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: a client that reads to the end does not wait until the connection is given up."""
    monkeypatch.setattr(connection, "_LINGER", 10 * PATIENCE)
    with door(app, LIMITS, context=served) as made:
        assert ask(made, certified.authority) == 200
        until(lambda: len(made.connections) == 0)
        before = files()
        with trusting(certified.authority).wrap_socket(made.connect(), server_hostname="localhost") as client:
            client.sendall(request("/", None, "Connection: close"))
            assert answer(client)[0] == 200
            assert client.recv(1) == b""
        until(lambda: len(made.connections) == 0)
        until(lambda: files() <= before)


def test_a_connection_waits_while_the_process_may_open_no_file() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with door(app, LIMITS) as made, socket.socket() as client:
        client.settimeout(PATIENCE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free_file(), hard))
            client.connect(("127.0.0.1", made.port))
            client.sendall(request("/"))
            until(lambda: made.count("files") > 0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert answer(client)[0] == 200


def lowest_free_file() -> int:
    taken = os.dup(0)
    os.close(taken)
    return taken
