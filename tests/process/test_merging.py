"""One page of metrics for several processes."""

from __future__ import annotations

import re

from kt_es.process.exposition import Samples
from kt_es.process.merging import Merged, page, snapshot


class Process:
    """The metrics of one process."""

    def __init__(self) -> None:
        samples = Samples()
        self.registry = samples.registry
        self.lookups = samples.counter("kt_lookups", "Lookups", "result")
        self.seconds = samples.histogram("kt_request_seconds", "Time", "route", buckets=(0.1, 1.0))
        self.epoch = samples.gauge("kt_epoch", "Epoch")
        self.lag = samples.gauge("kt_replica_lag_seconds", "Lag")


def _value(merged: Merged, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", page([merged]).decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def test_counts_are_added_up_and_gauges_are_the_worst() -> None:
    merged = Merged()
    for number in (1, 2):
        process = Process()
        process.lookups.labels("found").inc(number)
        process.lookups.labels(f"of {number}").inc()
        process.seconds.labels("/v1/lookup").observe(0.05 * number)
        process.epoch.set(10 + number)
        process.lag.set(number)
        merged.put(f"worker {number}", snapshot(process.registry))
    assert _value(merged, 'kt_lookups_total{result="found"}') == 3
    assert _value(merged, 'kt_lookups_total{result="of 2"}') == 1
    assert _value(merged, 'kt_request_seconds_bucket{le="0.1",route="/v1/lookup"}') == 2
    assert _value(merged, 'kt_request_seconds_count{route="/v1/lookup"}') == 2
    assert _value(merged, "kt_epoch") == 11
    assert _value(merged, "kt_replica_lag_seconds") == 2
    assert _value(merged, "process_open_fds") > 0


def test_no_count_goes_back_when_a_process_ends() -> None:
    merged, sum_before = Merged(), 0.0
    for number in range(5):
        process = Process()
        key = f"worker 1 #{number}"
        for _ in range(3):
            process.lookups.labels("found").inc()
            merged.put(key, snapshot(process.registry))
            process.epoch.set(number)
            now = _value(merged, 'kt_lookups_total{result="found"}')
            assert now == sum_before + 1
            sum_before = now
        merged.end(key)
        assert _value(merged, 'kt_lookups_total{result="found"}') == sum_before
        # Nothing of it runs any more, so its gauges are gone.
        assert "\nkt_epoch " not in page([merged]).decode()
    merged.end("unknown")
