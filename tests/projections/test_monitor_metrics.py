"""The monitor's figures: over a clock of the test's own, and as a monitor that follows tells them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from kt_es.epochs import Standing
from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.heads import MAP_HEAD
from kt_es.formats.queue import Verdict
from kt_es.ledger.rows import Committed
from kt_es.merkle.log import LogState
from projections.monitor import MonitorSettings, serve
from projections.monitor_metrics import MonitorMetrics
from projections.monitor_sources import look
from tests.builders import ORIGIN, SIGNER_KEY, START, config, signed_config
from tests.reference.signed_streams import SignedStreams
from tests.reference.signing import wait_until


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.metrics = MonitorMetrics(lambda: START + int(self.seconds * 1000), lambda: self.seconds)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"kt_monitor_{name}", labels)


def state(epoch: int, records: int, seconds: float, max_interval: int = 60_000) -> Committed:
    """After ``epoch``, whose head came ``seconds`` after the start."""
    signed = signed_config(config(max_interval=max_interval))
    standing = Standing(ORIGIN, SIGNER_KEY, epoch, START + int(seconds * 1000), signed)
    return Committed(standing, log=LogState(records, (bytes(32),) * records.bit_count()))


def test_what_is_verified_counts_with_its_epoch() -> None:
    value = Clock()
    value.metrics.begins()
    value.metrics.record(Verdict.ACCEPTED)
    value.metrics.record(Verdict.FOREIGN_MARKER)
    assert value("open_records") == 2
    assert value("verdicts_total", verdict="accepted") is None
    value.seconds = 2.0
    value.metrics.verified(state(1, 2, 1.0))
    assert value("open_records") == 0
    assert value("verdicts_total", verdict="accepted") == value("epochs_total") == 1
    assert value("verdicts_total", verdict="foreign-marker") == 1
    assert value("replay_seconds_sum") == 2
    assert (value("epoch"), value("log_size")) == (1, 2)
    assert value("head_age_seconds") == 1
    assert value("promised_interval_seconds") == 60
    assert value("promised_merge_delay_seconds") == 120


def test_what_an_outage_interrupts_is_counted_once() -> None:
    value = Clock()
    value.metrics.begins()
    value.metrics.record(Verdict.ACCEPTED)
    value.metrics.begins_again()
    value.metrics.outage("log")
    value.metrics.outage("disk")
    value.metrics.begins()
    value.metrics.record(Verdict.ACCEPTED)
    value.metrics.verified(state(1, 1, 0.0))
    assert value("verdicts_total", verdict="accepted") == 1
    assert value("outages_total") == 1


def test_the_lag_counts_until_everything_published_is_verified() -> None:
    value = Clock()
    value.metrics.resumed(state(1, 10, 0.0))
    value.metrics.published(3, 500, START + 5000)
    value.seconds = 8.0
    assert (value("lag_heads"), value("lag_records"), value("lag_seconds")) == (2, 490, 8)
    assert (value("head_age_seconds"), value("published_head_age_seconds")) == (8, 3)
    value.metrics.verified(state(2, 400, 4.0))
    value.metrics.published(3, 500, START + 5000)
    value.seconds = 9.0
    assert (value("lag_heads"), value("lag_records"), value("lag_seconds")) == (1, 100, 9)
    value.metrics.verified(state(3, 500, 5.0))
    assert (value("lag_heads"), value("lag_records"), value("lag_seconds")) == (0, 0, 0)
    assert value("head_age_seconds") == value("published_head_age_seconds") == 4


def test_a_head_after_a_silence_is_late_by_the_interval_in_force() -> None:
    value = Clock()
    value.metrics.verified(state(1, 1, 0.0, max_interval=60_000))
    value.metrics.verified(state(2, 2, 60.0, max_interval=5_000))
    assert value("late_heads_total") == 0
    value.metrics.verified(state(3, 3, 66.0))
    assert value("late_heads_total") == 1


def test_a_look_at_the_log_shows_its_newest_head() -> None:
    value = Clock()
    streams = SignedStreams()
    look(streams.log, streams.names.heads, value.metrics)
    assert (value("log_reachable"), value("lag_heads")) == (1, 0)
    streams.put_user("alice")
    streams.epoch()
    head = streams.epoch()
    look(streams.log, streams.names.heads, value.metrics)
    assert (value("lag_heads"), value("lag_records")) == (2, head.log_size)
    streams.log.append(streams.names.heads, ANY, [content_event(streams.names.heads, MAP_HEAD, b"junk")])
    look(streams.log, streams.names.heads, value.metrics)
    assert value("lag_heads") == 3


def test_a_monitor_that_finds_a_fault_shows_the_alarm_before_it_ends(tmp_path: Path) -> None:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    streams.log.append(streams.names.heads, ANY, [content_event(streams.names.heads, MAP_HEAD, b"junk")])
    settings = MonitorSettings(
        streams.names, ORIGIN, SIGNER_KEY, "", tmp_path / "data", read_queue=True, metrics=("127.0.0.1", 0)
    )
    stop = threading.Event()
    with capture_logs() as said, ThreadPoolExecutor(1) as pool:
        ended = pool.submit(serve, settings, stop, connect=lambda: streams.log)
        try:
            wait_until(lambda: any(line["event"] == "alarm" for line in said), "there is an alarm")
            url = next(line["url"] for line in said if line["event"] == "metrics")
            wait_until(lambda: "kt_monitor_lag_heads 1.0" in httpx.get(url).text, "the lag is known")
            page = httpx.get(url).text
            assert not ended.done()
        finally:
            stop.set()
        with pytest.raises(DivergenceError, match="head of epoch 2"):
            ended.result(30)
    assert "kt_monitor_alarm 1.0" in page
    assert "kt_monitor_epochs_total 1.0" in page
    assert 'kt_monitor_verdicts_total{verdict="accepted"} 1.0' in page


def test_without_metrics_a_fault_ends_it_at_once(tmp_path: Path) -> None:
    streams = SignedStreams()
    streams.log.append(streams.names.heads, ANY, [content_event(streams.names.heads, MAP_HEAD, b"junk")])
    settings = MonitorSettings(streams.names, ORIGIN, SIGNER_KEY, "", tmp_path / "data")
    with pytest.raises(DivergenceError, match="head of epoch 1"):
        serve(settings, threading.Event(), connect=lambda: streams.log)
