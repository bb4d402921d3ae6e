"""The signer's figures, over a clock of the test's own."""

from __future__ import annotations

import urllib.request

from prometheus_client import generate_latest

from kt_es.process.exposition import exposed
from signer.metrics import SignerMetrics
from tests.builders import START, config, map_head


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def metrics(self) -> SignerMetrics:
        return SignerMetrics(lambda: START + int(self.seconds * 1000), lambda: self.seconds)


def value(metrics: SignerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_lag_counts_from_the_first_sight_to_the_head() -> None:
    clock = Clock()
    metrics = clock.metrics()
    metrics.seen(9)
    clock.seconds = 3.0
    metrics.decided(0, 250)
    assert value(metrics, "kt_signer_lag_events") == 10
    assert value(metrics, "kt_signer_lag_seconds") == 3
    assert value(metrics, "kt_signer_lag_items") == 250
    metrics.sealed(10)
    assert value(metrics, "kt_signer_lag_events") == value(metrics, "kt_signer_lag_seconds") == 0
    assert value(metrics, "kt_signer_last_merge_delay_seconds") == 3


def test_an_outage_does_not_shorten_the_merge_delay() -> None:
    clock = Clock()
    metrics = clock.metrics()
    metrics.configured(config(max_merge_delay=60_000))
    metrics.decided(0, 1)
    metrics.outage("log")
    clock.seconds = 100.0
    metrics.sealed(0)
    metrics.decided(0, 1)
    metrics.sealed(1)
    assert value(metrics, "kt_signer_last_merge_delay_seconds") == 100
    assert value(metrics, "kt_signer_merge_delay_broken_total") == 1
    assert value(metrics, "kt_signer_promised_merge_delay_seconds") == 60
    assert value(metrics, "kt_signer_outages_total", kind="log") == 1


def test_what_is_delivered_again_does_not_wait() -> None:
    metrics = Clock().metrics()
    metrics.sealed(10)
    metrics.seen(4)
    assert value(metrics, "kt_signer_lag_events") == 0
    assert value(metrics, "kt_signer_lag_seconds") == 0


def test_they_are_served_over_http() -> None:
    metrics = Clock().metrics()
    metrics.finished(map_head(3), 5, {"accepted": 4, "epoch": 1}, {"collect": 1.0, "commit": 0.1})
    assert value(metrics, "kt_signer_verdicts_total", verdict="accepted") == 4
    with (
        exposed(metrics.registry, "127.0.0.1", 0) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        assert b"kt_signer_epoch 3.0" in answer.read()
    assert b"kt_signer_phase_seconds" in generate_latest(metrics.registry)
