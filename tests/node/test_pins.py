"""To which consumer of a pinned strategy an event belongs, whatever its metadata say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kt_es.node.groups.settings import Strategy
from kt_es.node.groups.sources import pinner
from kt_es.node.store.log import NodeLog
from kt_es.node.store.records import Proposed, encoder
from kt_es.node.store.rocks import RocksStorage

ID = "00000000-0000-4000-8000-000000000001"


def stored(metadata: bytes, stream: str = "s") -> bytes:
    return encoder(stream.encode(), 0)(Proposed(ID, "T", "application/json", metadata, b""), 0, 1)


def pin_of(path: Path, strategy: Strategy, *events: bytes) -> list[int]:
    async def scenario() -> list[int]:
        log = NodeLog(RocksStorage(path), lambda: 0.0, lambda _error: None)
        try:
            return list(map(pinner(log, strategy), events))
        finally:
            await log.close()

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{}",
        b"[1]",
        b"not json",
        b"\xff",
        b"[" * 100_000,
        b'{"$correlationId":' * 100_000,
        b'{"$correlationId": 7}',
    ],
    ids=["none", "empty", "list", "text", "bytes", "brackets", "braces", "number"],
)
def test_without_a_correlation_it_goes_by_the_stream(tmp_path: Path, metadata: bytes) -> None:
    pins = pin_of(tmp_path, Strategy.PINNED_BY_CORRELATION, stored(metadata), stored(metadata, "t"))
    assert pins == pin_of(tmp_path, Strategy.PINNED, stored(b""), stored(b"", "t"))


def test_half_a_surrogate_pair_is_a_correlation_too(tmp_path: Path) -> None:
    half, other = (stored(b'{"$correlationId": "\\ud8%02x"}' % number) for number in (0, 1))
    pins = pin_of(tmp_path, Strategy.PINNED_BY_CORRELATION, half, other, half)
    assert pins[0] == pins[2] != pins[1]
