"""Messages between a process and the processes that it has started, over a pair of sockets.

Both ends are processes of one program, started by the same user: messages are pickled Python values. Sending
never waits. An end that does not read what it is sent is cut off once too much waits for it, so one process
that hangs does not stop the others.
"""

from __future__ import annotations

import pickle
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

MAX_WAITING = 64 << 20
"""Bytes that may wait for the other end to read them."""
_HEAD = 8  # bytes of the length before each message


class Channel:
    """One end. Any thread may call ``send`` and ``close``.

    Args:
        end: A connected stream socket, which belongs to the channel from now on.
        name: Name of the other end, for the names of threads.
    """

    def __init__(self, end: socket.socket, name: str) -> None:
        self._end = end
        self._name = name
        self._changed = threading.Condition()  # guards all that follows
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._closed = False

    def start(self, received: Callable[[Any], None], ended: Callable[[], None]) -> None:
        """Send and receive from now on, in two threads.

        Args:
            received: Called with each message, in the order in which they were sent.
            ended: Called once, after the last message, when the other end or this one is closed.
        """

        def receive() -> None:
            try:
                with suppress(OSError, EOFError):
                    while True:
                        received(self._receive())
            finally:
                # Also after an error of ``received``, which the thread reports: nobody listens any more.
                self.close()
                writer.join()
                self._end.close()
                ended()

        writer = threading.Thread(target=self._write, name=f"to {self._name}", daemon=True)
        writer.start()
        threading.Thread(target=receive, name=f"from {self._name}", daemon=True).start()

    def receive(self) -> Any:
        """Return the next message. Only before ``start``. Raises ``EOFError`` if the other end is closed."""
        return self._receive()

    def send(self, message: object) -> None:
        """Send a message soon. After the end of the channel it is dropped."""
        data = pickle.dumps(message)
        with self._changed:
            if self._closed:
                return
            if self._size > MAX_WAITING:
                self._close()
                return
            self._waiting += (len(data).to_bytes(_HEAD), data)
            self._size += len(data)
            self._changed.notify()

    def flush(self, timeout: float) -> None:
        """Wait until everything was sent, up to ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._size, timeout)

    def close(self) -> None:
        with self._changed:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._changed.notify_all()
            # Ends the threads that read and write.
            with suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> Any:
        length = int.from_bytes(self._exactly(_HEAD))
        return pickle.loads(self._exactly(length))  # noqa: S301 - from a process of ours

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._end.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return
                parts = list(self._waiting)
                self._waiting.clear()
            try:
                for part in parts:
                    self._end.sendall(part)
            except OSError:
                self.close()
                return
            with self._changed:
                self._size -= sum(map(len, parts[1::2]))
                self._changed.notify_all()
