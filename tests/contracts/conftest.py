"""The server that the contracts of the log are asked of, and the clients through which they are.

The server is the embedded node, or the one whose connection string stands in ``KT_TEST_ESDB``: that is
how to check that a real EventStoreDB or KurrentDB gives the same answers. Every test uses streams of its
own. Every contract is asked twice, through the synchronous client and through that of asyncio.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from kt_es.eventstore.driver import EventStoreDBClient
from tests.contracts.clients import Blocking, Loop, connected
from tests.contracts.nodes import given_or_own_node
from tests.contracts.tenants import Server, tenants_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is the embedded node's own while another server is asked (see docs/OPERATIONS.md)."""
    if not {"KT_TEST_ESDB", "KT_TEST_ESDB_SECURE"} & os.environ.keys():
        return
    for item in items:
        mark = item.get_closest_marker("node_only")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"the embedded node's own answer: {mark.args[0]}"))


@pytest.fixture(scope="session")
def esdb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with given_or_own_node(tmp_path_factory.mktemp("node")) as uri:
        yield uri


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(params=["sync", "asyncio"])
def esdb(request: pytest.FixtureRequest, esdb_uri: str) -> Iterator[EventStoreDBClient]:
    if request.param == "sync":
        with EventStoreDBClient(esdb_uri) as client:
            yield client
        return
    loop: Loop = request.getfixturevalue("loop")
    with Blocking(loop, loop.wait(connected(esdb_uri))) as blocking:
        yield cast(EventStoreDBClient, blocking)


@pytest.fixture
def name() -> str:
    """A stream that no other test uses."""
    return f"contract-{uuid.uuid4().hex}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with tenants_server(tmp_path) as server:
        yield server
