"""A deadline for a whole HTTP call, however slowly the server sends.

HTTP libraries bound each wait for the network. A server that sends a byte now and then, in a header, an
informational answer, a chunk extension or a trailer, can make a call last forever. Here the time that is left
for the call bounds every wait: to resolve the name, to connect, for TLS, to send and to receive.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

import httpcore
import httpx

from kt_es.process.network import is_public

_WRITE = 16 * 1024


class Deadline(threading.local):
    """The deadline of the call that runs in this thread: monotonic seconds, None outside of calls."""

    at: float | None = None

    @contextmanager
    def until(self, at: float) -> Iterator[None]:
        """End the calls of this thread at ``at``."""
        self.at = at
        try:
            yield
        finally:
            self.at = None

    def bound(self, timeout: float | None, error: type[Exception]) -> float | None:
        """Return the lesser of ``timeout`` and the time that is left; raises ``error`` if no time is left."""
        if self.at is None:
            return timeout
        left = self.at - time.monotonic()
        if left <= 0:
            raise error("the call takes too long")
        return left if timeout is None else min(timeout, left)


def bound_transport(client: httpx.Client, deadline: Deadline, *, public: bool = False) -> None:
    """Make every connection of ``client`` obey ``deadline``, also those through proxies.

    With ``public`` a connection to an address that is not public, such as one of a private network, is closed
    before anything is sent. The address of the connection counts, whatever its name resolved to before.

    httpcore has a parameter for the network backend. httpx does not pass one to the pools that it makes.
    """
    transports = [client._transport, *client._mounts.values()]
    for transport in transports:
        if isinstance(transport, httpx.HTTPTransport):
            pool = transport._pool
            pool._network_backend = _Backend(pool._network_backend, deadline, public)


class _Backend(httpcore.NetworkBackend):
    """The ``inner`` backend, with streams that obey the deadline."""

    def __init__(self, inner: httpcore.NetworkBackend, deadline: Deadline, public: bool) -> None:
        self._inner = inner
        self._deadline = deadline
        self._public = public

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect in a thread, because the time to resolve a name has no limit. A late one is abandoned."""
        left = self._deadline.bound(timeout, httpcore.ConnectTimeout)
        done: SimpleQueue[httpcore.NetworkStream | BaseException] = SimpleQueue()
        given_up = threading.Event()

        def connect() -> None:
            try:
                stream = self._inner.connect_tcp(host, port, left, local_address, socket_options)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
                done.put(error)
                return
            done.put(stream)
            if given_up.is_set():
                stream.close()

        threading.Thread(target=connect, name="connect", daemon=True).start()
        try:
            found = done.get(timeout=left)
        except Empty:
            given_up.set()
            with suppress(Empty):
                # The connection was made between the timeout and the event.
                late = done.get_nowait()
                if isinstance(late, httpcore.NetworkStream):
                    late.close()
            raise httpcore.ConnectTimeout("connecting takes too long") from None
        if isinstance(found, BaseException):
            raise found
        if self._public and not is_public(str(found.get_extra_info("server_addr")[0])):
            found.close()
            raise httpcore.ConnectError("its address is not a public one")
        return _Stream(found, self._deadline)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.bound(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_unix_socket(path, left, socket_options), self._deadline)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.bound(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In pieces, because the inner stream restarts its timeout with each piece that is sent.
        for start in range(0, len(buffer), _WRITE):
            left = self._deadline.bound(timeout, httpcore.WriteTimeout)
            self._inner.write(buffer[start : start + _WRITE], left)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.bound(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
