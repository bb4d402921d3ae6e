"""Each outage has a line at its beginning, one a minute and one at its end, in each part of each process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from kt_es.errors import StoreAwayError, UnavailableError, UnverifiedRowError
from kt_es.eventstore.streams import EventLog
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from kt_es.process.outage import Backoff, Outage
from kt_es.server.availability import LogWatch
from projections.monitor import MonitorSettings, serve
from signer import service
from tests import builders as b
from tests.reference.clocks import Clock
from tests.reference.frontends import Front, front, until
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams
from tests.reference.signing import new_ledger, new_log, signing

BEGINNING = "the event log cannot be reached"
REMINDER = "the event log still cannot be reached"
END = "the event log can be reached again"

Said = list[Any]


def of(said: Said, part: str) -> list[str]:
    return [line["event"] for line in said if line.get("part") == part]


def test_an_outage_of_five_minutes_has_six_lines() -> None:
    clock = Clock()
    with capture_logs() as said:
        outage = Outage("part", structlog.get_logger(), clock)
        outage.over()
        for second in range(300):
            clock.now = float(second)
            outage.failed(f"problem {second}")
        clock.now = 300.4
        outage.over()
        outage.over()
    assert [line["event"] for line in said] == [BEGINNING, *[REMINDER] * 4, END]
    assert [line.get("problem") for line in said[:2]] == ["problem 0", "problem 60"]
    assert [line.get("seconds") for line in said] == [None, 60, 120, 180, 240, 300.4]
    assert [line["log_level"] for line in said] == [*["warning"] * 5, "info"]
    assert {line["part"] for line in said} == {"part"}


def test_the_next_outage_begins_anew() -> None:
    clock = Clock()
    with capture_logs() as said:
        outage = Outage("part", structlog.get_logger(), clock)
        for begin in (0.0, 100.0):
            clock.now = begin
            outage.failed("gone")
            clock.now = begin + 2
            outage.over()
    assert [line["event"] for line in said] == [BEGINNING, END] * 2
    assert [line["seconds"] for line in said if line["event"] == END] == [2, 2]


def test_rows_that_a_shared_store_lost_have_their_mend_in_each_line() -> None:
    clock = Clock()
    with capture_logs() as said:
        outage = Outage("signer", structlog.get_logger(), clock)
        outage.failed(UnverifiedRowError("the map page is missing"))
        clock.now += 60
        outage.failed(UnverifiedRowError("the map page is missing"))
        outage.over()
        outage.failed(StoreAwayError("no node answers"))
    assert ["`kt store rebuild`" in line.get("mend", "") for line in said] == [True, True, False, False]


def test_a_store_that_fails_in_both_ways_by_turns_is_one_outage() -> None:
    begun: list[str] = []
    outage = Outage("signer", structlog.get_logger(), Clock(), on_begin=begun.append)
    for error in (StoreAwayError("a time-out"), UnverifiedRowError("a page is missing")) * 5:
        outage.failed(error)
    assert begun == ["store"]
    outage.over()
    outage.failed(StoreAwayError("a time-out"))
    assert begun == ["store"] * 2


def test_outages_that_come_and_go_all_the_time_have_few_lines() -> None:
    clock = Clock()
    with capture_logs() as said:
        outage = Outage("part", structlog.get_logger(), clock)
        for second in range(200):
            clock.now = float(second)
            outage.failed("gone")
            clock.now += 0.5
            outage.over()
        for second in range(200, 290):
            clock.now = float(second)
            outage.failed("gone for longer")
        outage.over()
    events = [line["event"] for line in said]
    assert events.count(BEGINNING) <= 12
    # However it went before, a long outage and its end are told.
    assert events[-2:] == [REMINDER, END]
    numbers = [line["outage"] for line in said if line["event"] == BEGINNING]
    assert numbers[:3] == [1, 2, 3]
    assert numbers[3] > 50


def test_the_log_watch() -> None:
    log, clock = MemoryLog(), Clock()
    with capture_logs() as said:
        watch = LogWatch(lambda: log, "s", lambda _: None, clock)
        watch.probe()
        log.away = True
        for clock.now in (0.0, 30.0, 61.0):
            watch.probe()
            watch.failed(UnavailableError("an append failed, too"))
        log.away = False
        clock.now = 62.0
        watch.probe()
        watch.probe()
    assert of(said, "requests") == [BEGINNING, REMINDER, END]
    assert said[-1]["seconds"] == 62


@pytest.fixture
def streams() -> SignedStreams:
    made = SignedStreams()
    made.put_user("alice")
    made.epoch()
    return made


def test_the_replica_the_openings_and_the_requests_of_a_front_end(streams: SignedStreams) -> None:
    parts = ("replica", "openings", "requests")
    assert isinstance(streams.log, MemoryLog)
    with capture_logs() as said, front(streams) as running:
        for count in (1, 2):
            streams.log.away = True
            until(lambda: all(of(said, part).count(BEGINNING) == count for part in parts))  # noqa: B023
            streams.log.away = False
            until(lambda: all(of(said, part).count(END) == count for part in parts))  # noqa: B023
        assert running.errors == []
    for part in parts:
        assert of(said, part) == [BEGINNING, END] * 2


def test_a_front_end_that_is_stopped_reports_no_outage(streams: SignedStreams) -> None:
    with capture_logs() as said, front(streams):
        pass
    assert BEGINNING not in [line["event"] for line in said]


def test_a_front_end_that_starts_without_the_log(streams: SignedStreams) -> None:
    assert isinstance(streams.log, MemoryLog)
    streams.log.away = True
    made = Front(streams, MemoryStore(FAMILIES))
    with capture_logs() as said, front(streams, wait=False, made=made):
        until(lambda: len(of(said, "replica")) == 1)
        streams.log.away = False
        until(lambda: of(said, "replica") == [BEGINNING, END])
        until(made.caught_up)


@contextmanager
def monitoring(streams: SignedStreams, data: Path) -> Iterator[None]:
    stop = threading.Event()
    settings = MonitorSettings(
        streams.names, b.ORIGIN, b.SIGNER_KEY, "", data, metrics=("127.0.0.1", 0), exit_on_silence=False
    )
    thread = threading.Thread(target=partial(serve, settings, stop, connect=lambda: streams.log))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_the_replay_and_the_heads_watch_of_a_monitor(streams: SignedStreams, tmp_path: Path) -> None:
    parts = ("monitor", "heads watch")
    assert isinstance(streams.log, MemoryLog)
    with capture_logs() as said, monitoring(streams, tmp_path / "monitor"):
        until(lambda: any(line["event"] == "verified" for line in said))
        streams.log.away = True
        until(lambda: all(of(said, part) == [BEGINNING] for part in parts))
        streams.log.away = False
        until(lambda: all(of(said, part) == [BEGINNING, END] for part in parts))


def test_the_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "Backoff", lambda: Backoff(0.01, 0.01))
    log = new_log()
    with capture_logs() as said, signing(log, new_ledger()):
        until(lambda: any(line["event"] == "active" for line in said))
        log.away = True
        until(lambda: of(said, "signer") == [BEGINNING])
        log.away = False
        until(lambda: of(said, "signer") == [BEGINNING, END])
    assert of(said, "signer") == [BEGINNING, END]


def test_a_standby_of_a_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "Backoff", lambda: Backoff(0.01, 0.01))
    monkeypatch.setattr(service, "STANDBY", 0.01)
    log = new_log()

    def standby(connect: Callable[[], EventLog]) -> Any:
        return signing(log, Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.SIGNER_KEY), connect=connect)

    away = threading.Event()

    def connect() -> EventLog:
        if away.is_set():
            raise UnavailableError("nobody there")
        return Refusing(log, away)  # type: ignore[return-value]

    with capture_logs() as said, signing(log, new_ledger()):
        until(lambda: any(line["event"] == "active" for line in said))
        with standby(connect):
            until(lambda: any(line["event"] == "standby" for line in said))
            away.set()
            until(lambda: of(said, "signer") == [BEGINNING])
            away.clear()
            until(lambda: of(said, "signer") == [BEGINNING, END])


class Refusing:
    """``log``, for one client whose server goes away."""

    def __init__(self, log: MemoryLog, away: threading.Event) -> None:
        self._log = log
        self._away = away

    def __getattr__(self, name: str) -> object:
        if self._away.is_set() and name != "close":
            raise UnavailableError("nobody there")
        return getattr(self._log, name)
