"""Fixtures with real Cassandra: a node for the whole run, and three nodes for a module whose tests kill some.

Tests that use the fixtures are skipped where Java or the extra ``shared`` is not installed, or where the
jars are missing and cannot be fetched. A node that does not start is a failure.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools.cassandra import Cluster, NotInstalledError
from tools.cassandra.jars import ROOT, find_java, jars

START_SECONDS = 900
"""What a test may take if it is the first that needs Cassandra: the jars are fetched, the nodes start."""

# The process that keeps the node of this run outlives the worker that started it; its end is not awaited.
_KEEPERS: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class ContactPoints:
    """Where a cluster answers clients."""

    addresses: tuple[str, ...]
    port: int


@contextmanager
def connected(addresses: tuple[str, ...], port: int) -> Iterator[Any]:
    """Yield a session of ``cassandra-driver`` that uses these nodes alone and waits long enough for them."""
    from cassandra.cluster import (
        EXEC_PROFILE_DEFAULT,
        ExecutionProfile,
    )
    from cassandra.cluster import Cluster as Driver
    from cassandra.policies import WhiteListRoundRobinPolicy

    profile = ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy(list(addresses)), request_timeout=60
    )
    with Driver(
        list(addresses),
        port=port,
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=60,
        control_connection_timeout=60,
    ) as driver:
        yield driver.connect()


@pytest.fixture(scope="session")
def cassandra_installed() -> None:
    """Whoever uses this may start clusters. The jars are there, and the test may take long."""
    if importlib.util.find_spec("cassandra") is None:
        pytest.skip("the extra shared is not installed: pip install 'kt-es[shared]'")
    need_installed()


def need_installed() -> None:
    """Skip the test if Java, Maven or its repository is missing. Any other failure is one of the test."""
    try:
        find_java()
        jars()
    except NotInstalledError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def cassandra(cassandra_installed: None, tmp_path_factory: pytest.TempPathFactory) -> ContactPoints:
    """One node, shared by all workers. The first that needs it starts it, and it ends with the run."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    with _locked(tmp_path_factory, "node"):
        line = _run_directory(tmp_path_factory) / "cassandra.line"
        said = line.read_text() if line.exists() else ""
        if not said.endswith("\n"):
            said = _keep(line, os.getppid() if is_worker else os.getpid())
    address, port = said.strip().split(":")
    return ContactPoints((address,), int(port))


@pytest.fixture
def keyspace(cassandra: ContactPoints) -> Iterator[str]:
    """A new name of a keyspace. What the test stores under it is deleted after the test."""
    name = f"kt_{secrets.token_hex(8)}"
    yield name
    with connected(cassandra.addresses, cassandra.port) as session:
        session.execute(f"DROP KEYSPACE IF EXISTS {name}")


@pytest.fixture(scope="module")
def three_nodes(cassandra_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for the tests of one module, which may kill and freeze them: one module at a time."""
    with (
        _locked(tmp_path_factory, "three-nodes"),
        tempfile.TemporaryDirectory(prefix="kt-cassandra-") as data,
        Cluster(Path(data), nodes=3) as cluster,
    ):
        yield cluster


def _keep(line: Path, run: int) -> str:
    """Start the process that keeps a node until the process ``run`` ends. Return the line that it prints."""
    errors = line.with_suffix(".errors")
    command = [sys.executable, "-m", "tools.cassandra", "--nodes", "1", "--until-end-of", str(run)]
    with line.open("wb") as out, errors.open("wb") as err:
        keeper = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
    _KEEPERS.append(keeper)
    pause = threading.Event()
    while not (said := line.read_text()).endswith("\n"):
        if keeper.poll() is not None:
            pytest.fail(f"Cassandra did not start: {errors.read_text()}")
        pause.wait(0.1)
    return said


@contextmanager
def _locked(factory: pytest.TempPathFactory, name: str) -> Iterator[None]:
    """Hold a lock that all workers of this run know."""
    with (_run_directory(factory) / f"cassandra-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_directory(factory: pytest.TempPathFactory) -> Path:
    """Return the temporary directory that all workers of this run share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
