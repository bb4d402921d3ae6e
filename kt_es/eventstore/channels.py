"""One gRPC channel in front of two connections: what a server may send unasked has a window that stays small.

gRPC lets a server send as much ahead as it takes to fill the way between the two, and guesses that from
how fast answers come. On a busy machine it guessed hundreds of megabytes for a subscription whose reader
had stopped. Without guessing 64 KiB and the message that is waited for are under way, which is enough for
a subscription and too little for pages that come from afar: these keep the guess, being bounded
themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

_BOUNDED = (("grpc.http2.bdp_probe", 0),)
_READ = "/event_store.client.streams.Streams/Read"

Options = tuple[tuple[str, str | int], ...]


class Channels(grpc.Channel):
    """Made of ``make``, which makes a channel with the options that it is given.

    Reads of at most ``most`` events go over the one, whatever may bring more over the other.
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
        """Persistent subscriptions; appends in batches have short answers."""
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
