"""A server that takes every call and answers none, while its connection stays healthy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from kt_es.errors import UnavailableError
from kt_es.eventstore import esdb
from kt_es.eventstore.esdb import EsdbLog, connect


@pytest.fixture
def silent() -> Iterator[str]:
    """Its connection string."""
    ended = threading.Event()

    def never(_requests: object, _context: grpc.ServicerContext) -> Iterator[bytes]:
        ended.wait()
        return iter(())

    class Everything(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            del details
            return grpc.stream_stream_rpc_method_handler(never)

    server = grpc.server(ThreadPoolExecutor(8), handlers=[Everything()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"esdb://127.0.0.1:{port}?Tls=false"
    ended.set()
    server.stop(None).wait()


@pytest.mark.parametrize(
    "open_one",
    [
        lambda log: log.join_group("queue", "group"),
        lambda log: log.subscribe("heads"),
        lambda log: log.subscribe_prefix("openings."),
    ],
    ids=["persistent", "catch-up", "prefix"],
)
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
