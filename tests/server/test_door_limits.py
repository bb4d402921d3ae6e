"""What the HTTP server gives a client at most: time, connections, requests, bytes."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from kt_es.errors import KtError
from kt_es.server import connection, limits
from kt_es.server.asgi import Receive, Scope, Send
from kt_es.server.guard import AmbiguousError, oversized_shape, read_body
from kt_es.server.limits import ClientLimits
from kt_es.server.submission import run_in
from tests.reference.doors import LONG, PATIENCE, App, Door, answer, door, is_closed, request
from tests.reference.frontends import until

GUARDED = ClientLimits(exempt=())


@pytest.mark.parametrize(
    ("begun", "what"),
    [
        (b"", ""),
        (b"GET / HTTP/1.1\r\nHost", "slow-head"),
        (request("/", None, "Content-Length: 100", method="POST") + b"{", "slow-body"),
    ],
)
@pytest.mark.parametrize("drip", [False, True])
def test_who_is_slow_is_closed_and_a_drip_gains_nothing(
    app: App, monkeypatch: pytest.MonkeyPatch, begun: bytes, what: str, drip: bool
) -> None:
    monkeypatch.setattr(connection, "SLOWEST", 1 << 30)
    quick = replace(LONG, head_seconds=0.3, body_seconds=0.3, idle_seconds=0.3)
    with door(app, quick) as made:
        client = made.connect(begun or request("/first"))
        if not begun:
            assert answer(client)[0] == 200
        client.settimeout(0.02 if drip and begun else 20)
        while True:
            try:
                said = client.recv(1)
                break
            except TimeoutError:
                client.sendall(b"x")
        client.settimeout(20)
        assert said == (b"H" if what else b"")
        if what:
            assert client.recv(100).startswith(b"TTP/1.1 408 ")
            assert made.count(what) == 1
        client.close()
        until(lambda: len(made.connections) == 0)


def test_an_answer_that_is_not_read_ends_by_its_deadline(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SLOWEST", 1 << 30)
    with door(app, replace(LONG, answer_seconds=0.3)) as made:
        made.connect(request("/large"), buffer=4096)
        until(lambda: made.count("unread") == 1)
        until(lambda: len(made.connections) == 0)
        # The transport tells of its end later.
        until(lambda: made.connections.held == 0)


def test_what_has_not_arrived_whole_reaches_nothing(patient: Door, app: App) -> None:
    begun = request("/v1/mutations", None, "Content-Length: 9000", method="POST") + bytes(100)
    for _ in range(40):
        patient.connect(begun)
    assert answer(patient.connect(request("/whole")))[0] == 200
    assert app.asked == ["/whole"]


def test_a_client_that_hangs_up_ends_what_is_done_for_it(patient: Door, app: App) -> None:
    client = patient.connect(request("/wait"))
    until(lambda: app.waiting == 1)
    client.close()
    assert app.gone.acquire(timeout=20)
    assert app.waiting == 0


def test_too_many_requests_behind_one_another_are_refused(patient: Door, app: App) -> None:
    client = patient.connect(request("/wait"))
    until(lambda: app.waiting == 1)
    client.sendall(request("/next") * (limits.MAX_PIPELINED + 1))
    until(lambda: patient.count("pipelined") == 1)
    app.let_go()
    statuses = [answer(client)[0] for _ in range(limits.MAX_PIPELINED + 3)]
    assert statuses == [200] * (limits.MAX_PIPELINED + 2) + [400]
    assert is_closed(client)


def test_a_new_connection_takes_the_place_of_one_that_only_waits(app: App) -> None:
    with door(app, LONG, most=3) as made:
        busy = made.connect(request("/wait"))
        until(lambda: app.waiting == 1)
        oldest, other = made.connect(b"GET"), made.connect()
        until(lambda: len(made.connections) == 3)
        assert answer(made.connect(request("/new")))[0] == 200
        assert is_closed(oldest)
        app.let_go()
        assert answer(busy)[0] == 200
        other.sendall(request("/other"))
        assert answer(other)[0] == 200


def test_connections_are_refused_while_all_are_busy(app: App) -> None:
    with door(app, LONG, most=2) as made:
        busy = [made.connect(request("/wait")) for _ in range(2)]
        until(lambda: app.waiting == 2)
        assert is_closed(made.connect())
        assert made.count("connections") == 1
        app.let_go()
        assert [answer(client)[0] for client in busy] == [200, 200]


def test_connections_of_an_address_and_of_a_network_are_bounded(app: App) -> None:
    few = replace(GUARDED, address_connections=2, network_connections=3)
    with door(app, few) as made:
        kept = [made.connect(source=source) for source in ("127.0.0.2", "127.0.0.2", "127.0.0.3")]
        until(lambda: len(made.connections) == 3)
        assert is_closed(made.connect(source="127.0.0.2"))
        assert is_closed(made.connect(source="127.0.0.4"))
        assert answer(made.connect(request("/"), source="127.0.1.2"))[0] == 200
        kept[0].close()
        until(lambda: made.connections.clients.neighbours("127.0.0.2") == 2)
        assert answer(made.connect(request("/"), source="127.0.0.4"))[0] == 200


def test_bytes_kept_for_an_address_are_bounded(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_es.server.clients.ADDRESS_BYTES", 100_000)
    begun = request("/v1/mutations", None, "Content-Length: 90000", method="POST") + bytes(60_000)
    with door(app, GUARDED) as made:
        made.connect(begun, source="127.0.0.2")
        until(lambda: made.connections.held == 60_000)
        assert answer(made.connect(begun, source="127.0.0.2"))[0] == 429
        made.connect(begun, source="127.0.1.2")
        until(lambda: made.connections.held >= 120_000)


def test_bytes_kept_for_all_are_bounded_at_the_cost_of_who_keeps_most(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kt_es.server.clients.ALL_BYTES", 100_000)
    begun = request("/v1/mutations", None, "Content-Length: 90000", method="POST")
    with door(app, LONG) as made:
        most = made.connect(begun + bytes(60_000))
        until(lambda: made.connections.held == 60_000)
        other = made.connect(begun + bytes(50_000))
        assert is_closed(most)
        other.sendall(bytes(40_000))
        assert answer(other)[0] == 200


def test_who_asks_too_often_has_to_wait_and_nobody_else(app: App) -> None:
    slow = replace(GUARDED, address_rate=0.5, network_rate=0)
    with door(app, slow, guarded=True) as made:
        greedy = made.connect(source="127.0.0.2")
        answered, status = 0, 200
        while status == 200:
            greedy.sendall(request("/"))
            status, headers, body = answer(greedy)
            answered += status == 200
        assert answered >= 2
        assert (status, headers["retry-after"].isdigit()) == (429, True)
        assert b"too-many-requests" in body
        assert answer(made.connect(request("/"), source="127.0.0.3"))[0] == 200
        large = request("/v1/mutations", None, "Content-Length: 100000", method="POST")
        assert answer(made.connect(large, source="127.0.0.2"))[0] == 429
        assert answer(made.connect(request("/healthz"), source="127.0.0.2"))[0] == 200


def test_requests_of_an_address_under_way_are_bounded(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_es.server.clients.ADDRESS_REQUESTS", 2)
    with door(app, GUARDED, guarded=True) as made:
        busy = [made.connect(request("/wait"), source="127.0.0.2") for _ in range(2)]
        until(lambda: app.waiting == 2)
        assert answer(made.connect(request("/"), source="127.0.0.2"))[0] == 429
        assert answer(made.connect(request("/"), source="127.0.0.3"))[0] == 200
        app.let_go()
        assert [answer(client)[0] for client in busy] == [200, 200]
        assert answer(made.connect(request("/"), source="127.0.0.2"))[0] == 200


def test_who_hangs_up_has_no_more_threads_at_work_than_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_es.server.clients.ADDRESS_REQUESTS", 2)
    begun, let_go = threading.Semaphore(0), threading.Event()

    def work() -> None:
        begun.release()
        assert let_go.wait(PATIENCE)

    async def blocking(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/work":
            await run_in(pool, work)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    with ThreadPoolExecutor(4) as pool, door(blocking, GUARDED, guarded=True) as made:
        for _ in range(2):
            client = made.connect(request("/work"), source="127.0.0.2")
            assert begun.acquire(timeout=PATIENCE)
            client.close()
        until(lambda: len(made.connections) == 0)
        assert answer(made.connect(request("/"), source="127.0.0.2"))[0] == 429
        assert answer(made.connect(request("/"), source="127.0.0.3"))[0] == 200
        let_go.set()
        until(lambda: answer(made.connect(request("/"), source="127.0.0.2"))[0] == 200)


def test_a_call_that_has_no_thread_yet_is_given_up() -> None:
    began, let_go, called = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        began.set()
        assert let_go.wait(PATIENCE)
        raise KtError("found while nobody waited")

    async def run(pool: ThreadPoolExecutor) -> None:
        working = asyncio.create_task(run_in(pool, work))
        await asyncio.to_thread(began.wait)
        queued = asyncio.create_task(run_in(pool, lambda: called.append("queued")))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        working.cancel()
        await asyncio.sleep(0)
        assert not working.done()
        let_go.set()
        with pytest.raises(KtError, match="nobody waited"):
            await working

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(run(pool))
    assert not called


def test_requests_under_way_are_bounded(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 2)
    with door(app, GUARDED, guarded=True) as made:
        working = [made.connect(request("/wait")) for _ in range(2)]
        until(lambda: app.waiting == 2)
        assert answer(made.connect(request("/")))[0] == 503
        working.pop().close()
        until(lambda: app.waiting == 1)
        assert answer(made.connect(request("/")))[0] == 200


@pytest.mark.parametrize(
    ("body", "is_excessive"),
    [
        (b"{" + b",".join(b'"%d":1' % number for number in range(33)) + b"}", True),
        (b"[" * 9, True),
        (b'{"a":[{"b":[{"c":[[[[1]]]]}]}]}', True),
        (b'{"a":"' + b",{[" * 1000 + b'"}', False),
        (b'{"a":"\\"' + b"," * 100 + b'\\\\"}', False),
        (b'"\\"' * 300_000, True),
        (b'{"a":"' + b'\\"' * 500_000 + b",", False),
        (b"{" + b",".join(b'"%d":1' % number for number in range(32)) + b"}", False),
    ],
)
def test_members_and_levels_are_counted_before_a_body_is_read(body: bytes, is_excessive: bool) -> None:
    assert (oversized_shape(body) is not None) == is_excessive
    if is_excessive:
        with pytest.raises(AmbiguousError, match="the body has more than"):
            read_body(body)


def test_an_end_finishes_what_has_arrived_and_nothing_else(app: App) -> None:
    with door(app, LONG) as made:
        busy, idle = made.connect(request("/wait")), made.connect()
        until(lambda: app.waiting == 1)

        def let_go_when_the_idle_one_is_closed() -> None:
            is_closed(idle)
            app.let_go()

        told = threading.Thread(target=let_go_when_the_idle_one_is_closed)
        told.start()
        made.sockets.clear()
    told.join()
    with busy, idle:
        assert answer(busy)[1]["connection"] == "close"
        assert is_closed(busy)
