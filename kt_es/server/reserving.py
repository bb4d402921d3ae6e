"""A port that several processes of one front end listen on, each with a socket of its own (SO_REUSEPORT).

The system gives each new connection to one of these sockets. It would do so for the sockets of two front ends
as well, and nobody would notice. So one process checks that the port is free, and keeps it while the others
come and go.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from kt_es.errors import ConfigError


def host_and_port(host: str, port: int) -> str:
    """Return HOST:PORT; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_free(host: str, port: int, setting: str) -> None:
    """Try to listen on the address. Raises ``ConfigError`` with the reason; ``setting`` is what to change."""
    try:
        with socket.create_server((host, port), family=_family(host)):
            pass
    except OSError as error:
        raise _problem(host, port, setting, error) from None


@contextmanager
def reserved_port(host: str, port: int, setting: str) -> Iterator[int]:
    """Keep a port of ``host``, on which processes of this user can listen with SO_REUSEPORT, and nobody else.

    Yields the port; ``port`` 0 takes a free one. Raises ``ConfigError`` if the port is in use.
    """
    check_free(host, port, setting)
    with socket.socket(_family(host), socket.SOCK_STREAM) as kept:
        # This socket does not listen, so no connection is given to it.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Old connections of the port in the state TIME_WAIT would refuse it for a minute.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kept.family == socket.AF_INET6:
            kept.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            kept.bind((host, port))
        except OSError as error:
            raise _problem(host, port, setting, error) from None
        # Without the option, a socket that has it and no SO_REUSEPORT cannot take the port now.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield int(kept.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _problem(host: str, port: int, setting: str, error: OSError) -> ConfigError:
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return ConfigError(f"gRPC cannot listen on {host_and_port(host, port)}: {reason}; change {setting}")
