"""An HTTP server whose answers a test writes byte by byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[socket.socket, threading.Event], None]
"""Writes what follows a request. The event is set when the test is over."""


def answer(data: bytes, status: str = "200 OK", *headers: str) -> Answer:
    """Return a whole answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(data)}", "connection: close", *headers]
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return lambda peer, _: peer.sendall(head.encode() + data)


def endless(peer: socket.socket, over: threading.Event) -> None:
    """An answer without an end, as fast as the reader reads it."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    while not over.is_set():
        peer.sendall(bytes(65536))


def slow(peer: socket.socket, over: threading.Event) -> None:
    """A byte now and then, in a header without an end."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while not over.wait(0.05):
        peer.sendall(b"x")


def hanging(_: socket.socket, over: threading.Event) -> None:
    over.wait()


@contextmanager
def rude_server(*answers: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server that answers one request by each of ``answers``, and all others by the last one.

    Yields its URL, and the paths that it was asked for.
    """
    over = threading.Event()
    asked: list[str] = []
    left = list(answers)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                part = peer.recv(65536)
                if not part:
                    return
                head += part
            asked.append(head.split()[1].decode())
            (left.pop(0) if len(left) > 1 else left[0])(peer, over)

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if over.is_set():
                peer.close()
                return
            threads.append(threading.Thread(target=serve, args=(peer,)))
            threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        over.set()
        # Closing a listener does not wake who accepts.
        with suppress(OSError):
            socket.create_connection(listener.getsockname()).close()
        listener.close()
        for thread in threads:
            thread.join(30)
