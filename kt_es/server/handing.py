"""Accepted connections on their way from the process that listens to a process that answers.

Each message has one connection. A socket of ``pair`` keeps the messages apart, and closes the connections in
messages that nobody receives.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the ends for the process that listens and for the process that answers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def hand_over(door: socket.socket, accepted: socket.socket) -> bool:
    """Give a connection to the other end. Return False if it does not take any now. The caller closes it."""
    try:
        socket.send_fds(door, [b"c"], [accepted.fileno()])
    except OSError:
        return False
    return True


def is_door(listener: socket.socket) -> bool:
    """Return whether connections come from another process, by ``take``, and not from the network."""
    return listener.family == socket.AF_UNIX


async def take(door: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    """Wait for the next connection. Return it with the address of its client.

    Raises ``ConnectionError`` if the client has left meanwhile, and ``OSError`` with the number EMFILE if
    this process has no room for another file.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(door, 1, 1)
        except BlockingIOError:
            await _readable(loop, door)
            continue
        if not message:
            # The process that listens is gone. Its end stops this process, in another way.
            await loop.create_future()
        if not descriptors:
            raise OSError(errno.EMFILE, "a connection was lost, because this process has too many open files")
        accepted = socket.socket(fileno=descriptors[0])
        accepted.setblocking(False)
        try:
            return accepted, accepted.getpeername()[:2]
        except OSError:
            accepted.close()
            raise ConnectionError from None


async def _readable(loop: asyncio.AbstractEventLoop, door: socket.socket) -> None:
    ready = loop.create_future()

    def set_ready() -> None:
        with suppress(asyncio.InvalidStateError):
            ready.set_result(None)

    loop.add_reader(door.fileno(), set_ready)
    try:
        await ready
    finally:
        loop.remove_reader(door.fileno())
