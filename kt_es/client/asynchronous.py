"""``AsyncClient``: a ``Client`` whose calls run in threads, for programs that use asyncio.

Trust has one implementation, ``Client``; this module has none of its own. Cancelling a call ends the waiting
for it. A call that runs in a thread already goes on there until it is done or its time is over, so state is
always stored as a whole. A call that still waits for a thread never begins.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from kt_es.client.client import Client, wall_clock
from kt_es.client.heads import SLACK
from kt_es.client.state import StateStore
from kt_es.client.trusted import Pinned
from kt_es.errors import StaleHeadError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _in_thread(
    method: Callable[Concatenate[Client, _P], _R],
) -> Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _R]]:
    """``method`` of ``Client`` as one of ``AsyncClient``, with the same parameters.

    The time that a call waits for a thread is part of its timeout.
    """
    bounded = "timeout" in inspect.signature(method).parameters

    async def call(self: AsyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        options: dict[str, Any] = dict(kwargs)
        timeout = options.get("timeout")
        end = time.monotonic() + (self._timeout if timeout is None else timeout)

        def work(client: Client) -> _R:
            if bounded:
                options["timeout"] = end - time.monotonic()
            return method(client, *args, **options)

        return await self.run(work)

    functools.update_wrapper(call, method)
    return call


class AsyncClient:
    """``Client`` for asyncio: the same parameters and methods, each method a coroutine.

    ``connections`` is also how many calls run at a time; the others wait for a thread. ``on_stale`` and
    ``on_waiting`` are called in these threads; use ``loop.call_soon_threadsafe`` to reach the event loop.

    Cancelling a call stops the waiting, not the call, as the head of this module says. So a change whose
    ``publish`` or ``send`` was cancelled may come to stand all the same, as after ``UnavailableError``.
    """

    def __init__(
        self,
        base_url: str,
        state: StateStore,
        *,
        pinned: Pinned | None = None,
        origin: str | None = None,
        timeout: float = 30.0,
        slack: int = SLACK,
        verify: ssl.SSLContext | bool = True,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        connections: int = 32,
        now: Callable[[], int] = wall_clock,
        on_stale: Callable[[StaleHeadError], None] | None = None,
        on_waiting: Callable[[str], None] | None = None,
    ) -> None:
        self._client = Client(
            base_url,
            state,
            pinned=pinned,
            origin=origin,
            timeout=timeout,
            slack=slack,
            verify=verify,
            headers=headers,
            transport=transport,
            connections=connections,
            now=now,
            on_stale=on_stale,
            on_waiting=on_waiting,
        )
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="kt-client")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Take no more calls, wait for those that run, and close the connections.

        That lasts until the last deadline of these calls at most. Cancelling stops the waiting only.
        """
        self._threads.shutdown(wait=False)
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._close))

    def _close(self) -> None:
        self._threads.shutdown(wait=True)
        self._client.close()

    async def run(self, work: Callable[[Client], _R]) -> _R:
        """What ``work`` returns, run in a thread of this client with the ``Client`` beneath.

        For what takes a ``Client``, such as ``Watcher``.
        """
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, context.run, work, self._client)

    @property
    def on_first_use(self) -> bool:
        """Whether this client trusted the directory because it was the first to answer."""
        return self._client.on_first_use

    directory = _in_thread(Client.directory)
    trusted = _in_thread(Client.trusted)
    lookup = _in_thread(Client.lookup)
    history = _in_thread(Client.history)
    kept = _in_thread(Client.kept)
    range = _in_thread(Client.range)
    recall = _in_thread(Client.recall)
    remember = _in_thread(Client.remember)
    exchange = _in_thread(Client.exchange)
    head = _in_thread(Client.head)
    heads = _in_thread(Client.heads)
    consistency = _in_thread(Client.consistency)
    propose = _in_thread(Client.propose)
    prepare = _in_thread(Client.prepare)
    send = _in_thread(Client.send)
    submit = _in_thread(Client.submit)
    confirm = _in_thread(Client.confirm)
    submit_erasure = _in_thread(Client.submit_erasure)
    confirm_erasure = _in_thread(Client.confirm_erasure)
    publish = _in_thread(Client.publish)
