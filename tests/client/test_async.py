"""``AsyncClient``: the methods of ``Client`` in threads, and what cancelling and closing do."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from kt_es.client import AsyncClient, Change, Client, MemoryStateStore, Mine, Watcher
from kt_es.errors import UnavailableError, VerificationError
from kt_es.formats.entries import ProfileKey
from tests import builders as b
from tests.reference.clients import Handler, changed
from tests.reference.directory import Directory

ALICE, BOB = b.label_of("alice"), b.label_of("bob")
PATIENCE = 30.0


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    return directory


def client_of(directory: Directory, handler: Handler | None = None, **options: Any) -> AsyncClient:
    return AsyncClient(
        "http://kt.test",
        options.pop("state", None) or MemoryStateStore(),
        transport=httpx.MockTransport(handler or directory.handle),
        now=lambda: directory.now,
        **options,
    )


class Held:
    """The directory's answers to look-ups, each held back until ``release``; ``begun`` counts them."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._released = threading.Event()
        self._changed = threading.Condition()
        self.begun = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/lookup":
            with self._changed:
                self.begun += 1
                self._changed.notify_all()
            assert self._released.wait(PATIENCE)
        return self._directory.handle(request)

    def release(self) -> None:
        self._released.set()

    async def has_begun(self, count: int = 1) -> None:
        def wait() -> None:
            with self._changed:
                assert self._changed.wait_for(lambda: self.begun >= count, PATIENCE)

        await asyncio.to_thread(wait)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE):
            await test()

    asyncio.run(bounded())


def test_it_has_the_methods_of_client_with_their_parameters() -> None:
    methods = {name for name in vars(Client) if not name.startswith("_")}
    assert methods | {"run"} == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in (*methods - {"close", "on_first_use"}, "__init__"):
        assert inspect.signature(getattr(AsyncClient, name)) == inspect.signature(getattr(Client, name)), name
        assert name == "__init__" or inspect.iscoroutinefunction(getattr(AsyncClient, name))
    # Where it is found by its name.
    timeouts = [
        parameters["timeout"].kind
        for name in methods - {"on_first_use"}
        if "timeout" in (parameters := inspect.signature(getattr(Client, name)).parameters)
    ]
    assert len(timeouts) > 10
    assert set(timeouts) == {inspect.Parameter.KEYWORD_ONLY}


def test_lookups_at_the_same_time(directory: Directory) -> None:
    async def test() -> None:
        held = Held(directory)
        async with client_of(directory, held) as client:
            await client.trusted()
            assert client.on_first_use
            waiting = asyncio.gather(*(client.lookup(label) for label in (ALICE, BOB, ALICE)))
            await held.has_begun(3)
            held.release()
            alice, bob, again = await waiting
        assert [key.name for key in alice.profile or ()] == ["laptop"]
        assert bob.absent
        assert again.entry == alice.entry

    run(test)


def test_publishing_and_a_watcher(directory: Directory) -> None:
    async def test() -> None:
        key, told = b.private_key("bob"), list[Change]()

        async with client_of(directory) as client:
            published = await client.publish(BOB, [ProfileKey("laptop", "raw", b"one")], [key])
            assert published.stands
            mine = Mine(frozenset({b.public(b.private_key("stranger"))}))
            turn = await client.run(lambda sync: Watcher(sync, mine, told.append).look(BOB))
        assert turn.epoch == published.lookup.epoch
        assert [change.mine for change in told] == [False]

    run(test)


def test_errors_are_those_of_client(directory: Directory) -> None:
    async def test() -> None:
        lying = changed(directory, "/v1/lookup", lambda body: body.update(profile="AAAA"))
        async with client_of(directory, lying) as client:
            with pytest.raises(VerificationError):
                await client.lookup(ALICE)

    run(test)


def test_a_call_sees_the_context_of_its_caller(directory: Directory) -> None:
    async def test() -> None:
        variable = contextvars.ContextVar("variable", default=0)
        variable.set(7)
        async with client_of(directory) as client:
            assert await client.run(lambda _: variable.get()) == 7

    run(test)


def test_a_cancelled_call_is_not_waited_for_and_stores_all_it_verified(directory: Directory) -> None:
    async def test() -> None:
        held, state = Held(directory), MemoryStateStore()
        client = client_of(directory, held, state=state)
        before = await client.trusted()
        call = asyncio.create_task(client.lookup(ALICE))
        await held.has_begun()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # The answer is still held back: nobody waited for it.
        assert state.load() == before
        held.release()
        await client.close()
        after = state.load()
        assert after is not None
        assert after.size > before.size

    run(test)


def test_a_cancelled_call_that_has_no_thread_never_begins(directory: Directory) -> None:
    async def test() -> None:
        held = Held(directory)
        async with client_of(directory, held, connections=1) as client:
            await client.trusted()
            first = asyncio.create_task(client.lookup(ALICE))
            await held.has_begun()
            second = asyncio.create_task(client.lookup(BOB))
            # It has been handed to the threads once the loop has come round.
            await asyncio.to_thread(lambda: None)
            second.cancel()
            with suppress(asyncio.CancelledError):
                await second
            held.release()
            await first
        assert second.cancelled()
        assert held.begun == 1

    run(test)


def test_waiting_for_a_thread_is_part_of_the_timeout(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("kt_es.client.asynchronous.time", SimpleNamespace(monotonic=lambda: clock.now))

    async def test() -> None:
        held = Held(directory)
        async with client_of(directory, held, connections=1) as client:
            await client.trusted()
            first = asyncio.create_task(client.lookup(ALICE))
            await held.has_begun()
            second = asyncio.create_task(client.lookup(BOB, timeout=100.0))
            third = asyncio.create_task(client.lookup(BOB, timeout=400.0))
            await asyncio.to_thread(lambda: None)
            clock.now = 200.0
            held.release()
            await first
            with pytest.raises(UnavailableError, match="takes too long"):
                await second
            assert (await third).absent

    run(test)


def test_closing_waits_for_the_calls_that_run_even_where_it_is_cancelled(directory: Directory) -> None:
    async def test() -> None:
        held = Held(directory)
        client = client_of(directory, held)
        await client.trusted()
        call = asyncio.create_task(client.lookup(ALICE))
        await held.has_begun()
        closing = asyncio.create_task(client.close())
        await asyncio.to_thread(lambda: None)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        held.release()
        assert not (await call).absent
        await client.close()
        with pytest.raises(RuntimeError):
            await client.lookup(ALICE)

    run(test)
