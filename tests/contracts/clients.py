"""The clients that contracts are asked through: the synchronous one, and asyncio's made to look like it.

A contract is written once, against the synchronous client. ``Blocking`` runs the asyncio client on an
event loop in a thread of its own and waits for each of its answers.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from kt_es.eventstore.driver import AsyncEventStoreDBClient

_ENOUGH = 120.0  # seconds; only a call that would never return takes as long


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ENOUGH)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ENOUGH)
        self._loop.close()


class Blocking:
    """An object of the asyncio client: its coroutines are waited for, its iterators iterate."""

    def __init__(self, loop: Loop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._dressed(self._loop.wait(_run(found, args, kwargs)))

        return call

    def _dressed(self, value: Any) -> Any:
        return Blocking(self._loop, value) if hasattr(value, "__anext__") else value

    def __iter__(self) -> Blocking:
        return self

    def __next__(self) -> Any:
        value = self._loop.wait(_next(self._inner))
        if value is None:
            raise StopIteration
        return value

    def __enter__(self) -> Blocking:
        self._loop.wait(self._inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.wait(self._inner.__aexit__(kind, error, trace))


async def _run(call: Any, args: Any, kwargs: Any) -> Any:
    value = call(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


async def _next(inner: Any) -> Any:
    # A StopAsyncIteration must not leave a coroutine.
    return await anext(inner, None)


async def connected(uri: str) -> AsyncEventStoreDBClient:
    """Clients of asyncio belong to the loop on which they are made."""
    client = AsyncEventStoreDBClient(uri)
    await client.connect()
    return client
