"""A full disk: writes are refused until there is space again, which is tested once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from kt_es.node.store.storage import NodeStorage, NoSpaceError

_LOG = structlog.get_logger("kt_es.node")
PAUSE = 1.0  # seconds between attempts


class DiskOutage:
    """Whether writes are refused. Everything is on the event loop's thread.

    ``on_failure`` gets the error if the disk has another fault than being full.
    """

    def __init__(
        self, storage: NodeStorage, on_failure: Callable[[Exception], None], pause: float = PAUSE
    ) -> None:
        self._storage = storage
        self._on_failure = on_failure
        self._pause = pause
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._over.set()

    @property
    def is_on(self) -> bool:
        """Whether writes are refused."""
        return not self._over.is_set()

    async def over(self) -> None:
        """Return once writes are accepted, or the node stops."""
        await self._over.wait()

    def begin(self, error: NoSpaceError) -> None:
        """Refuse writes; ``error`` has the reason."""
        if self.is_on:
            return
        self._over.clear()
        reason = str(error.__cause__ or error)
        _LOG.error("the disk is full: writes are refused, reads go on", reason=reason)
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        began = time.monotonic()
        try:
            while not await self._has_ended():
                await asyncio.sleep(self._pause)
        except Exception as error:  # noqa: BLE001  the disk is in doubt
            self._on_failure(error)
        else:
            _LOG.warning("there is space again: writes go on", seconds=round(time.monotonic() - began))
        finally:
            self._over.set()

    async def _has_ended(self) -> bool:
        if not await asyncio.to_thread(self._storage.may_recover):
            return False
        try:
            # On the loop's thread, so that nobody reads meanwhile.
            self._storage.recover()
        except NoSpaceError:
            return False
        return True

    async def close(self) -> None:
        """Stop testing for space."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
