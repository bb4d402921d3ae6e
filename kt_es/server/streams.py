"""Streams of events (text/event-stream): how many there may be, and how an event is written.

A stream is a connection of its own. It has no slot among the requests, so few of them would keep others out
only by their number, which is bounded for each client and in all.

Only the thread of the event loop uses this module.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import prometheus_client

from kt_es.server.asgi import Send
from kt_es.server.clients import Clients
from kt_es.server.limits import Network
from kt_es.server.networks import address_in, is_within, networks_around
from kt_es.server.responses import Headers, Problem, too_many

EVENTS_MEDIA = "text/event-stream"
ADDRESS_STREAMS = 16
_NETWORK_SHARE = 4  # a network may have this many times what one of its addresses may
_PART = 4  # of all connections, streams may be one in so many
RETRY = 2_000
"""Milliseconds after which a browser connects again."""

BEGIN = f"retry: {RETRY}\n\n".encode()
KEEP_ALIVE = b":\n\n"
"""A comment, which readers ignore. It shows both sides that the connection still works."""


@dataclass(frozen=True, slots=True)
class EventStream:
    """An answer that goes on: ``parts`` are written as they come. ``ended`` is called once at the end."""

    parts: AsyncIterator[bytes]
    ended: Callable[[], None]
    status: int = 200

    @property
    def headers(self) -> Headers:
        # "no" keeps nginx from collecting events before it passes them on.
        return [
            (b"content-type", EVENTS_MEDIA.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]

    async def send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        try:
            await send({**start, "streams": True})
            async for part in self.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        finally:
            self.ended()
        await send({"type": "http.response.body", "body": b""})


def event(name: str, number: int, body: object) -> bytes:
    """Return one event. Its data are JSON in one line, and its id is ``number``."""
    data = json.dumps(body, separators=(",", ":"))
    return f"event: {name}\nid: {number}\ndata: {data}\n\n".encode()


class StreamCounts:
    """The streams of each address and network. ``refused`` counts refusals by reason."""

    def __init__(self, clients: Clients, refused: prometheus_client.Counter) -> None:
        self._clients = clients
        self._refused = refused
        self._counts: Counter[Network] = Counter()
        self.total = 0

    def enter(self, client: str) -> Problem | None:
        """Count a stream of ``client``; return the problem if there are too many. ``leave`` follows."""
        keys = self._keys(client)
        bounds = (ADDRESS_STREAMS, _NETWORK_SHARE * ADDRESS_STREAMS)
        if self.total >= max(1, self._clients.limits.connections // _PART) or any(
            self._counts[key] >= bound for key, bound in zip(keys, bounds, strict=False)
        ):
            self._refused.labels("streams").inc()
            return too_many(5.0)
        self.total += 1
        self._counts.update(keys)
        return None

    def leave(self, client: str) -> None:
        self.total -= 1
        for key in self._keys(client):
            self._counts[key] -= 1
            if self._counts[key] <= 0:
                del self._counts[key]

    def _keys(self, client: str) -> tuple[Network, ...]:
        """Return what ``client`` is counted under: its address and its network; nothing if it is exempt."""
        address = address_in(client)
        if address is None or is_within(address, self._clients.limits.exempt):
            return ()
        return tuple(networks_around(address))
