"""When an epoch ends."""

from __future__ import annotations

import pytest

from signer.keys import Schedule
from tests.builders import config

SCHEDULE = Schedule(min_interval=1.0, max_interval=60.0, batch_limit=100)


@pytest.mark.parametrize(
    ("since_marker", "since_head", "staged", "wanted"),
    [
        (0.5, 0.5, 0, False),
        (0.5, 30.0, 5, False),
        (1.0, 1.0, 5, True),
        (30.0, 30.0, 0, False),
        (60.0, 60.0, 0, True),
        (0.0, 60.0, 0, True),
        (60.0, -3600.0, 0, True),
        (0.0, -3600.0, 0, False),
        (0.0, 0.0, 100, True),
        (0.0, 0.0, 99, False),
    ],
)
def test_a_marker_is_wanted(since_marker: float, since_head: float, staged: int, wanted: bool) -> None:
    assert SCHEDULE.wants_marker(since_marker, since_head, staged) is wanted


@pytest.mark.parametrize(("since_marker", "wanted"), [(0.9, False), (1.0, True)])
def test_the_first_epoch_under_a_config_needs_no_items(since_marker: float, wanted: bool) -> None:
    assert SCHEDULE.wants_marker(since_marker, since_marker, 0, new_config=True) is wanted


def test_the_heartbeat_comes_before_the_promised_interval_is_over() -> None:
    schedule = Schedule.of(config(min_interval=500, max_interval=8_000), 10)
    assert (schedule.min_interval, schedule.max_interval) == (0.5, 6.0)
