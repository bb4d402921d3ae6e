"""One gRPC channel over two connections. The connection for subscriptions has a small, fixed window.

gRPC lets a server send data ahead, in a window whose size it estimates from the bandwidth and delay of the
connection. On a busy machine this estimate reached hundreds of megabytes for a subscription whose reader had
stopped. Without the estimate, the window has 64 KiB plus the message that is being read. This is enough for a
subscription, but too little for pages from a distant server. Pages are bounded in size, so their connection
keeps the estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

_BOUNDED = (("grpc.http2.bdp_probe", 0),)
_READ = "/event_store.client.streams.Streams/Read"

Options = tuple[tuple[str, str | int], ...]


class Channels(grpc.Channel):
    """A channel that selects one of two connections for each call.

    Reads of at most ``most`` events and calls with one response use the connection with the estimated window.
    All other calls use the connection with the fixed window.

    Args:
        make: creates a channel with the given options.
    """

    def __init__(self, make: Callable[[Options], grpc.Channel], most: int) -> None:
        self._plain = make(())
        self._bounded = make(_BOUNDED)
        self._most = most

    def unary_unary(self, *of_the_call: Any, **options: Any) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        return self._plain.unary_unary(*of_the_call, **options)

    def stream_unary(self, *of_the_call: Any, **options: Any) -> grpc.StreamUnaryMultiCallable[Any, Any]:
        return self._plain.stream_unary(*of_the_call, **options)

    def stream_stream(self, *of_the_call: Any, **options: Any) -> grpc.StreamStreamMultiCallable[Any, Any]:
        """Use the fixed window, for persistent subscriptions. Batch appends have only short responses."""
        return self._bounded.stream_stream(*of_the_call, **options)

    def unary_stream(
        self, method: str, *of_the_call: Any, **options: Any
    ) -> grpc.UnaryStreamMultiCallable[Any, Any]:
        bounded = self._bounded.unary_stream(method, *of_the_call, **options)
        if method != _READ:
            return bounded
        plain = self._plain.unary_stream(method, *of_the_call, **options)

        def call(request: Any, *of_the_request: Any, **more: Any) -> Any:
            is_page = 0 < request.options.count <= self._most
            return (plain if is_page else bounded)(request, *of_the_request, **more)

        return call  # type: ignore[return-value]

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False
    ) -> None:
        self._plain.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._plain.unsubscribe(callback)

    def close(self) -> None:
        self._plain.close()
        self._bounded.close()

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
