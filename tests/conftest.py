"""Settings of the whole suite."""

from __future__ import annotations

import pytest
import structlog
from hypothesis import HealthCheck, settings

from kt_es.process import logs
from tests.reference.clocks import Pauses

# A shared machine's pauses are no failures: properties are about results, never about time.
settings.register_profile("kt-es", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kt-es")


def pytest_runtest_teardown() -> None:
    """A command that ran within a test has sent the logs to where that test listened."""
    logs.release()
    structlog.reset_defaults()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """The clock of the clients of servers in memory; where sockets or processes answer, it has no place."""
    return Pauses.installed(monkeypatch)
