"""A running monitor raises an alarm at silence, future heads and gaps, and reports their end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from kt_es.client.trusted import Pinned
from kt_es.config.settings import load_settings
from kt_es.epochs import Standing
from kt_es.errors import CannotTellError, UnavailableError
from kt_es.ledger.rows import Committed
from projections.auditor import PATIENCE, Alarm, Notice, Vigil
from projections.monitor import MonitorSettings, serve
from projections.monitor_metrics import MonitorMetrics
from tests import builders as b
from tests.reference.forks import Turning, story
from tests.reference.signing import NAMES, wait_until
from tests.reference.timed_epochs import LIMIT, MINUTE, timed


class Watched:
    """A vigil over clocks of the test's own."""

    def __init__(self, epoch: int = 1) -> None:
        self.seconds = 0.0
        self.notices: list[Notice] = []
        self.vigil = Vigil(self.now, lambda: self.seconds, self.notices.append)
        if epoch:
            self.vigil.resumed(at(epoch, 0))

    def now(self) -> int:
        return b.START + int(self.seconds * 1000)

    def later(self, seconds: float) -> list[tuple[Alarm, bool]]:
        """What is told when the time has gone on."""
        self.seconds += seconds
        told = len(self.notices)
        self.vigil.look()
        return [(notice.alarm, notice.raised) for notice in self.notices[told:]]


def at(epoch: int, milliseconds: int, max_interval: int = MINUTE) -> Committed:
    signed = b.signed_config(b.config(max_interval=max_interval))
    return Committed(Standing(b.ORIGIN, b.SIGNER_KEY, epoch, b.START + milliseconds, signed))


def test_silence_is_reported_once_and_its_end_with_how_long_it_lasted() -> None:
    watched = Watched()
    watched.vigil.waits()
    assert watched.later(120) == []
    assert watched.later(0.1) == [(Alarm.SILENCE, True)]
    assert "no head since epoch 1" in watched.notices[-1].sentence
    assert watched.later(60) == []
    watched.vigil.verified(at(2, 180_000))
    # The head came late, too: that is another alarm.
    assert [(notice.alarm, notice.raised) for notice in watched.notices[1:]] == [
        (Alarm.GAP, True),
        (Alarm.SILENCE, False),
    ]
    assert "it lasted 3 min" in watched.notices[-1].sentence


def test_a_replay_that_is_at_work_is_no_silence_and_one_that_hangs_is() -> None:
    watched = Watched()
    watched.seconds = 1000.0
    watched.vigil.at_work()
    assert watched.later(PATIENCE - 1) == []
    watched.vigil.at_work()
    assert watched.later(PATIENCE - 1) == []
    assert watched.later(1) == [(Alarm.SILENCE, True)]


def test_old_heads_at_an_easy_pace_are_silence_once_the_monitor_was_current() -> None:
    watched = Watched()
    watched.vigil.waits()
    watched.seconds = 121.0
    watched.vigil.at_work()
    watched.vigil.verified(at(2, 100))
    assert [notice.alarm for notice in watched.notices] == [Alarm.SILENCE]


def test_a_directory_without_any_head_is_silent_too() -> None:
    watched = Watched(epoch=0)
    watched.vigil.waits()
    assert watched.later(120) == []
    assert watched.later(1) == [(Alarm.SILENCE, True)]
    assert "none was seen before" in watched.notices[-1].sentence


def test_a_head_from_the_future_is_reported_and_its_end() -> None:
    watched = Watched()
    watched.vigil.waits()
    watched.vigil.verified(at(2, 90_000))
    assert [(notice.alarm, notice.raised) for notice in watched.notices] == [(Alarm.FUTURE, True)]
    assert watched.later(29) == []
    assert watched.later(1) == [(Alarm.FUTURE, False)]
    assert "it lasted 30 s" in watched.notices[-1].sentence


def test_a_gap_is_reported_and_ends_with_a_head_in_time() -> None:
    watched = Watched()
    watched.seconds = 200.0
    watched.vigil.verified(at(2, 200_000))
    watched.seconds = 230.0
    watched.vigil.verified(at(3, 230_000))
    assert [(notice.alarm, notice.raised) for notice in watched.notices] == [
        (Alarm.GAP, True),
        (Alarm.GAP, False),
    ]
    assert (
        "gap between heads: that of epoch 2 came 3 min 20 s after the one before"
        in watched.notices[0].sentence
    )


def test_the_alarms_are_metrics() -> None:
    metrics = MonitorMetrics(lambda: b.START, lambda: 0.0)
    names = {
        Alarm.SILENCE: "silence",
        Alarm.FUTURE: "future_head",
        Alarm.GAP: "gap",
        Alarm.QUORUM: "no_quorum",
    }
    for alarm in Alarm:
        name = f"kt_monitor_{names[alarm]}"
        assert metrics.registry.get_sample_value(name) == 0
        metrics.time_alarm(alarm, raised=True)
        assert metrics.registry.get_sample_value(name) == 1
        metrics.time_alarm(alarm, raised=False)
        assert metrics.registry.get_sample_value(name) == 0


class Hand:
    """Clocks that a test turns on by hand."""

    def __init__(self) -> None:
        self.milliseconds = 0

    def now(self) -> int:
        return b.START + self.milliseconds

    def monotonic(self) -> float:
        return self.milliseconds / 1000


def watch(
    log: Callable[[], object],
    data: Path,
    hand: Hand,
    *,
    exit_on_silence: bool,
    then: Callable[[list[Any]], None],
) -> BaseException | None:
    """A monitor that has verified three epochs; ``then`` gets its lines. What ended it."""
    stop = threading.Event()
    settings = MonitorSettings(NAMES, b.ORIGIN, b.SIGNER_KEY, "", data, exit_on_silence=exit_on_silence)
    with capture_logs() as said, ThreadPoolExecutor(1) as pool:
        ended = pool.submit(
            serve,
            settings,
            stop,
            connect=log,  # type: ignore[arg-type]
            now=hand.now,
            monotonic=hand.monotonic,
        )
        try:
            wait_until(lambda: any(line.get("epoch") == 3 for line in said), "it is current")
            then(said)
            if exit_on_silence:
                wait_until(ended.done, "it ended")
        finally:
            stop.set()
        return ended.exception(30)


def test_a_monitor_whose_subscription_brings_nothing_ends_by_choice(tmp_path: Path) -> None:
    hand, streams = Hand(), story("alice", "bob", "carol")

    def then(_: list[Any]) -> None:
        hand.milliseconds = 3_000 + LIMIT + 1

    error = watch(lambda: streams.log, tmp_path / "m", hand, exit_on_silence=True, then=then)
    assert isinstance(error, CannotTellError)
    assert error.exit_code == 7
    assert "no head since epoch 3" in str(error)


def test_a_monitor_of_a_log_that_is_away_reports_silence_and_its_end(tmp_path: Path) -> None:
    hand, streams = Hand(), story("alice", "bob", "carol")
    log = Turning(streams.log)  # type: ignore[arg-type]

    def then(said: list[Any]) -> None:
        log.subscriptions.away = True
        hand.milliseconds = 3_000 + LIMIT + 1
        wait_until(lambda: any(line["event"] == "clock alarm" for line in said), "silence is told")
        log.subscriptions.away = False
        # Epoch 4 says that it is of four seconds after the start.
        streams.put_user("dave")
        streams.epoch()
        hand.milliseconds = 4_000
        wait_until(lambda: any(line["event"] == "clock alarm ends" for line in said), "its end is told")

    assert watch(lambda: log, tmp_path / "m", hand, exit_on_silence=False, then=then) is None


def test_a_monitor_that_cannot_connect_any_more_ends_by_choice(tmp_path: Path) -> None:
    hand, log = Hand(), Turning(story("alice", "bob", "carol").log)  # type: ignore[arg-type]

    def connect() -> object:
        if log.subscriptions.away:
            raise UnavailableError("nobody there")
        return log

    def then(_: list[Any]) -> None:
        log.subscriptions.away = True
        hand.milliseconds = 3_000 + LIMIT + 1

    error = watch(connect, tmp_path / "m", hand, exit_on_silence=True, then=then)
    assert isinstance(error, CannotTellError)


def test_a_monitor_logs_a_change_of_max_interval(tmp_path: Path) -> None:
    log = timed(0, 1_000, 2_000, max_interval=5 * MINUTE).log
    lines: list[Any] = []
    error = watch(lambda: log, tmp_path / "m", Hand(), exit_on_silence=False, then=lines.extend)
    assert error is None
    (line,) = (line for line in lines if line["event"] == "max_interval changes")
    assert (line["epoch"], line["before_ms"], line["now_ms"]) == (3, MINUTE, 5 * MINUTE)


def test_the_choice_stands_in_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "kt.toml"
    vkey = Pinned(b.ORIGIN, b.SIGNER_KEY).vkey
    path.write_text(
        f'directory = "people"\norigin = "{b.ORIGIN}"\nkey = "{vkey}"\n[monitor]\nexit_on_silence = true\n'
    )
    assert load_settings(path).monitor.exit_on_silence
