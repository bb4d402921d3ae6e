"""The node's second port and its control socket, where the node behind them is not well."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.errors import ConfigError, KtError
from kt_es.node.ops.control import Control, ask
from kt_es.node.ops.http import HttpOps


@pytest.fixture
def stopped_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


def test_a_node_whose_loop_does_not_answer_is_not_well(stopped_loop: asyncio.AbstractEventLoop) -> None:
    ops = HttpOps(stopped_loop, lambda: b"", lambda: "")
    address = ops.start("127.0.0.1", 0)
    try:
        assert httpx.get(f"http://{address}/healthz").status_code == 503
        assert httpx.get(f"http://{address}/metrics").status_code == 503
    finally:
        ops.close()


def test_an_address_that_is_taken_is_named(stopped_loop: asyncio.AbstractEventLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use"):
            HttpOps(stopped_loop, lambda: b"", lambda: "").start("127.0.0.1", port)


async def _work(asked: dict[str, Any]) -> dict[str, Any]:
    if asked.get("wrong") == "order":
        raise ConfigError("not like this")
    if asked.get("wrong") == "disk":
        raise KtError("full")
    return {"got": asked.get("value")}


def _asked(data: Path, do: str, **arguments: object) -> object:
    """What ``ask`` gives of a control socket in ``data``."""

    async def run() -> object:
        control = Control(data, {"work": _work})
        await control.start()
        try:
            return await asyncio.to_thread(lambda: ask(data, do, **arguments))
        finally:
            await control.close()

    return asyncio.run(run())


def test_orders_are_carried_out_or_refused_with_the_reason(tmp_path: Path) -> None:
    assert _asked(tmp_path, "work", value="ä" * 1000) == {"got": "ä" * 1000}
    with pytest.raises(ConfigError, match="not like this"):
        _asked(tmp_path, "work", wrong="order")
    with pytest.raises(KtError, match="full") as failed:
        _asked(tmp_path, "work", wrong="disk")
    assert not isinstance(failed.value, ConfigError)
    with pytest.raises(KtError, match="does not know this order"):
        _asked(tmp_path, "dance")


def test_where_nobody_listens_there_is_no_answer(tmp_path: Path) -> None:
    assert ask(tmp_path, "work") is None
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "control"))
    assert ask(tmp_path, "work") is None
    assert _asked(tmp_path, "work", value=1) == {"got": 1}


@pytest.mark.parametrize("line", [b"", b"\n", b"[]\n", b"null\n", b'{"do": []}\n', b"x" * 100_000 + b"\n"])
def test_what_is_no_order_does_not_end_the_node(tmp_path: Path, line: bytes) -> None:
    async def run() -> None:
        control = Control(tmp_path, {"work": _work})
        await control.start()
        try:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control"))
            writer.write(line)
            writer.write_eof()
            await reader.read()
            writer.close()
            assert await asyncio.to_thread(lambda: ask(tmp_path, "work", value=2)) == {"got": 2}
        finally:
            await control.close()

    asyncio.run(run())


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_it_listens_on_an_address_of_ipv6(stopped_loop: asyncio.AbstractEventLoop) -> None:
    ops = HttpOps(stopped_loop, lambda: b"", lambda: "")
    port = ops.start("::1", 0).rpartition(":")[2]
    try:
        assert httpx.get(f"http://[::1]:{port}/healthz").status_code == 503
    finally:
        ops.close()
