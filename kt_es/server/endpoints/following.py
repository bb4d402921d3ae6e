"""The endpoint that sends each new head as a server-sent event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from kt_es.api import operations
from kt_es.api.codec import encode_model
from kt_es.api.heads import HEAD_EVENT, MAX_MISSED, HeadEventBody, HeadEventsParameters
from kt_es.api.models import MAX_UINT
from kt_es.api.operations import ProblemReason
from kt_es.errors import KtError, RefusedError
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.common import Endpoints, Frontend
from kt_es.server.following import HeadFollower
from kt_es.server.handlers import DirectoryReader
from kt_es.server.limits import Route
from kt_es.server.renewing import renewed
from kt_es.server.responses import Answer
from kt_es.server.streams import BEGIN, KEEP_ALIVE, EventStream, StreamCounts, event
from kt_es.server.submission import run_in

STREAM_SECONDS = 600.0
"""A stream ends after this time. Its client connects again and misses nothing."""
KEEP_ALIVE_SECONDS = 15.0
_LAST_EVENT = b"last-event-id"
_HEAD = Route()


class HeadEvents:
    """Makes the events of heads. Safe for threads."""

    def __init__(self, directory: DirectoryReader) -> None:
        self._directory = directory

    @property
    def renew(self) -> Callable[[], bool]:
        return self._directory.renew

    @renewed
    def body(self, epoch: int, since: int | None) -> tuple[HeadEventBody, int]:
        """Return the head of ``epoch`` in the latest log, and the size of that log.

        ``since`` is the size of the log that the client has, None if it has none.
        """
        directory = self._directory
        committed = directory.committed()
        latest, head = directory.published(committed, committed.epoch), directory.published(committed, epoch)
        body = HeadEventBody(
            epoch,
            head.event.smh_bytes,
            head.event.heads_checkpoint,
            head.event.mutations_checkpoint,
            head.inclusion,
            latest.event.heads_checkpoint,
            directory.since(committed, since),
        )
        return body, committed.heads.size


class FollowingEndpoints:
    """Serves streams of heads."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._follower = HeadFollower(frontend.directory, frontend.feed)
        self._events = HeadEvents(frontend.directory)
        self._counts = StreamCounts(frontend.slots.clients, frontend.metrics.refused)

    def by_operation(self) -> Endpoints:
        return [(operations.HEAD_EVENTS, self._follow)]

    async def _follow(self, asked: HeadEventsParameters, scope: Scope) -> Answer | EventStream:
        last = _last_event(scope)
        since = asked.since if last is None else last
        self._follower.check(since)
        client = scope["client"][0] if scope.get("client") else ""
        problem = self._counts.enter(client)
        if problem is not None:
            return problem.answer
        return EventStream(self._parts(client, since), lambda: self._counts.leave(client))

    async def _parts(self, client: str, since: int | None) -> AsyncIterator[bytes]:
        """Yield what is sent to ``client``, which has the heads up to the epoch ``since``."""
        yield BEGIN
        size, first = since, True
        epochs = self._follower.epochs(
            since, STREAM_SECONDS, pause=KEEP_ALIVE_SECONDS, most_missed=MAX_MISSED
        )
        try:
            async for epoch in epochs:
                if epoch is None:
                    yield KEEP_ALIVE
                    continue
                if not first:
                    await self._pay(client)
                first = False
                body, size = await run_in(self._frontend.reads, lambda: self._events.body(epoch, size))  # noqa: B023
                yield event(HEAD_EVENT, epoch, encode_model(body))
        except KtError:
            # The client connects again, and then gets the problem as an answer.
            return

    async def _pay(self, client: str) -> None:
        """Count a head as one lookup of the client, and wait while the client owes for earlier ones."""
        clients = self._frontend.slots.clients
        while (wait := clients.enter(client, _HEAD, 0)) is not None:
            await asyncio.sleep(wait)
        clients.leave(client, request=True)


def _last_event(scope: Scope) -> int | None:
    """Return the epoch in ``Last-Event-ID``, None without it. Raises ``RefusedError``."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == _LAST_EVENT]
    if not values:
        return None
    text = values[0]
    is_number = text.isascii() and text.isdigit() and len(text) < 20 and text == str(int(text))
    if len(values) > 1 or not is_number or int(text) > MAX_UINT:
        raise RefusedError(ProblemReason.MALFORMED, "must be the id of an event", "last-event-id")
    return int(text)
