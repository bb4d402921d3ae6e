"""A port that the processes of one front end share, and nobody else."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from kt_es.errors import ConfigError
from kt_es.server.reserving import check_free, host_and_port, reserved_port

HOST = "127.0.0.1"


def _listens(port: int, *, shared: bool) -> socket.socket:
    """A listener as gRPC makes it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def test_several_sockets_listen_on_a_reserved_port_and_take_its_connections() -> None:
    with reserved_port(HOST, 0, "grpc_port") as port, ExitStack() as stack:
        listeners = [stack.enter_context(_listens(port, shared=True)) for _ in range(2)]
        for listener in listeners:
            listener.setblocking(False)
        clients = [stack.enter_context(socket.create_connection((HOST, port), 5)) for _ in range(32)]
        taken = []
        for listener in listeners:
            try:
                while True:
                    taken.append(stack.enter_context(listener.accept()[0]))
            except BlockingIOError:
                continue
        # None is waiting at the socket that keeps the port.
        assert len(taken) == len(clients)


def test_nobody_else_takes_the_port_also_while_no_process_listens() -> None:
    with reserved_port(HOST, 0, "grpc_port") as port:
        with pytest.raises(OSError, match="Address already in use"):
            _listens(port, shared=False)
        with _listens(port, shared=True):
            with pytest.raises(OSError, match="Address already in use"):
                _listens(port, shared=False)
            message = f"gRPC cannot listen on {HOST}:{port}: Address already in use; change grpc_port"
            with pytest.raises(ConfigError, match=message):
                check_free(HOST, port, "grpc_port")
            with pytest.raises(ConfigError, match=message):
                _reserve(port)
    with _listens(port, shared=False):
        pass


def _reserve(port: int) -> None:
    with reserved_port(HOST, port, "grpc_port"):
        pass


def test_the_port_is_free_again_while_old_connections_wait() -> None:
    with reserved_port(HOST, 0, "grpc_port") as port, _listens(port, shared=True) as listener:
        client = socket.create_connection((HOST, port), 5)
        accepted = listener.accept()[0]
        # This side closes first, so its end is in TIME_WAIT.
        accepted.close()
        assert client.recv(1) == b""
        client.close()
    with reserved_port(HOST, port, "grpc_port") as again, _listens(again, shared=True):
        assert again == port


def test_an_address_of_another_machine_is_a_problem_of_the_settings() -> None:
    with pytest.raises(ConfigError, match="Cannot assign"), reserved_port("192.0.2.1", 0, "grpc_port"):
        pass


def test_addresses_as_people_write_them() -> None:
    assert host_and_port("::1", 80) == "[::1]:80"
    assert host_and_port(HOST, 80) == "127.0.0.1:80"
