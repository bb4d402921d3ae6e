"""What the processes say of themselves at their ``/metrics``, as ``kt status`` shows it.

Times are seconds, counts are those since the process started. A figure that a page does not have is None.
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


class Page:
    """The samples of one page."""

    def __init__(self, text: str) -> None:
        """Raises ``ValueError`` for what is no such page."""
        self._samples: defaultdict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append((sample.labels, sample.value))

    @classmethod
    def at(cls, url: str, must_have: str) -> Page:
        """The page at ``url``, which has the figure ``must_have``: another process's would say nothing.

        Raises ``UnavailableError`` if there is no such page.
        """
        try:
            answer = httpx.get(url, timeout=TIMEOUT, trust_env=uses_proxies(url))
            page = cls(answer.text if answer.status_code == httpx.codes.OK else "")
        except (httpx.HTTPError, httpx.InvalidURL, ImportError) as error:
            raise UnavailableError(f"{url} does not answer: {error or type(error).__name__}") from None
        except (ValueError, KeyError, IndexError):
            raise UnavailableError(f"{url} is no page of figures") from None
        if page.value(must_have) is None:
            raise UnavailableError(f"{url} does not have {must_have}")
        return page

    def value(self, name: str) -> float | None:
        found = self._samples.get(name)
        return None if found is None else _rounded(found[0][1])

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of ``name`` by a label of theirs."""
        return {labels[label]: _rounded(value) for labels, value in self._samples[name] if label in labels}

    def mean(self, name: str) -> float | None:
        """The mean of a histogram without labels."""
        count, total = self.value(f"{name}_count"), self.value(f"{name}_sum")
        return _rounded(total / count) if count and total is not None else None

    def means(self, name: str, label: str) -> dict[str, float]:
        """The means of a histogram by its label."""
        counts, totals = self.by(f"{name}_count", label), self.by(f"{name}_sum", label)
        return {key: _rounded(totals[key] / count) for key, count in counts.items() if count}

    @property
    def uptime(self) -> float | None:
        started = self.value("process_start_time_seconds")
        return None if started is None else _rounded(max(0.0, time.time() - started))


def _rounded(value: float) -> float:
    """``value`` as people read it: whole numbers without a fraction. It may be an int, nan or infinite."""
    return int(value) if float(value).is_integer() else round(value, 3)


def of_signer(page: Page) -> dict[str, Any]:
    return {
        "active": page.value("kt_signer_active") == 1,
        # It tells its own epochs only: none at first, nor as a standby.
        "epoch": page.value("kt_signer_epoch") or None,
        "epochs": page.value("kt_signer_epochs_total"),
        "merge_delay": {
            "last": page.value("kt_signer_last_merge_delay_seconds"),
            "mean": page.mean("kt_signer_merge_delay_seconds"),
            "broken": page.value("kt_signer_merge_delay_broken_total"),
        },
        "lag": {
            "events": page.value("kt_signer_lag_events"),
            "items": page.value("kt_signer_lag_items"),
            "seconds": page.value("kt_signer_lag_seconds"),
        },
        "phases": page.means("kt_signer_phase_seconds", "phase"),
        "verdicts": page.by("kt_signer_verdicts_total", "verdict"),
        "outages": page.by("kt_signer_outages_total", "kind").get("log", 0),
        "uptime": page.uptime,
    }


def of_monitor(page: Page) -> dict[str, Any]:
    return {
        "alarm": page.value("kt_monitor_alarm") == 1,
        "epoch": page.value("kt_monitor_epoch"),
        "epochs": page.value("kt_monitor_epochs_total"),
        "late_heads": page.value("kt_monitor_late_heads_total"),
        "lag": {
            "heads": page.value("kt_monitor_lag_heads"),
            "records": page.value("kt_monitor_lag_records"),
            "seconds": page.value("kt_monitor_lag_seconds"),
        },
        "replay": page.mean("kt_monitor_replay_seconds"),
        "verdicts": page.by("kt_monitor_verdicts_total", "verdict"),
        "outages": page.value("kt_monitor_outages_total"),
        "uptime": page.uptime,
    }


def of_frontend(page: Page) -> dict[str, Any]:
    return {
        "epoch": page.value("kt_epoch"),
        "lag": {"seconds": page.value("kt_replica_lag_seconds")},
        "log_reachable": page.value("kt_log_reachable") == 1,
        "verdicts": page.by("kt_submissions_total", "verdict"),
        "uptime": page.uptime,
    }
