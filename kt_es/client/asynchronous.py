"""``AsyncClient``: a ``Client`` whose calls run in threads, for programs that use asyncio.

After a cancellation a call that has a thread continues there until it is done or its time is over, so state
is always stored as a whole. A call that still waits for a thread never begins.
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
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from kt_es.client.client import Client
from kt_es.client.heads import SLACK
from kt_es.client.state import StateStore
from kt_es.client.trusted import Pinned
from kt_es.client.vouching import Policies
from kt_es.errors import StaleHeadError
from kt_es.process.clock import wall_clock

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _in_thread(
    method: Callable[Concatenate[Client, _P], _R],
) -> Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _R]]:
    """Make a method of ``AsyncClient`` from one of ``Client``, with the same parameters.

    The time for which a call waits for a thread is part of its timeout.
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

    ``connections`` is also the number of calls that run at a time; other calls wait for a thread.
    ``on_stale`` and ``on_waiting`` are called in these threads; use ``loop.call_soon_threadsafe`` to reach
    the event loop.

    When a call is cancelled, the caller stops waiting, but the call continues. So a change may be published
    although its ``publish`` or ``send`` was cancelled, as after ``UnavailableError``.
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
        registration: str | None = None,
        policies: Policies | None = None,
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
            registration=registration,
            policies=policies,
            now=now,
            on_stale=on_stale,
            on_waiting=on_waiting,
        )
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="kt-client")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Accept no more calls, wait for the calls that run, and close the connections.

        This takes at most until the last deadline of these calls. Cancelling it stops only the waiting.
        """
        self._threads.shutdown(wait=False)
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._close))

    def _close(self) -> None:
        self._threads.shutdown(wait=True)
        self._client.close()

    async def run(self, work: Callable[[Client], _R]) -> _R:
        """Call ``work`` with the underlying ``Client`` in a thread, and return its result.

        This is for code that takes a ``Client``, such as ``Watcher``.
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
    lookup_many = _in_thread(Client.lookup_many)
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
    status = _in_thread(Client.status)
    submit_many = _in_thread(Client.submit_many)
    confirm = _in_thread(Client.confirm)
    submit_erasure = _in_thread(Client.submit_erasure)
    confirm_erasure = _in_thread(Client.confirm_erasure)
    publish = _in_thread(Client.publish)
