"""A server that takes every call and answers none, while its connection stays healthy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from kt_es.errors import UnavailableError
from kt_es.eventstore import driver, esdb
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.esdb_client import EsdbClient

PATIENCE = 60.0


@contextmanager
def server_refusing(first: int) -> Iterator[str]:
    """Refuses so many calls, and then answers none; its connection string."""
    ended = threading.Event()
    left = iter(range(first))

    def never(_requests: object, context: grpc.ServicerContext) -> Iterator[bytes]:
        if next(left, None) is not None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        ended.wait()
        return iter(())

    class Everything(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            del details
            return grpc.stream_stream_rpc_method_handler(never)

    server = grpc.server(ThreadPoolExecutor(8), handlers=[Everything()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"esdb://127.0.0.1:{port}?Tls=false"
    finally:
        ended.set()
        server.stop(None).wait()


@pytest.fixture
def silent() -> Iterator[str]:
    with server_refusing(0) as uri:
        yield uri


OPENINGS = pytest.mark.parametrize(
    "open_one",
    [
        lambda log: log.join_group("queue", "group"),
        lambda log: log.subscribe("heads"),
        lambda log: log.subscribe_prefix("openings."),
    ],
    ids=["persistent", "catch-up", "prefix"],
)


@OPENINGS
def test_opening_a_subscription_is_given_up(
    silent: str, open_one: Callable[[EsdbLog], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esdb, "OPENING_DEADLINE", 0.2)
    log = connect(silent)
    try:
        with pytest.raises(UnavailableError):
            open_one(log)
    finally:
        log.close()


def slow_from(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any], number: int) -> Callable[..., Any]:
    """``call``, which from its use ``number`` on takes until the client was closed, as the deadline does."""
    uses = iter(range(1, number))
    closed, close = threading.Event(), EsdbClient.close

    def closing(self: EsdbClient) -> None:
        close(self)
        closed.set()

    monkeypatch.setattr(EsdbClient, "close", closing)

    def slow(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        if next(uses, None) is None:
            assert closed.wait(PATIENCE)
        return result

    return slow


def between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first sleep is before the attempt that follows a reconnect, the second before all over again.
    monkeypatch.setattr(driver.client_module, "sleep", slow_from(monkeypatch, lambda _: None, 2))


def while_reconnecting(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = EsdbClient._construct_esdb_connection
    monkeypatch.setattr(EsdbClient, "_construct_esdb_connection", slow_from(monkeypatch, connect, 1))


@pytest.mark.parametrize(("refusals", "late"), [(2, between_attempts), (1, while_reconnecting)])
@OPENINGS
def test_opening_is_given_up_at_whatever_moment_it_is_too_late(
    refusals: int,
    late: Callable[[pytest.MonkeyPatch], None],
    open_one: Callable[[EsdbLog], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(esdb, "OPENING_DEADLINE", 0.3)
    outcomes: list[object] = []

    def opening() -> None:
        try:
            outcomes.append(open_one(log))
        except UnavailableError as error:
            outcomes.append(error)

    with server_refusing(refusals) as uri:
        log = connect(uri)
        late(monkeypatch)
        thread = threading.Thread(target=opening, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert [type(outcome) for outcome in outcomes] == [UnavailableError]
        with pytest.raises(UnavailableError):
            log.last_revision("queue")


def test_a_subscription_in_the_making_does_not_keep_the_client_open(silent: str) -> None:
    log = connect(silent)

    class Unfinished:
        def stop(self, **_: object) -> None:
            raise AttributeError("_read_reqs")

    unfinished = Unfinished()  # it is held weakly
    log._client._connection._grpc_streamers.add(unfinished)  # type: ignore[arg-type]
    log.close()
    with pytest.raises(UnavailableError, match="closed"):
        log.last_revision("queue")
