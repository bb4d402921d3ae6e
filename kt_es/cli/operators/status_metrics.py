"""The ``/metrics`` of the processes, as ``kt status`` shows them.

Times are in seconds, and counts begin with the process. A sample that a process does not have is None.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from kt_es.errors import UnavailableError
from kt_es.process.proxies import uses_proxies

TIMEOUT = 5.0


class ScrapedMetrics:
    """The samples that one process serves."""

    def __init__(self, text: str) -> None:
        """Parse ``text``. Raises ``ValueError`` if it is not in the format of Prometheus."""
        self._samples: defaultdict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append((sample.labels, sample.value))

    @classmethod
    def at(cls, url: str, must_have: str) -> ScrapedMetrics:
        """Fetch the metrics at ``url``.

        Raises:
            UnavailableError: nothing answers there, or the sample ``must_have`` is missing, as in the metrics
                of another process.
        """
        try:
            answer = httpx.get(url, timeout=TIMEOUT, trust_env=uses_proxies(url))
            metrics = cls(answer.text if answer.status_code == httpx.codes.OK else "")
        except (httpx.HTTPError, httpx.InvalidURL, ImportError) as error:
            raise UnavailableError(f"{url} does not answer: {error or type(error).__name__}") from None
        except (ValueError, KeyError, IndexError):
            raise UnavailableError(f"{url} is no page of figures") from None
        if metrics.value(must_have) is None:
            raise UnavailableError(f"{url} does not have {must_have}")
        return metrics

    def value(self, name: str) -> float | None:
        found = self._samples.get(name)
        return None if found is None else _rounded(found[0][1])

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the values of ``name``, by the value of ``label``."""
        return {labels[label]: _rounded(value) for labels, value in self._samples[name] if label in labels}

    def mean(self, name: str) -> float | None:
        """Return the mean of a histogram without labels."""
        count, total = self.value(f"{name}_count"), self.value(f"{name}_sum")
        return _rounded(total / count) if count and total is not None else None

    def means(self, name: str, label: str) -> dict[str, float]:
        """Return the means of a histogram, by the value of ``label``."""
        counts, totals = self.by(f"{name}_count", label), self.by(f"{name}_sum", label)
        return {key: _rounded(totals[key] / count) for key, count in counts.items() if count}

    @property
    def uptime(self) -> float | None:
        started = self.value("process_start_time_seconds")
        return None if started is None else _rounded(max(0.0, time.time() - started))


def _rounded(value: float) -> float:
    """Round ``value`` for people: whole numbers have no fraction."""
    return int(value) if float(value).is_integer() else round(value, 3)


def of_signer(metrics: ScrapedMetrics) -> dict[str, Any]:
    return {
        "active": metrics.value("kt_signer_active") == 1,
        # The signer counts only its own epochs. It has none at first and as a standby.
        "epoch": metrics.value("kt_signer_epoch") or None,
        "epochs": metrics.value("kt_signer_epochs_total"),
        "merge_delay": {
            "last": metrics.value("kt_signer_last_merge_delay_seconds"),
            "mean": metrics.mean("kt_signer_merge_delay_seconds"),
            "broken": metrics.value("kt_signer_merge_delay_broken_total"),
        },
        "lag": {
            "events": metrics.value("kt_signer_lag_events"),
            "items": metrics.value("kt_signer_lag_items"),
            "seconds": metrics.value("kt_signer_lag_seconds"),
        },
        "phases": metrics.means("kt_signer_phase_seconds", "phase"),
        "verdicts": metrics.by("kt_signer_verdicts_total", "verdict"),
        "outages": metrics.by("kt_signer_outages_total", "kind").get("log", 0),
        "uptime": metrics.uptime,
    }


def of_monitor(metrics: ScrapedMetrics) -> dict[str, Any]:
    return {
        "alarm": metrics.value("kt_monitor_alarm") == 1,
        "epoch": metrics.value("kt_monitor_epoch"),
        "epochs": metrics.value("kt_monitor_epochs_total"),
        "late_heads": metrics.value("kt_monitor_late_heads_total"),
        "lag": {
            "heads": metrics.value("kt_monitor_lag_heads"),
            "records": metrics.value("kt_monitor_lag_records"),
            "seconds": metrics.value("kt_monitor_lag_seconds"),
        },
        "replay": metrics.mean("kt_monitor_replay_seconds"),
        "verdicts": metrics.by("kt_monitor_verdicts_total", "verdict"),
        "outages": metrics.value("kt_monitor_outages_total"),
        "uptime": metrics.uptime,
    }


def of_frontend(metrics: ScrapedMetrics) -> dict[str, Any]:
    return {
        "epoch": metrics.value("kt_epoch"),
        "lag": {"seconds": metrics.value("kt_replica_lag_seconds")},
        "log_reachable": metrics.value("kt_log_reachable") == 1,
        "verdicts": metrics.by("kt_submissions_total", "verdict"),
        "uptime": metrics.uptime,
    }
