"""How far a rebuild from the logs is, as a terminal shows it."""

from __future__ import annotations

import io

import pytest
import structlog

from kt_es.cli.output import CLEAR_LINE, RecoveryBar


def drawn(bar: RecoveryBar, **event: object) -> None:
    with pytest.raises(structlog.DropEvent):
        bar(None, "info", {"event": "recovering", **event})


def test_a_rebuild_is_one_line_that_is_written_again() -> None:
    terminal = io.StringIO()
    bar = RecoveryBar(terminal)
    drawn(bar, records=250_000, of_records=1_000_000, records_per_second=10_000)
    drawn(bar, records=1_000_000, of_records=1_000_000, records_per_second=10_000)
    first, second = terminal.getvalue().split(CLEAR_LINE)[1:]
    assert first == (
        "  recovering  [#######-----------------------] 25%  "
        "250,000 of 1,000,000 records, 10,000/s, 1:15 left"
    )
    assert "[##############################] 100%" in second
    assert "\n" not in terminal.getvalue()


def test_the_next_line_takes_its_place() -> None:
    terminal = io.StringIO()
    bar = RecoveryBar(terminal)
    event = {"event": "recovered", "records": 5}
    assert bar(None, "info", event) is event
    assert terminal.getvalue() == ""
    drawn(bar, records=1, of_records=2, records_per_second=0)
    assert bar(None, "info", event) is event
    assert terminal.getvalue().endswith(CLEAR_LINE)
    assert bar(None, "info", event) is event
    assert terminal.getvalue().count(CLEAR_LINE) == 2


def test_without_a_goal_it_stays_a_line() -> None:
    event = {"event": "recovering", "records": 5, "records_per_second": 1}
    assert RecoveryBar(io.StringIO())(None, "info", event) is event
