"""The status page as HTML. It loads nothing and runs nothing; it suits both themes and any width."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Final

from kt_es.errors import counted
from kt_es.formats.notes import encode_base64
from kt_es.ledger.clock import spoken
from kt_es.process.site import STRICT, Page
from projections.status.facts import Facts, Lag, Told
from projections.status.hours import HOUR
from projections.status.picture import heads_picture
from projections.status.style import STYLE

_DIGEST: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": f"{STRICT['Content-Security-Policy']}; style-src 'sha256-{_DIGEST}'"
}

_CHECKS: Final = (
    "Each record was decided again from what was published before it; its verdict is the published one.",
    "Each signature was verified: of owners, of configs, of heads and of checkpoints.",
    "Each head has the root of the map and of the log that these records give.",
    "Both logs only ever grew, and each head is later than the one before.",
)


def status_page(facts: Facts) -> Page:
    """Return the page that shows ``facts``."""
    return Page(_html(facts).encode(), "text/html; charset=utf-8", headers=HEADERS)


def _html(facts: Facts) -> str:
    kind, headline, sentence = _headline(facts)
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n',
            f"<title>{escape(headline)}: {escape(facts.origin)}</title>\n",
            f"<style>{STYLE}</style>\n</head>\n<body>\n",
            f"<header><p>Monitor of</p><h1>{escape(facts.origin)}</h1></header>\n<main>\n",
            f'<section class="state {kind}"><h2>{escape(headline)}</h2><p>{escape(sentence)}</p></section>\n',
            *_alarms(facts),
            *_verified(facts),
            *_hours(facts),
            *_neighbours(facts),
            *_cosigned(facts),
            *_rules(facts),
            *_told(facts),
            f"</main>\n<footer><p>Made at {_when(facts.now)} by kt-es {escape(facts.version)}. Load the ",
            f"page again for the latest state. This monitor runs since {_when(facts.started)}. "
            '<a href="/metrics">Metrics</a></p></footer>\n</body>\n</html>\n',
        )
    )


def _headline(facts: Facts) -> tuple[str, str, str]:
    """Return the kind of state, a headline and a sentence: the most severe state that there is."""
    if facts.fault is not None:
        return "bad", "Something is wrong", facts.fault
    if facts.alarms:
        return "bad", "Alarm", facts.alarms[0].sentence
    verified, lag = facts.verified, facts.lag
    if verified is None:
        return "wait", "Nothing is verified yet", f"The monitor has verified no head from {facts.source}."
    until = f"Everything up to epoch {verified.epoch:,} is verified"
    if lag.reachable is False:
        return "wait", "The source cannot be reached", f"{until}. What was published since is not known."
    if lag.heads and lag.seconds >= 1:
        behind = f"{_lag(lag)} wait since {spoken(int(lag.seconds * 1000))}"
        return "wait", "Catching up", f"{until}; {behind}."
    age = spoken(max(0, facts.now - verified.timestamp))
    return "good", "Verified", f"{until}. The latest verified head was {age} old when this page was made."


def _lag(lag: Lag) -> str:
    return f"{_number(lag.heads, 'heads')} and {_number(lag.records, 'records')}"


def _number(number: int, things: str) -> str:
    """Do what ``counted`` does, with commas."""
    return counted(number, things).replace(str(number), f"{number:,}", 1)


def _verified(facts: Facts) -> Iterator[str]:
    if (verified := facts.verified) is None:
        return
    yield "<section><h2>What was verified</h2><dl>"
    yield _row("Until", f"{_when(verified.timestamp)}, the time of the latest verified head")
    yield _row("Epoch", f"{verified.epoch:,}")
    yield _row("Accounts", f"{verified.entries:,} in the map, erased ones included")
    for name, log in (("Log of heads", verified.heads), ("Log of mutations", verified.mutations)):
        root = encode_base64(log.root())
        yield _row(name, f"{log.size:,} {'leaf' if log.size == 1 else 'leaves'}, root <code>{root}</code>")
    lag = facts.lag
    behind = (
        _lag(lag)
        if lag.reachable
        else "not known: the source cannot be reached"
        if lag.reachable is False
        else "not known yet"
    )
    yield _row("Published, not verified", behind)
    yield "</dl></section>\n"


def _hours(facts: Facts) -> Iterator[str]:
    if not facts.hours or facts.verified is None:
        return
    promised = None if facts.rules is None else HOUR // facts.rules.max_interval
    yield f"<section><h2>Heads per hour</h2><div>{heads_picture(facts.hours, promised or None)}</div>"
    yield "<p>Verified heads by their own timestamps, in UTC."
    if promised:
        yield f" The dashed line is what the directory promises at least: {promised:,} in an hour."
    yield "</p><details><summary>As numbers</summary><table><thead><tr><th>Hour</th><th>Heads</th></tr>"
    yield "</thead><tbody>"
    for hour in reversed(facts.hours):
        heads = "not known here" if hour.heads is None else f"{hour.heads:,}"
        yield f"<tr><td>{_when(hour.start)}</td><td>{heads}</td></tr>"
    yield "</tbody></table></details></section>\n"


def _rules(facts: Facts) -> Iterator[str]:
    yield "<section><h2>By which rules</h2><ul>"
    for check in _CHECKS:
        yield f"<li>{check}</li>"
    if facts.with_queue:
        yield "<li>Each record is an item of the queue, and no item was left out.</li></ul>"
    else:
        yield "</ul><p>Not compared here: whether an item of the queue was left out.</p>"
    yield "<dl>"
    yield _row("Read from", escape(facts.source))
    yield _row("The directory's key", f"<code>{escape(facts.vkey)}</code>")
    if (rules := facts.rules) is not None:
        yield _row("Signer key now", f"<code>{escape(rules.signer_key)}</code>, in config {rules.configs:,}")
        yield _row("Labels", escape(rules.label_policy))
        yield _row("A head at least every", spoken(rules.max_interval))
        yield _row("A change decided within", spoken(rules.max_merge_delay))
    yield "</dl></section>\n"


def _neighbours(facts: Facts) -> Iterator[str]:
    if not facts.neighbours:
        return
    yield "<section><h2>Compared with others</h2><p>These show checkpoints of the directory as well. Each "
    yield "is compared with what was verified here.</p><dl>"
    for one in facts.neighbours:
        same = (
            "not yet" if one.agreed is None else f"the same log of {one.heads:,} heads at {_when(one.agreed)}"
        )
        yield _row(one.url, same + (f"; {escape(one.problem)}" if one.problem else ""))
    yield "</dl></section>\n"


def _cosigned(facts: Facts) -> Iterator[str]:
    if facts.cosigned is None:
        return
    yield "<section><h2>Cosigned by this monitor</h2><dl>"
    if not facts.cosigned:
        yield _row("Since the start", "nothing yet")
    for one in facts.cosigned:
        leaves = f"{one.size:,} {'leaf' if one.size == 1 else 'leaves'}"
        yield _row(f"Log of {one.log}", f"{leaves} at {_when(one.time)}")
    for handed in facts.handed:
        taken = "not taken yet" if handed.time is None else f"taken at {_when(handed.time)}"
        problem = f"; not handed over now: {escape(handed.problem)}" if handed.problem else ""
        yield _row(handed.url, taken + problem)
    yield "</dl></section>\n"


def _alarms(facts: Facts) -> Iterator[str]:
    if facts.evidence:
        yield "<section><h2>Evidence</h2><p>Two signed statements of the directory contradict each other. "
        yield "Anybody can verify these files offline with <code>kt verify</code>.</p><ul>"
        for name in facts.evidence:
            yield f'<li><a href="/evidence/{escape(name, quote=True)}">{escape(name)}</a></li>'
        yield "</ul></section>\n"
    if facts.alarms:
        yield "<section><h2>Alarms now</h2><ul>"
        for alarm in facts.alarms:
            yield f"<li>{_told_line(alarm)}</li>"
        yield "</ul></section>\n"


def _told(facts: Facts) -> Iterator[str]:
    yield "<section><h2>Alarms since the start</h2>"
    if not facts.told:
        yield "<p>None.</p></section>\n"
        return
    yield "<ul>"
    for told in facts.told:
        yield f"<li>{_told_line(told)}</li>"
    yield "</ul></section>\n"


def _told_line(told: Told) -> str:
    return f"{_when(told.time)}: {'over: ' if told.is_over else ''}{escape(told.sentence)}"


def _row(name: str, value: str) -> str:
    """Return a row of a list. ``value`` is HTML."""
    return f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>"


def _when(milliseconds: int) -> str:
    time = datetime.fromtimestamp(milliseconds / 1000, UTC).replace(microsecond=0)
    return f'<time datetime="{time.isoformat()}">{time:%Y-%m-%d %H:%M:%S} UTC</time>'
