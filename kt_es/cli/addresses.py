"""Addresses that processes listen at. They are tried before anything is written."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack

from kt_es.config.tables import Address
from kt_es.errors import ConfigError

# A name such as localhost has addresses that this machine does not have: IPv6 may be switched off.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def address(text: str, option: str = "listen") -> Address:
    """Parse ``HOST:PORT``. Raises ``ConfigError``, with the name of the ``option``, if it is not one."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def free_addresses(node: Address, frontend: Address) -> tuple[Address, Address]:
    """Return both addresses as ``reserved`` does.

    Raises ``ConfigError``.
    """
    if node == frontend and node.port:
        raise ConfigError(f"--listen and --node-listen are both {node}: give one of them another port")
    return reserved(node), reserved(frontend)


def free_address() -> Address:
    """Return a free port on loopback, as ``reserved`` does."""
    return reserved(Address(host="127.0.0.1", port=0))


def reserved(where: Address) -> Address:
    """Reserve ``where`` until this process ends, for processes that it starts. Port 0 takes a free port.

    Between a look for a free port and the start of a process that listens there, any connection of any
    program may get that port. A socket that is bound and does not listen prevents it: the system gives its
    port to nobody who asks for a free one, while a server, which sets ``SO_REUSEADDR``, may listen there.

    Raises ``ConfigError`` if no process can listen there.
    """
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _refused(where, error) from None
    port = where.port
    missing = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    with ExitStack() as held:
        bound: list[socket.socket] = []
        for family, *_, at in found:
            try:
                one = held.enter_context(_bound(family, (at[0], port, *at[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise _refused(where, error) from None
                missing = error
            else:
                bound.append(one)
                port = one.getsockname()[1]
        if not bound:
            raise _refused(where, missing)
        for one in bound:
            one.detach()
    return Address(host=where.host, port=port)


def _bound(family: int, at: tuple[str | int, ...]) -> socket.socket:
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(at)
    except OSError:
        made.close()
        raise
    return made


def _refused(where: Address, error: Exception) -> ConfigError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ConfigError(f"cannot listen on {where}: {reason}; choose another address")
