"""Addresses that processes listen at. They are tried before anything is written."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack

from kt_es.config_tables import Address
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
    """Return both addresses, with port 0 replaced by a free port. A process must be able to listen there.

    Raises ``ConfigError``.
    """
    if node == frontend and node.port:
        raise ConfigError(f"--listen and --node-listen are both {node}: give one of them another port")
    with ExitStack() as held:
        # Both ports are held until both are known, so that the same free port is not found twice.
        return _bound(node, held), _bound(frontend, held)


def free_address() -> Address:
    """Return a free port on loopback."""
    with ExitStack() as held:
        return _bound(Address(host="127.0.0.1", port=0), held)


def _bound(where: Address, held: ExitStack) -> Address:
    """Bind every address that the host of ``where`` has, until ``held`` is closed."""
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _refused(where, error) from None
    port, is_bound = where.port, False
    missing = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, *_, at in found:
        try:
            server = held.enter_context(socket.create_server((at[0], port, *at[2:]), family=family))
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise _refused(where, error) from None
            missing = error
        else:
            is_bound, port = True, server.getsockname()[1]
    if not is_bound:
        raise _refused(where, missing)
    return Address(host=where.host, port=port)


def _refused(where: Address, error: Exception) -> ConfigError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    # socket.create_server adds the address to the reason that the operating system gives.
    reason = reason.partition(" (while ")[0]
    return ConfigError(f"cannot listen on {where}: {reason}; choose another address")
