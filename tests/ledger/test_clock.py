"""What timestamps say: future heads, gaps and silence, to an audit and to a running monitor."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from kt_es.cli.auditors import audit as auditing
from kt_es.cli.main import cli
from kt_es.client.trusted import Pinned
from kt_es.config import load_settings
from kt_es.epochs import Standing
from kt_es.errors import CannotTellError, UnavailableError
from kt_es.eventstore import connecting as waiting
from kt_es.formats.configs import SignedConfig
from kt_es.formats.queue import CONFIG, EPOCH_MARKER
from kt_es.ledger.clock import SLACK, spoken
from kt_es.ledger.rows import Committed
from projections.auditor import PATIENCE, Alarm, AuditReport, Notice, Vigil, audit
from projections.monitor import MonitorSettings, serve
from projections.monitor_metrics import MonitorMetrics
from signer.keys import KeyRing
from signer.work import EpochWork
from tests import builders as b
from tests.reference.forks import Turning, story
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams
from tests.reference.signing import NAMES, new_ledger, wait_until

MINUTE = 60_000
# The builders' config promises a head each minute; another minute is allowed.
LIMIT = MINUTE + SLACK


def timed(*times: int, max_interval: int = MINUTE) -> SignedStreams:
    """Empty epochs with these timestamps, in ms after the start; ``max_interval`` from the third on."""
    streams = SignedStreams()
    for number, at in enumerate(times):
        if number == 1 and max_interval != MINUTE:
            config = b.config(max_interval=max_interval, previous=b.config().hash)
            streams.queue(CONFIG, SignedConfig.sign(config, [b.SIGNER]).encode())
        streams.queue(EPOCH_MARKER, b.marker(b.START + at).encode())
        work = EpochWork(streams.log, streams.names, streams.ledger, KeyRing([b.SIGNER]), 1 << 19)
        for event in streams.log.read(streams.names.queue, work.queue_next):
            work.process(event)
        work.finish()
    return streams


def audited(streams: SignedStreams, now: int) -> AuditReport:
    return audit(streams.log, NAMES, new_ledger(), with_queue=False, now=lambda: b.START + now)


# --- audit ------------------------------------------------------------------------------------------


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


class Command:
    """``kt audit`` over a log in memory, with a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: object = MemoryLog()
        self.now = b.START
        monkeypatch.setattr(waiting, "Connector", lambda _: lambda: self.log)
        monkeypatch.setattr(auditing, "wall_clock", lambda: self.now)

    def run(
        self, *options: str, key: str = "signer", as_json: bool = True
    ) -> tuple[BaseException | None, Any]:
        vkey = Pinned(b.ORIGIN, b.public(b.private_key(key))).vkey
        words = ["audit", "--vkey", vkey, "--log", "esdb://memory", *options]
        ran = CliRunner().invoke(cli, [*(["--json"] if as_json else []), *words], obj={})
        return ran.exception, json.loads(ran.stdout) if as_json and ran.stdout else ran.stdout


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(monkeypatch)


def test_the_command_reports_everything_before_it_ends_with_7(command: Command) -> None:
    command.log, command.now = timed(0, LIMIT + 1).log, b.START + 3 * LIMIT
    error, document = command.run()
    assert isinstance(error, CannotTellError)
    assert error.exit_code == 7
    assert (document["epochs"], document["gaps"], document["silence"]) == (2, 1, 2 * LIMIT - 1)
    assert document["longest_gap"]["after_epoch"] == 1
    assert document["longest_gap"]["length"] == LIMIT + 1
    assert "silence for" in str(error)
    assert "--allow-gaps" in str(error)


def test_the_command_accepts_gaps_that_are_allowed(command: Command) -> None:
    command.log, command.now = timed(0, LIMIT + 1).log, b.START + LIMIT
    error, document = command.run("--allow-gaps")
    assert error is None
    assert (document["gaps"], document["future_heads"], document["silence"]) == (1, 0, 0)
    assert isinstance(command.run()[0], CannotTellError)


def test_the_command_says_as_of_when_if_nothing_is_new(command: Command, tmp_path: Path) -> None:
    command.log = timed(0, 1_000).log
    assert command.run("--data", str(tmp_path))[0] is None
    error, said = command.run("--data", str(tmp_path), as_json=False)
    assert error is None
    assert "verified as of epoch 2, 2024-01-01 00:00:01 UTC, and the log still holds that head" in said
    _, document = command.run("--data", str(tmp_path))
    assert (document["anchor"], document["epoch"], document["epochs"]) == (2, 2, 0)


def test_nothing_to_audit_is_a_failure(command: Command) -> None:
    error, said = command.run(as_json=False)
    assert getattr(error, "exit_code", None) == 1
    assert "kt_heads-people" in str(error)
    assert "correct" not in said


# --- a running monitor ------------------------------------------------------------------------------


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


def test_silence_is_told_once_and_its_end_with_how_long_it_lasted() -> None:
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


def test_a_head_from_the_future_is_told_and_its_end() -> None:
    watched = Watched()
    watched.vigil.waits()
    watched.vigil.verified(at(2, 90_000))
    assert [(notice.alarm, notice.raised) for notice in watched.notices] == [(Alarm.FUTURE, True)]
    assert watched.later(29) == []
    assert watched.later(1) == [(Alarm.FUTURE, False)]
    assert "it lasted 30 s" in watched.notices[-1].sentence


def test_a_gap_is_told_and_ends_with_a_head_in_time() -> None:
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


def test_the_alarms_are_figures() -> None:
    metrics = MonitorMetrics(lambda: b.START, lambda: 0.0)
    names = {Alarm.SILENCE: "silence", Alarm.FUTURE: "future_head", Alarm.GAP: "gap"}
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


def test_a_monitor_of_a_log_that_is_away_tells_silence_and_its_end(tmp_path: Path) -> None:
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
