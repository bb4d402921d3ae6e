"""``kt status`` reads the figures that signer, monitor and front end really have."""

from __future__ import annotations

import math
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kt_es.cli.operators import status_parts
from kt_es.cli.operators.status_parts import ScrapedMetrics, of_frontend, of_monitor, of_signer, status_lines
from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.queue import Verdict
from kt_es.process.exposition import Samples, exposed
from kt_es.server.availability import Backlog
from kt_es.server.health import Metrics
from projections.monitor_metrics import MonitorMetrics
from signer.metrics import SignerMetrics
from tests.builders import START, config, map_head
from tests.reference.memory_log import MemoryLog


def page(registry: CollectorRegistry) -> ScrapedMetrics:
    return ScrapedMetrics(generate_latest(registry).decode())


def missing(document: dict[str, Any], *but: str) -> list[str]:
    """The figures that a process does not have after all, inner ones included."""
    found = [name for name, value in document.items() if value is None and name not in but]
    inner = [value for value in document.values() if isinstance(value, dict)]
    return found + [name for values in inner for name in missing(values, *but)]


def signer_page() -> dict[str, Any]:
    seconds = 2.5
    metrics = SignerMetrics(lambda: START, lambda: seconds)
    metrics.configured(config())
    metrics.role(active=True)
    metrics.decided(0, 5)
    seconds = 4.0
    metrics.sealed(1)
    metrics.finished(map_head(3), 5, {"accepted": 4, "epoch": 1}, {"collect": 1.0, "commit": 0.1})
    for kind in ("log", "silence", "store"):
        metrics.outage(kind)
    metrics.waits("store")
    return of_signer(page(metrics.registry))


def test_metrics_of_the_signer() -> None:
    signer = signer_page()
    assert not missing(signer, "uptime")
    assert signer["active"]
    assert (signer["epoch"], signer["outages"], signer["waits_for"]) == (3, 2, ["store"])
    assert signer["merge_delay"] == {"last": 1.5, "mean": 1.5, "broken": 0}
    assert signer["phases"] == {"collect": 1, "commit": 0.1}
    assert signer["verdicts"] == {"accepted": 4, "epoch": 1}


def test_metrics_of_the_monitor() -> None:
    metrics = MonitorMetrics(lambda: START, lambda: 0.0)
    metrics.record(Verdict.STALE)
    metrics.published(2, 7, START)
    metrics.alarm()
    monitor = of_monitor(page(metrics.registry))
    assert not missing(monitor, "uptime", "replay")
    assert monitor["alarm"]
    assert monitor["lag"] == {"heads": 2, "records": 7, "seconds": 0}


def test_metrics_of_the_front_end() -> None:
    backlog = Backlog(MemoryLog, StreamNames("people"), 200_000, lambda: 0)
    metrics = Metrics(lambda: START + 1500, backlog, lambda _: False)
    metrics.committed(4, START)
    metrics.submissions.labels("accepted").inc()
    frontend = of_frontend(ScrapedMetrics(metrics.render().decode()))
    assert not missing(frontend, "uptime")
    assert frontend["epoch"] == 4
    assert frontend["lag"] == {"seconds": 1.5}
    assert frontend["verdicts"] == {"accepted": 1}


def test_a_page_is_that_of_the_process_or_none() -> None:
    with exposed(Samples().registry, "127.0.0.1", 0) as port:
        where = f"http://127.0.0.1:{port}/metrics"
        with pytest.raises(UnavailableError, match="does not have kt_monitor_alarm"):
            ScrapedMetrics.at(where, "kt_monitor_alarm")
    with pytest.raises(UnavailableError, match="does not answer"):
        ScrapedMetrics.at(where, "kt_monitor_alarm")


@pytest.mark.parametrize("text", ["{", "a b c d", "<html>"])
def test_what_is_no_page_has_no_metrics(text: str) -> None:
    with pytest.raises((ValueError, KeyError, IndexError)):
        ScrapedMetrics(text)


def test_people_read_what_is_not_known() -> None:
    document = {
        **dict.fromkeys(
            ("head", "head_age", "queue_waiting", "rights", "promised", "monitor", "frontend", "restarts")
        ),
        "origin": "kt.example.org/people",
        "signer": signer_page(),
        "unknown": {"monitor": "it does not answer"},
    }
    lines = list(status_lines(document))
    assert lines[:3] == [
        "kt.example.org/people",
        "no head yet",
        "what the processes say of themselves, unverified:",
    ]
    assert "merge delay: 1.5 s the last, 1.5 s the mean, over the promise 0 times" in "\n".join(lines)
    assert "           signs nothing: it waits for the shared store" in lines
    assert lines[-1] == "not known: monitor: it does not answer"


@pytest.mark.parametrize(("value", "shown"), [(3, 3), (3.0, 3), (3.14159, 3.142), (math.inf, math.inf)])
def test_any_number_of_a_page_can_be_shown(value: float, shown: float) -> None:
    assert status_parts._rounded(value) == shown
    assert math.isnan(status_parts._rounded(math.nan))
