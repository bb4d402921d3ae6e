"""Load on a front end: a process of its own that posts requests over several connections and times each.

``measure`` runs the process. Its standard input is a JSON document, and so is its output. Each connection
sends its next request as soon as it has the answer to the one before, or at a given rate. The client library
is not used, because it would be slower than the front end: an answer counts by its status, and nothing in it
is verified.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import uvloop

from kt_es.cli.addresses import free_address
from kt_es.config.tables import Address
from kt_es.errors import KtError

CONNECTIONS = 8
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_SLACK = 120.0
"""Seconds that a run may take beyond those that it was given."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run measured.

    Attributes:
        answers: How many requests were answered.
        rate: Answers a second.
        half: Milliseconds within which half of the requests were answered (p50).
        most: Milliseconds within which 99 of 100 were answered (p99).
    """

    answers: int
    rate: float
    half: float
    most: float


def measure(
    where: Address,
    path: str,
    bodies: Sequence[bytes],
    seconds: float | None = None,
    *,
    connections: int = CONNECTIONS,
    rate: float | None = None,
) -> Load:
    """Post each of ``bodies`` once; with ``seconds``, again and again for that long.

    Args:
        connections: How many there are, if there are as many bodies.
        rate: Requests a second of all connections together. A request that is sent late, because its
            connection waits for an answer, is timed from when it was due. None sends without pauses.

    Raises:
        KtError: An answer is neither 200 nor 202.
    """
    asked = {
        "host": where.host,
        "port": where.port,
        "requests": [_request(where, path, body).decode("latin-1") for body in bodies],
        "seconds": seconds,
        "connections": connections,
        "rate": rate,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kt_es.cli.trials.load"],
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            timeout=(seconds or len(bodies)) + _SLACK,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise KtError(f"the load generator failed: {error}; see its message above") from None
    answer = json.loads(done.stdout)
    if answer["problem"]:
        raise KtError(f"a request of the load generator failed: {answer['problem']}")
    taken = sorted(answer["milliseconds"])
    return Load(len(taken), len(taken) / answer["seconds"], _within(taken, 0.5), _within(taken, 0.99))


def _within(ordered: Sequence[float], part: float) -> float:
    return ordered[ceil(len(ordered) * part) - 1]


def _request(where: Address, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {where}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


class _Messages:
    """Splits what arrives on a connection into messages of HTTP/1.1 with a Content-Length."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the first line of each message that is complete now."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._data, 0, end + 2)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < whole:
                return
            yield self._data[: self._data.index(b"\r\n")]
            self._data = self._data[whole:]


class _Asking(asyncio.Protocol):
    """One connection of the generator."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._messages = _Messages()
        self._transport: Any = None
        self._due = time.perf_counter()
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        # The connections do not send all at the same time.
        self._due = time.perf_counter() - random.uniform(0, self._run.pause or 0)  # noqa: S311
        self._next()

    def data_received(self, data: bytes) -> None:
        for status in self._messages.feed(data):
            self._run.milliseconds.append((time.perf_counter() - self._due) * 1e3)
            if b" 200 " in status or b" 202 " in status:
                self._next()
            else:
                self._end(status.decode("latin-1"))

    def _next(self) -> None:
        now = time.perf_counter()
        if self._run.pause is None:
            self._due = now
        elif (early := self._due + self._run.pause - now) > 0:
            self._due += self._run.pause
            asyncio.get_running_loop().call_later(early, self._send)
            return
        else:
            self._due += self._run.pause
        self._send()

    def _send(self) -> None:
        request = None if self._is_over else self._run.next_request()
        if request is None:
            self._end("")
        else:
            self._transport.write(request)

    def _end(self, problem: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._transport.close()
            self._run.end(problem)

    def connection_lost(self, _: Exception | None) -> None:
        self._end("the connection was closed")


class _Run:
    """The requests that are left, and the times of those that were answered."""

    def __init__(
        self, requests: Sequence[bytes], seconds: float | None, connections: int, rate: float | None
    ) -> None:
        self._requests = iter(requests) if seconds is None else itertools.cycle(requests)
        self._until = None if seconds is None else time.perf_counter() + seconds
        self.connections = min(connections, len(requests))
        # Seconds between two requests of a connection.
        self.pause = None if rate is None else self.connections / rate
        self._open = self.connections
        self.over = asyncio.Event()
        self.milliseconds: list[float] = []
        self.problem = ""

    def next_request(self) -> bytes | None:
        if self.problem or (self._until is not None and time.perf_counter() > self._until):
            return None
        return next(self._requests, None)

    def end(self, problem: str) -> None:
        """Note that a connection has nothing left to ask, or why it failed."""
        self.problem = self.problem or problem
        self._open -= 1
        if not self._open:
            self.over.set()


async def _generate(asked: dict[str, Any]) -> dict[str, Any]:
    requests = [request.encode("latin-1") for request in asked["requests"]]
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    run = _Run(requests, asked["seconds"], asked["connections"], asked["rate"])
    for _ in range(run.connections):
        await loop.create_connection(lambda: _Asking(run), asked["host"], asked["port"])
    await run.over.wait()
    seconds = time.perf_counter() - began
    return {"milliseconds": run.milliseconds, "seconds": seconds, "problem": run.problem}


class _Answering(asyncio.Protocol):
    """A connection whose every request gets the same answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        self._messages = _Messages()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for _ in self._messages.feed(data):
            self._transport.write(self._answer)


@contextmanager
def constant_answer(answer: bytes) -> Iterator[Address]:
    """Serve ``answer`` to every request in a thread: shows what the generator itself can do."""
    where = free_address()
    loop = uvloop.new_event_loop()
    serving = loop.create_server(lambda: _Answering(answer), where.host, where.port)
    server = loop.run_until_complete(serving)
    thread = threading.Thread(target=loop.run_forever, name="constant answer")
    thread.start()
    try:
        yield where
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_generate(json.load(sys.stdin)))))
