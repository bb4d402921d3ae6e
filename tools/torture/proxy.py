"""A TCP proxy between one process and the node. It breaks connections in all the ways that networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum
from typing import Any, TypeVar

CHUNK = 64 * 1024

_T = TypeVar("_T")


class Mode(Enum):
    """What happens to the bytes. Held bytes are delivered late. Discarded bytes lead to a reset."""

    PASS = "pass"
    DELAY = "delay"  # each chunk is delayed
    DROP = "drop"  # bytes are held in both directions until the proxy heals, like lost packets
    LATE = "late"  # the server gets all bytes, its answers are held
    UNANSWERED = "unanswered"  # the server gets all bytes, its answers are discarded
    HALF_OPEN = "half-open"  # connections stay open and new ones are accepted, all bytes are discarded
    RESET = "reset"  # every connection is reset, also a new one


_HELD = {Mode.DROP: (True, True), Mode.LATE: (False, True)}
_SWALLOWED = {Mode.UNANSWERED: (False, True), Mode.HALF_OPEN: (True, True)}
_NEITHER = (False, False)


class Proxy:
    """Listens on its own loopback port and connects to ``target``. Use it in one event loop."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.connections = 0
        self.delivered = 0  # bytes from the server
        self.deliveries = 0  # pieces of them
        self._target = target
        self._mode = Mode.PASS
        self._delay = 0.0
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset()

    async def set_mode(self, mode: Mode, delay: float) -> None:
        """Break connections, or heal them with ``PASS``. A connection that lost bytes is reset."""
        before, self._mode, self._delay = self._mode, mode, delay
        if before in _SWALLOWED or mode is Mode.RESET:
            self._reset()
        self._changed.set()
        self._changed = asyncio.Event()

    def _reset(self) -> None:
        for writer in list(self._writers):
            _abort(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._mode is Mode.RESET:
            _abort(writer)
            return
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            if self._mode is Mode.HALF_OPEN:
                await self._until_changed()
                return
            from_server, upstream = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(upstream)
            await asyncio.gather(self._pump(reader, upstream, 0), self._pump(from_server, writer, 1))
        except OSError:
            pass
        finally:
            for one in (writer, upstream):
                if one is not None:
                    self._writers.discard(one)
                    _abort(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        """Forward the bytes of one direction: 0 is to the server, 1 is from the server."""
        while True:
            data = await reader.read(CHUNK)
            while _HELD.get(self._mode, _NEITHER)[way]:
                await self._until_changed()
            if _SWALLOWED.get(self._mode, _NEITHER)[way]:
                if not data:
                    # The other side does not learn of the end. The next mode resets the connection.
                    await self._until_changed()
                    return
                continue
            if self._mode is Mode.DELAY:
                await asyncio.sleep(self._delay)
            if not data:
                with suppress(OSError, RuntimeError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            self.delivered += len(data) * way
            self.deliveries += way

    async def _until_changed(self) -> None:
        await self._changed.wait()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Reset the connection instead of closing it in order."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Network:
    """The proxies of all processes, in a separate thread. Other threads call the methods."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._proxies: dict[str, Proxy] = {}
        self._broken: dict[str, Mode] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def add(self, name: str) -> str:
        """Open a proxy for the process ``name``, and return the connection string that leads through it."""

        async def opened() -> Proxy:
            proxy = Proxy(self._target)
            await proxy.open()
            return proxy

        proxy = self._proxies[name] = self._do(opened())
        return f"esdb://127.0.0.1:{proxy.port}?Tls=false"

    def set_mode(self, name: str, mode: Mode, delay: float = 0.0) -> None:
        self._do(self._proxies[name].set_mode(mode, delay))
        if mode is Mode.PASS:
            self._broken.pop(name, None)
        else:
            self._broken[name] = mode

    def heal(self) -> None:
        for name in list(self._broken):
            self.set_mode(name, Mode.PASS)

    @property
    def connections(self) -> int:
        return sum(proxy.connections for proxy in self._proxies.values())

    @property
    def delivered(self) -> int:
        """The number of bytes that were delivered from the server to the processes."""
        return sum(proxy.delivered for proxy in self._proxies.values())

    @property
    def deliveries(self) -> int:
        """The number of pieces in which those bytes were delivered."""
        return sum(proxy.deliveries for proxy in self._proxies.values())

    def close(self) -> None:
        async def ended() -> None:
            for proxy in self._proxies.values():
                await proxy.set_mode(Mode.RESET, 0.0)
                await proxy.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            if rest:
                await asyncio.wait(rest, timeout=5)

        self._do(ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
