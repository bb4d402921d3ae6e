"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A shared machine's pauses are no failures: properties are about results, never about time.
settings.register_profile("kt-es", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kt-es")
