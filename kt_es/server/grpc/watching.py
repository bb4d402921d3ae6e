"""``WatchHeads``: the head of each epoch as it is committed, with a proof that continues the one before."""

from __future__ import annotations

from typing import Any

from kt_es.api.models import HeadBody, LatestHeadParameters
from kt_es.server.endpoints.common import Frontend
from kt_es.server.feed import EpochFeed
from kt_es.server.following import HeadFollower
from kt_es.server.grpc.calls import Call
from kt_es.server.grpc.messages import request_of, watch_answer
from kt_es.server.responses import Problem
from kt_es.server.submission import run_in

WATCH_SECONDS = 120.0
"""A watch ends after this time, before its connection ends because of its age (``listening.AGE_GRACE``)."""


class HeadWatch:
    """Serves watches of heads. ``feed`` tells of new epochs."""

    def __init__(self, frontend: Frontend, feed: EpochFeed) -> None:
        self._frontend = frontend
        self._follower = HeadFollower(frontend.directory, feed)

    async def watch(self, message: Any, call: Call) -> Problem | None:
        # An epoch is the size of the log of map heads, so ``since`` has the bounds of the latest head.
        before = since = request_of(LatestHeadParameters, message).since
        first = True
        async for epoch in self._follower.epochs(since, WATCH_SECONDS):
            if epoch is None:
                continue
            if not first:
                await call.pay()
            first = False
            await call.send(await run_in(self._frontend.reads, lambda: self._encoded(epoch, before)))  # noqa: B023
            before = epoch
        return None

    def _encoded(self, epoch: int, since: int | None) -> bytes:
        directory = self._frontend.directory
        head: HeadBody = directory.head(epoch)
        # Every log continues the empty one, which needs no proof.
        return watch_answer(head, directory.consistency("heads", since, epoch) if since else ())
