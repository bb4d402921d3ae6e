"""Blocking calls in the threads of a pool, for requests of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

_T = TypeVar("_T")


async def run_in(pool: Executor, call: Callable[[], _T]) -> _T:
    """What ``call`` returns in a thread of ``pool``.

    Cancelled, it gives a call up that has no thread yet. A call that has one cannot be stopped: then the
    request goes on until the call ends, and keeps its place among the requests of its client. So a client
    that asks and hangs up, again and again, has no more threads at work than one that waits for answers.
    """
    working = pool.submit(call)
    try:
        return await asyncio.wrap_future(working)
    except asyncio.CancelledError:
        if not working.cancel():
            # Its error, if it has one, is raised: it may be the sign of something that concerns all.
            await asyncio.wait([ended := asyncio.ensure_future(asyncio.wrap_future(working))])
            ended.result()
        raise
