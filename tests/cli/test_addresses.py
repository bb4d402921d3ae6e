"""A port that was found free stays so until the process that is to listen there has started."""

from __future__ import annotations

import socket

import pytest

from kt_es.cli.addresses import free_address, free_addresses
from kt_es.config.tables import Address
from kt_es.errors import ConfigError

ANYWHERE = Address(host="127.0.0.1", port=0)


def test_nobody_else_gets_a_reserved_port() -> None:
    where = free_address()
    # As a connection that leaves this machine, or a process that asks for a free port, binds it.
    with socket.socket() as somebody, pytest.raises(OSError, match="Address already in use"):
        somebody.bind((where.host, where.port))
    # Even after the server has ended, as in the moment before it is started again.
    for _ in range(2):
        with socket.create_server((where.host, where.port)):
            socket.create_connection((where.host, where.port)).close()


def test_two_addresses_are_two() -> None:
    node, frontend = free_addresses(ANYWHERE, ANYWHERE)
    assert node.port != frontend.port
    assert 0 not in (node.port, frontend.port)


def test_the_same_address_twice_is_refused() -> None:
    where = free_address()
    with pytest.raises(ConfigError, match="are both"):
        free_addresses(where, where)


def test_a_port_with_a_server_is_refused_and_not_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use; choose"
        ):
            free_addresses(ANYWHERE, Address(host="127.0.0.1", port=port))
    socket.create_server(("127.0.0.1", port)).close()
