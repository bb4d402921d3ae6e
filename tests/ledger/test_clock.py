"""An audit finds heads from the future, gaps and silence by the timestamps of heads."""

from __future__ import annotations

import pytest

from kt_es.cli.auditors import audit as auditing
from kt_es.ledger.clock import SLACK, spoken
from projections.auditor import AuditReport, audit
from tests import builders as b
from tests.reference.signed_streams import SignedStreams
from tests.reference.signing import NAMES, new_ledger
from tests.reference.timed_epochs import LIMIT, MINUTE, timed


def audited(streams: SignedStreams, now: int) -> AuditReport:
    return audit(streams.log, NAMES, new_ledger(), with_queue=False, now=lambda: b.START + now)


def test_heads_in_time_are_no_alarm() -> None:
    report = audited(timed(0, LIMIT, 2 * LIMIT), 3 * LIMIT)
    assert (report.clock.future, report.clock.gaps, report.clock.silence) == (0, 0, 0)
    assert auditing.clock_complaint(report, allow_gaps=False) == ""


def test_a_head_from_the_future_is_named() -> None:
    report = audited(timed(0, 90_000), 90_000 - SLACK)
    assert report.clock.future == 0
    report = audited(timed(0, 90_000), 90_000 - SLACK - 1)
    assert report.clock.future == 1
    said = auditing.clock_complaint(report, allow_gaps=True)
    assert "the head of epoch 2 says 2024-01-01 00:01:30 UTC, 1 min later" in said


def test_gaps_are_counted_and_the_longest_is_named() -> None:
    streams = timed(0, LIMIT + 1, 2 * LIMIT + 1, 5 * LIMIT)
    report = audited(streams, 5 * LIMIT)
    assert report.clock.gaps == 2
    said = auditing.clock_complaint(report, allow_gaps=False)
    assert "2 gaps between heads" in said
    assert "between epochs 3 and 4, 2024-01-01 00:04:00 UTC to 2024-01-01 00:10:00 UTC" in said
    assert auditing.clock_complaint(report, allow_gaps=True) == ""


def test_a_gap_is_measured_by_the_interval_that_was_in_force() -> None:
    """The change is accepted in epoch 2, and holds from epoch 3 on."""
    nine = 9 * MINUTE
    assert audited(timed(0, 1, 10 * MINUTE + 1, max_interval=nine), 10 * MINUTE).clock.gaps == 0
    assert audited(timed(0, 1, 10 * MINUTE + 2, max_interval=nine), 10 * MINUTE).clock.gaps == 1
    assert audited(timed(0, LIMIT + 1, LIMIT + 2, max_interval=nine), LIMIT).clock.gaps == 1


def test_a_change_of_max_interval_is_reported() -> None:
    (change,) = audited(timed(0, 1_000, max_interval=5 * MINUTE), 2_000).clock.changes
    assert (change.epoch, change.before, change.now) == (3, MINUTE, 5 * MINUTE)


def test_silence_is_named_also_if_nothing_is_new() -> None:
    streams, ledger = timed(0, 1_000), new_ledger()
    for epochs in (2, 0):
        report = audit(streams.log, NAMES, ledger, with_queue=False, now=lambda: b.START + 1_000 + LIMIT)
        assert (report.epochs, report.clock.silence) == (epochs, 0)
    report = audit(streams.log, NAMES, ledger, with_queue=False, now=lambda: b.START + 1_001 + LIMIT)
    assert report.clock.silence == LIMIT + 1
    assert "no head since epoch 2, 2024-01-01 00:00:01 UTC: silence for 2 min" in auditing.clock_complaint(
        report, allow_gaps=True
    )


def test_a_gap_across_two_audits_is_found() -> None:
    ledger = new_ledger()
    audit(timed(0).log, NAMES, ledger, with_queue=False, now=lambda: b.START)
    report = audit(timed(0, LIMIT + 1).log, NAMES, ledger, with_queue=False, now=lambda: b.START + LIMIT)
    assert report.clock.gaps == 1


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(400, "0 s"), (59_000, "59 s"), (60_000, "1 min"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min")],
)
def test_times_are_spoken(milliseconds: int, words: str) -> None:
    assert spoken(milliseconds) == words
