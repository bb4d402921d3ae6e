"""``python -m tools.abuse.attacks NAME PORT SECONDS``: one kind of abuse, by one client or many clients.

One client is a /24 of the loopback network, 127.0.2.x. A crowd has many clients. At its end every attack
prints the counts of its answers as JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from kt_es.api.batches import MAX_SUBMISSIONS
from kt_es.formats.entries import Mutation
from kt_es.formats.notes import encode_base64
from tests import builders as b
from tests.reference.doors import request
from tools.abuse.stage import USERS, VERSIONS, VETERAN


@dataclass
class Attack:
    """An attack on ``port`` until the time ``until``.

    ``told`` counts answers by status, and connections that were ``closed``, ``refused`` or ``silent``.
    """

    port: int
    until: float
    told: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    async def open(
        self, source: str, *, buffer: int = 0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        made = socket.socket()
        try:
            if buffer:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            made.setblocking(False)
            made.bind((source, 0))
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self.port)), 2)
            return await asyncio.open_connection(sock=made)
        except (OSError, TimeoutError):
            made.close()
            self.told["refused"] += 1
            return None

    async def answer(self, reader: asyncio.StreamReader) -> None:
        """Read one answer and count its status."""
        head = await reader.readuntil(b"\r\n\r\n")
        size = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15] == b"content-length:"), 0)
        await reader.readexactly(size)
        self.told[head[9:12].decode()] += 1


Source = Callable[[int], str]
Run = Callable[[str, int], Awaitable[None]]


def one(number: int) -> str:
    return f"127.0.2.{number % 8 + 1}"


def crowd(number: int) -> str:
    return f"127.{number % 200 + 10}.{number % 250}.1"


async def many(
    attack: Attack, count: int, source: Source, run: Callable[[str, int], Awaitable[None]]
) -> None:
    """Call ``run`` repeatedly in ``count`` tasks until the time is up. Each call makes a new connection."""

    async def again(number: int) -> None:
        while attack.left > 0:
            with suppress(TimeoutError):
                try:
                    await asyncio.wait_for(run(source(number), number), attack.left)
                except (OSError, asyncio.IncompleteReadError):
                    attack.told["closed"] += 1
            # Without the pause, refused clients would flood the server with connections: a separate attack.
            await asyncio.sleep(0.05)

    await asyncio.gather(*(again(number) for number in range(count)))


def sending(attack: Attack, data: Iterator[bytes] | bytes, *, buffer: int = 0, reads: bool = True) -> Run:
    """Make a client that sends requests one after another. With ``reads`` it reads the answers."""

    async def run(source: str, _: int) -> None:
        opened = await attack.open(source, buffer=buffer)
        if opened is None:
            return
        reader, writer = opened
        try:
            while attack.left > 0:
                writer.write(data if isinstance(data, bytes) else next(data))
                await writer.drain()
                if reads:
                    await attack.answer(reader)
                else:
                    await asyncio.sleep(0.1)
        finally:
            writer.transport.abort()

    return run


def holding(attack: Attack, begun: bytes, drip: bytes) -> Run:
    """Make a client that begins a request with ``begun`` and continues slowly with ``drip``, if at all."""

    async def run(source: str, _: int) -> None:
        opened = await attack.open(source)
        if opened is None:
            return
        reader, writer = opened
        try:
            writer.write(begun)
            while attack.left > 0:
                with suppress(TimeoutError):
                    said = await asyncio.wait_for(reader.read(1024), 1)
                    attack.told[said[9:12].decode() or "closed"] += 1
                    return
                writer.write(drip)
                await writer.drain()
        finally:
            writer.transport.abort()

    return run


def post(path: str, body: object) -> bytes:
    return request(path, json.dumps(body).encode())


def lookups() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield post("/v1/lookup", {"label": b.label_of(f"user{number % USERS}")})


def waiting(number: int = 0) -> Iterator[bytes]:
    """Yield valid submissions. Nobody decides them, because the stage has no signer."""
    while True:
        number += 1
        user = f"waiting{number}"
        made = b.mutation(user)
        yield post(
            "/v1/mutations",
            {
                "label": b.label_of(user),
                "mutation": encode_base64(made.encode()),
                "opening": encode_base64(b.opening(user)),
                "profile": encode_base64(b.profile(user)),
                "wait": 60,
            },
        )


def batched(made: Mutation) -> dict[str, str]:
    """Return the submission of a first version of ``forger`` in a batch."""
    return {
        "label": b.label_of("forger"),
        "mutation": encode_base64(made.encode()),
        "opening": encode_base64(b.opening("forger")),
        "profile": encode_base64(b.profile("forger")),
    }


def forged() -> Iterator[bytes]:
    """Yield batches whose every signature has to be verified, and is invalid."""
    keys = [b.private_key(f"forger {number}") for number in range(8)]
    while True:
        made = [b.mutation("forger", signed_by=[key]) for key in keys]
        submissions = [batched(made[number % len(made)]) for number in range(MAX_SUBMISSIONS)]
        yield post("/v1/mutations/batch", {"submissions": submissions})


def repeated() -> Iterator[bytes]:
    """Yield batches of the same valid mutation."""
    submissions = [batched(b.mutation("forger"))] * MAX_SUBMISSIONS
    while True:
        yield post("/v1/mutations/batch", {"submissions": submissions, "wait": 60})


MEMBERS = b"{" + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}"
ZEROS = b'{"label":"' + b"0" * 1_200_000 + b'"}'
BEGUN = request("/v1/mutations", None, "Content-Length: 1200000", method="POST") + bytes(1_000_000)
BOTH = (
    b"POST /v1/lookup HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: "
# The beginning of a TLS record with a length of 16 KiB.
HELLO = b"\x16\x03\x01\x40\x00"
HISTORY = {"label": b.label_of(VETERAN), "profiles": True}
RANGE = {"label": b.label_of(VETERAN), "first": 1, "last": VERSIONS}


async def hang_up(attack: Attack, source: str, data: Iterator[bytes]) -> None:
    opened = await attack.open(source)
    if opened is not None:
        _, writer = opened
        writer.write(next(data))
        await writer.drain()
        writer.transport.abort()
        attack.told["left"] += 1


def _plans(attack: Attack) -> dict[str, Callable[[], Awaitable[None]]]:
    queue = waiting()
    asked = lookups()
    return {
        "slow-heads": lambda: many(attack, 600, crowd, holding(attack, HEAD, b"a")),
        "slow-bodies": lambda: many(attack, 100, crowd, holding(attack, BEGUN, b"a")),
        "silence": lambda: many(attack, 1500, crowd, holding(attack, b"", b"")),
        "unread-answers": lambda: many(
            attack, 60, one, sending(attack, post("/v1/range", RANGE), buffer=4096, reads=False)
        ),
        "waiting": lambda: many(attack, 60, one, sending(attack, queue)),
        "hanging-up": lambda: many(attack, 60, one, lambda source, _: hang_up(attack, source, queue)),
        "lookups": lambda: many(attack, 64, one, sending(attack, asked)),
        "pipelines": lambda: many(attack, 16, one, sending(attack, post("/v1/lookup", {}) * 30, reads=False)),
        "histories": lambda: many(attack, 60, one, sending(attack, post("/v1/history", HISTORY))),
        "ranges": lambda: many(attack, 60, one, sending(attack, post("/v1/range", RANGE))),
        "members": lambda: many(attack, 32, one, sending(attack, request("/v1/mutations", MEMBERS))),
        "large-bodies": lambda: many(attack, 32, one, sending(attack, request("/v1/mutations", ZEROS))),
        "forged-batches": lambda: many(attack, 32, one, sending(attack, forged())),
        "repeated-batches": lambda: many(attack, 32, one, sending(attack, repeated())),
        "two-framings": lambda: many(attack, 60, one, sending(attack, BOTH)),
        "connections": lambda: many(attack, 60, one, lambda source, _: hang_up(attack, source, asked)),
        "handshakes": lambda: many(attack, 1500, crowd, holding(attack, HELLO, b"a")),
        "no-handshakes": lambda: many(attack, 60, one, sending(attack, request("/"))),
    }


OVER_TLS = ("handshakes", "no-handshakes")
"""Attacks on a front end that serves HTTPS."""

NAMES = tuple(_plans(Attack(0, 0.0)))


def main() -> None:
    name, port, seconds = sys.argv[1:]
    attack = Attack(int(port), time.monotonic() + float(seconds))
    asyncio.run(_run(_plans(attack)[name]))
    print(json.dumps(attack.told))


async def _run(plan: Callable[[], Awaitable[None]]) -> None:
    await plan()


if __name__ == "__main__":
    main()
