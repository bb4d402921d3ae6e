"""The lines that ``kt status`` prints for people, made from the document of ``--json``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kt_es.wording import counted


def status_lines(document: Mapping[str, Any]) -> Iterator[str]:
    unknown = document["unknown"]
    head, promised = document["head"], document["promised"]
    yield f"{document['origin']}"
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
    yield (
        f"not as kt init --acl sets them: {'; '.join(problems)}" if problems else "as kt init --acl sets them"
    )
    yield f"openings are read by: {', '.join(rights['openings_readers'])} (front ends see to it)"
    if rights["default_readers"] is not None:
        yield f"streams without an ACL are read by: {', '.join(rights['default_readers']) or 'nobody'}"


def _signer(signer: Mapping[str, Any]) -> Iterator[str]:
    delay, lag = signer["merge_delay"], signer["lag"]
    epoch = "no epoch of its own yet" if signer["epoch"] is None else f"at epoch {signer['epoch']}"
    yield f"{'active' if signer['active'] else 'not active'}, {epoch}, {_since(signer)}"
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
    log = "" if frontend["log_reachable"] else ", the log is away"
    yield f"at epoch {frontend['epoch']}, {_since(frontend)}{log}"
    yield (
        f"lag: {lag.get('heads', 'unknown')} heads, {lag.get('records', 'unknown')} records; "
        f"its last epoch {lag['seconds']} s after the head"
    )
    yield f"verdicts answered: {_listed(frontend['verdicts'])}"


def _since(process: Mapping[str, Any]) -> str:
    uptime = "for an unknown time" if process["uptime"] is None else f"for {process['uptime']:.0f} s"
    outages = f", {process['outages']} outages" if "outages" in process else ""
    return f"running {uptime}{outages}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"


def _indented(name: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{name if number == 0 else '':10} {line}"
