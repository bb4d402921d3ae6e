"""The parts of ``kt status``: the metrics of the processes, and the lines for people.

Times are in seconds, and counts begin with the process. A sample that a process does not have is None.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from kt_es.errors import UnavailableError, counted
from kt_es.formats.heads import LOG_NAMES
from kt_es.process.network import uses_proxies

TIMEOUT = 5.0
_WAITED_FOR = {"log": "the event log", "disk": "space on its disk", "store": "the shared store"}


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
        """Fetch the metrics at ``url``. Without the sample ``must_have`` they are of another process.

        Raises ``UnavailableError``.
        """
        try:
            answer = httpx.get(url, timeout=TIMEOUT, trust_env=uses_proxies(url))
            metrics = cls(answer.text if answer.status_code == httpx.codes.OK else "")
        except (httpx.HTTPError, httpx.InvalidURL, ImportError) as error:
            raise UnavailableError(f"{url} does not answer: {error or type(error).__name__}") from None
        except (ValueError, KeyError, IndexError):
            raise UnavailableError(f"{url} is no page of metrics: give the address of one") from None
        if metrics.value(must_have) is None:
            raise UnavailableError(f"{url} does not have {must_have}: give the address of the right process")
        return metrics

    def value(self, name: str) -> float | None:
        found = self._samples.get(name)
        return None if found is None else _rounded(found[0][1])

    def by(self, name: str, label: str) -> dict[str, float]:
        return {labels[label]: _rounded(value) for labels, value in self._samples[name] if label in labels}

    def mean(self, name: str) -> float | None:
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
        "lag": {unit: metrics.value(f"kt_signer_lag_{unit}") for unit in ("events", "items", "seconds")},
        "phases": metrics.means("kt_signer_phase_seconds", "phase"),
        "verdicts": metrics.by("kt_signer_verdicts_total", "verdict"),
        "outages": _outages(metrics),
        "waits_for": [kind for kind, value in metrics.by("kt_signer_waiting", "kind").items() if value],
        "uptime": metrics.uptime,
    }


def _outages(metrics: ScrapedMetrics) -> float:
    """Return the number of outages of the signer. An outage of kind ``silence`` is one of the log, too."""
    kinds = metrics.by("kt_signer_outages_total", "kind")
    return _rounded(sum(count for kind, count in kinds.items() if kind != "silence"))


def of_monitor(metrics: ScrapedMetrics) -> dict[str, Any]:
    return {
        "alarm": metrics.value("kt_monitor_alarm") == 1,
        "epoch": metrics.value("kt_monitor_epoch"),
        "epochs": metrics.value("kt_monitor_epochs_total"),
        "late_heads": metrics.value("kt_monitor_late_heads_total"),
        "lag": {unit: metrics.value(f"kt_monitor_lag_{unit}") for unit in ("heads", "records", "seconds")},
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
        "cosigned": {log: _cosigned(metrics, log) for log in LOG_NAMES},
        "uptime": metrics.uptime,
    }


def _cosigned(metrics: ScrapedMetrics, log: str) -> dict[str, float]:
    """Return the age of the latest cosignature of each cosigner, the youngest first."""
    made = metrics.by(f"kt_{log}_cosigned_timestamp_seconds", "cosigner")
    now = time.time()
    ages = {name: _rounded(round(now - timestamp, 1)) for name, timestamp in made.items()}
    return dict(sorted(ages.items(), key=lambda each: each[1]))


def status_lines(document: Mapping[str, Any]) -> Iterator[str]:
    unknown, head, promised = document["unknown"], document["head"], document["promised"]
    yield str(document["origin"])
    if head is None:
        if not {"log", "frontend"} <= unknown.keys():
            yield "no head yet"
    else:
        yield (
            f"epoch {head['epoch']}, {document['head_age']} s ago: "
            f"{counted(head['map_size'], 'entries')}, {counted(head['log_size'], 'records')}; "
            f"{'verified' if document['head_verified'] else 'unverified: as the log has it'}"
        )
    if document["queue_waiting"] is not None:
        yield f"{document['queue_waiting']} events wait in the queue"
    if document["rights"] is not None:
        yield from _indented("rights", _rights(document["rights"]))
    if promised is not None:
        yield (
            f"promised: a head every {promised['interval']:g} s, "
            f"a merge delay of at most {promised['merge_delay']:g} s"
        )
    if any(document[part] is not None for part in ("signer", "monitor", "frontend")):
        yield "what the processes say of themselves, unverified:"
    for part, lines in (("signer", _signer), ("monitor", _monitor), ("frontend", _frontend)):
        if document[part] is not None:
            yield from _indented(part, lines(document[part]))
    if document["restarts"] is not None:
        yield from _indented("restarts", [_listed(document["restarts"])])
    for part, reason in unknown.items():
        yield f"not known: {part}: {reason}"


def _rights(rights: Mapping[str, Any]) -> Iterator[str]:
    problems = rights["problems"]
    set_by = "as kt init --acl sets them"
    yield f"not {set_by}: {'; '.join(problems)}" if problems else set_by
    yield f"openings are read by: {', '.join(rights['openings_readers'])} (front ends see to it)"
    if rights["default_readers"] is not None:
        yield f"streams without an ACL are read by: {', '.join(rights['default_readers']) or 'nobody'}"


def _signer(signer: Mapping[str, Any]) -> Iterator[str]:
    delay, lag = signer["merge_delay"], signer["lag"]
    epoch = "no epoch of its own yet" if signer["epoch"] is None else f"at epoch {signer['epoch']}"
    yield f"{'active' if signer['active'] else 'not active'}, {epoch}, {_since(signer)}"
    for kind in signer["waits_for"]:
        yield f"signs nothing: it waits for {_WAITED_FOR.get(kind, kind)}"
    if delay["mean"] is None:
        yield "merge delay: none yet"
    else:
        yield (
            f"merge delay: {delay['last']} s the last, {delay['mean']} s the mean, "
            f"over the promise {delay['broken']} times"
        )
    yield f"lag: {counted(lag['events'], 'events')}, {counted(lag['items'], 'items')}, {lag['seconds']} s"
    yield f"an epoch takes, s: {_listed(signer['phases'])}"
    yield f"verdicts: {_listed(signer['verdicts'])}"


def _monitor(monitor: Mapping[str, Any]) -> Iterator[str]:
    lag = monitor["lag"]
    yield (
        f"{'ALARM: the logs are wrong' if monitor['alarm'] else 'no alarm'} at epoch {monitor['epoch']}, "
        f"{_since(monitor)}"
    )
    yield f"lag: {counted(lag['heads'], 'heads')}, {counted(lag['records'], 'records')}, {lag['seconds']} s"
    if monitor["replay"] is not None:
        yield f"replay of an epoch: {monitor['replay']} s; heads that came too late: {monitor['late_heads']}"
    yield f"verdicts: {_listed(monitor['verdicts'])}"


def _frontend(frontend: Mapping[str, Any]) -> Iterator[str]:
    lag = frontend["lag"]
    log = "" if frontend["log_reachable"] else ", the event log cannot be reached"
    yield f"at epoch {frontend['epoch']}, {_since(frontend)}{log}"
    yield (
        f"lag: {lag.get('heads', 'unknown')} heads, {lag.get('records', 'unknown')} records; "
        f"its last epoch {lag['seconds']} s after the head"
    )
    yield f"verdicts answered: {_listed(frontend['verdicts'])}"
    for log, ages in frontend["cosigned"].items():
        if ages:
            yield f"cosigned {log}: {', '.join(f'{name} {age} s ago' for name, age in ages.items())}"


def _since(process: Mapping[str, Any]) -> str:
    uptime = "for an unknown time" if process["uptime"] is None else f"for {process['uptime']:.0f} s"
    outages = f", {process['outages']} outages" if "outages" in process else ""
    return f"running {uptime}{outages}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"


def _indented(name: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{name if number == 0 else '':10} {line}"
