"""The heads of a directory as they are published, for those who follow them over any interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from kt_es.server.feed import EpochFeed
from kt_es.server.handlers import DirectoryReader
from kt_es.server.responses import NotNowError


class HeadFollower:
    """Says which epochs to send to one who follows. ``feed`` tells of new ones.

    Only the thread of the event loop uses it.
    """

    def __init__(self, directory: DirectoryReader, feed: EpochFeed) -> None:
        self._directory = directory
        self._feed = feed

    def check(self, since: int | None) -> None:
        """Raise ``NotNowError`` if nothing can be answered now, or if this front end is behind ``since``."""
        committed = self._directory.committed()
        if since is not None and since > committed.epoch:
            raise NotNowError(
                f"this front end is behind: it has {committed.epoch} epochs, and {since} were seen before"
            )

    async def epochs(
        self,
        since: int | None,
        seconds: float,
        *,
        pause: float | None = None,
        most_missed: int | None = None,
    ) -> AsyncIterator[int | None]:
        """Yield each epoch after ``since`` in order, or from the latest one on, as they are committed.

        Args:
            since: The last epoch that the follower has.
            seconds: The iteration ends after this time, and when the front end stops.
            pause: Yield None whenever so many seconds have passed without an epoch.
            most_missed: If more epochs than these were missed, begin with the latest one.

        Raises ``NotNowError`` as ``check`` does, and once nothing can be answered any more.
        """
        loop = asyncio.get_running_loop()
        self._feed.begin()
        self.check(since)
        ends, sent = loop.time() + seconds, since
        if since is not None and most_missed is not None:
            latest = self._directory.committed().epoch
            sent = latest - 1 if latest - since > most_missed else since
        while not self._feed.ended:
            epoch = self._directory.committed().epoch
            left = ends - loop.time()
            if left <= 0:
                return
            if sent is None or sent < epoch:
                sent = epoch if sent is None else sent + 1
                yield sent
                continue
            waits = left if pause is None else min(left, pause)
            until = loop.time() + waits
            await self._feed.changed(waits)
            if pause is not None and loop.time() >= until:
                yield None
