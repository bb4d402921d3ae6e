"""Tells those who watch a front end of each new epoch, and of its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class EpochFeed:
    """Wakes the tasks of one event loop. Any thread may call ``announce``; the loop calls the rest."""

    def __init__(self) -> None:
        self.ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def begin(self) -> None:
        """Use the running loop from now on."""
        self._loop = asyncio.get_running_loop()

    def announce(self) -> None:
        """Wake all who wait: there is a new epoch, or none can be answered any more."""
        if self._loop is not None:
            # The loop is closed if the front end has ended meanwhile.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)

    def end(self) -> None:
        """Wake all who wait, since the front end stops."""
        self.ended = True
        self._wake()

    async def changed(self, seconds: float) -> None:
        """Wait for the next announcement, at most for ``seconds``.

        What was announced before this call is not seen, so a caller looks first and then calls, without
        another await between.
        """
        if self.ended:
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            self._waiting.discard(waiting)

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
