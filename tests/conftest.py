"""Settings of the whole suite."""

from __future__ import annotations

import structlog
from hypothesis import HealthCheck, settings

from kt_es.process import logs

# A shared machine's pauses are no failures: properties are about results, never about time.
settings.register_profile("kt-es", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kt-es")


def pytest_runtest_teardown() -> None:
    """A command that ran within a test has sent the logs to where that test listened."""
    logs.release()
    structlog.reset_defaults()
