"""A client that goes away while the node sends to it is no error of the node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from kt_es.node.refusals import Quota, not_thought_of
from kt_es.node.rpc.registration import _guarded


class _Open:
    open = True


def test_a_message_that_nobody_takes_ends_the_call_as_cancelled() -> None:
    """gRPC says so by an error of its own, which it would log as one of the server."""
    calls = Quota(1, not_thought_of)
    access: Any = _Open()

    async def read(_request: Any, _context: Any) -> None:
        raise cygrpc.ExecuteBatchError("the batch failed")

    guarded = _guarded(read, "Streams.Read", access, calls, streams=False)

    async def call() -> None:
        await guarded(None, None)

    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(call())
