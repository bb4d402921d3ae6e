"""Settings of the whole suite."""

from __future__ import annotations

import signal

import pytest
import structlog
from hypothesis import HealthCheck, settings

from kt_es.process import logs
from tests.reference.cassandra import START_SECONDS, cassandra, cassandra_installed, keyspace, three_nodes
from tests.reference.clocks import Pauses
from tests.reference.shared import shared_settings, shared_store

__all__ = [  # fixtures
    "cassandra",
    "cassandra_installed",
    "keyspace",
    "shared_settings",
    "shared_store",
    "three_nodes",
]

# A shared machine's pauses are no failures: properties are about results, never about time.
settings.register_profile("kt-es", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kt-es")


def pytest_configure() -> None:
    """A shell lets background processes ignore SIGINT; commands that a test interrupts would inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test with Cassandra fetches it and waits for its start."""
    for item in items:
        if "cassandra_installed" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(START_SECONDS))


def pytest_runtest_teardown() -> None:
    """A command that ran within a test has sent the logs to where that test listened."""
    logs.release()
    structlog.reset_defaults()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """The clock of the clients of servers in memory; where sockets or processes answer, it has no place."""
    return Pauses.installed(monkeypatch)
