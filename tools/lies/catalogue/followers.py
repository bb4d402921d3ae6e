"""Logs that go back, change or stop growing, told to processes that resume or that follow the log."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import httpx

from kt_es.formats.queue import Verdict
from tools.lies.commands import Process, Ran
from tools.lies.people import SIGNER, label
from tools.lies.registry import BY_LOG, BY_SIGNER, LIVE, RESTART, Lie, lie, scene
from tools.lies.stage import Stage
from tools.lies.universe import Universe

ALICE = label("alice")

_BACK = "the log was rolled back"
_TWO = "the directory signed two different heads of epoch 3"


def _lies(command: str, code: int | None = None, *, live: bool = True) -> list[Lie]:
    """Return four lies about the log, told at the next start and, with ``live``, while the process runs."""
    made = []
    for when in (RESTART, LIVE) if live else (RESTART,):
        for what, teller, own, message in (
            ("rollback", BY_LOG, 4, _BACK),
            ("fork", BY_SIGNER, 5, _TWO),
            ("longer-fork", BY_SIGNER, 5, _TWO),
            ("empty-log", BY_LOG, 4, _BACK),
        ):
            name = f"{what}-{command.split(maxsplit=1)[0]}-{'live' if when is LIVE else 'resumes'}"
            made.append(lie(name, teller, f"kt {command}", code or own, message, when, f"{what} {when}"))
    return made


@dataclass(frozen=True, slots=True)
class Logs:
    """Three epochs, and the log that the operator shows instead of them."""

    true: Universe
    lie: Universe | None

    @classmethod
    def make(cls, stage: Stage, what: str | None) -> Logs:
        universe = stage.universe()
        universe.put("alice")
        universe.epoch()
        empty = universe.fork()
        universe.epoch()
        other = universe.fork()
        universe.put("bob")
        universe.epoch()
        stage.write(universe)
        if what == "empty-log":
            empty.epochs, empty.record_events, empty.events = [], [], empty.events[:1]
            return cls(universe, empty)
        if what in ("fork", "longer-fork"):
            other.put("carol")
            for _ in range(1 if what == "fork" else 3):
                other.epoch()
        return cls(universe, None if what is None else other)

    def tell(self, stage: Stage) -> None:
        """Replace the log; in the control, append another epoch instead."""
        if self.lie is None:
            self.true.put("dave")
            self.true.epoch()
            stage.write(self.true)
        else:
            stage.replace(self.lie)


def _case(case: str | None) -> tuple[str | None, str]:
    what, _, when = (case or "").partition(" ")
    return what or None, when


@scene(*_lies("audit --data", live=False), also="tests/ledger/test_anchor.py")
def audit_resumes(stage: Stage, case: str | None) -> Ran:
    logs = Logs.make(stage, _case(case)[0])
    stage.audited("--data", "kept")
    logs.tell(stage)
    return stage.audit("--data", "kept")


def _following(stage: Stage, case: str | None, command: str, message: str) -> Ran:
    """Let a process verify three epochs, and then tell it the lie, while it runs or at its next start."""
    what, when = _case(case)
    logs = Logs.make(stage, what)
    process = stage.process(command)
    process.wait_for_line(message)
    if when == RESTART:
        process.stop()
    logs.tell(stage)
    if when == RESTART:
        process = stage.process(command)
    if case is None:
        process.wait_for_line('"epoch": 4')
        return process.stop()
    return process.end()


@scene(*_lies("monitor"), also="tests/ledger/test_anchor.py")
def monitor(stage: Stage, case: str | None) -> Ran:
    return _following(stage, case, "monitor", '"epoch": 3')


@scene(*_lies("signer"), also="tests/ledger/test_anchor.py")
def signer(stage: Stage, case: str | None) -> Ran:
    what, when = _case(case)
    logs = Logs.make(stage, what)
    process = stage.process("signer")
    process.wait_for_line('"active"')
    if when == RESTART:
        process.stop()
    if logs.lie is not None:
        logs.tell(stage)
    if when == RESTART:
        process = stage.process("signer")
    if case is None:
        return process.stop()
    return process.end()


@scene(*_lies("frontend", 503), control=200, also="tests/ledger/test_anchor.py")
def frontend(stage: Stage, case: str | None) -> Ran:
    what, when = _case(case)
    logs = Logs.make(stage, what)
    process, url = serving(stage)
    stage.until(lambda: ready(url) == "", "the front end is ready")
    if when == RESTART:
        process.stop()
    logs.tell(stage)
    if when == RESTART:
        process, url = serving(stage)
    if case is None:
        stage.until(lambda: '"epoch": 4' in process.spoken or _epoch(url) == 4, "it goes on")
        return answered(url)
    stage.until(lambda: any(one in ready(url) for one in (_BACK, _TWO)), "it says why it is not ready")
    return answered(url)


def serving(stage: Stage) -> tuple[Process, str]:
    process = stage.process("frontend", "--listen", "127.0.0.1:0")
    return process, process.wait_for_line(" at http://").rpartition(" at ")[2].strip()


def ready(url: str) -> str:
    """Return what is missing according to ``/readyz``."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        return f"does not answer: {error}"
    return "" if answer.status_code == 200 else str(answer.json()["detail"])


def _epoch(url: str) -> int:
    answer = httpx.get(f"{url}/v1/heads/latest", timeout=10, trust_env=False)
    return int(answer.json().get("epoch", 0))


def answered(url: str) -> Ran:
    """Return the status of a lookup in place of an exit code, and the answer of ``/readyz``."""
    answer = httpx.post(f"{url}/v1/lookup", json={"label": ALICE}, timeout=10, trust_env=False)
    return Ran(answer.status_code, "", json.dumps(ready(url)))


@scene(
    lie("no-heads-at-all", BY_LOG, "kt audit", 1, "kt_heads-", case="heads"),
    lie("no-such-directory", BY_LOG, "kt audit", 1, "kt_heads-", case="directory"),
    lie("silence", BY_SIGNER, "kt audit", 7, "silence for", case="silence"),
    lie("head-in-the-future", BY_SIGNER, "kt audit", 7, "later than this machine's clock", case="future"),
    lie("gap-between-heads", BY_SIGNER, "kt audit", 7, "gap between heads", case="gap"),
    lie("date-that-is-none", BY_SIGNER, "kt audit", 4, "map head timestamp: must be in", case="date"),
    lie("interval-of-years", BY_SIGNER, "kt audit", 4, "says config, must be malformed", case="interval"),
    also="tests/ledger/test_clock.py",
)
def clocks(stage: Stage, case: str | None) -> Ran:
    universe = _timed(stage, case)
    if case == "heads":
        stage.write(universe, heads=[], records=[])
    elif case != "directory":
        stage.write(universe)
    return stage.audit()


def _timed(stage: Stage, case: str | None) -> Universe:
    hour = 3_600_000
    universe = stage.universe(max_interval=10_000, begin=hour if case in ("silence", "gap") else 9_000)
    universe.put("alice")
    universe.epoch()
    if case == "interval":
        current = universe.config
        longer = replace(current, max_interval=31 * 24 * hour, previous=current.hash)
        universe.configure(longer, [SIGNER], Verdict.CONFIG)
    at = {
        "future": universe.clock + hour,
        "gap": universe.clock + hour - 1_000,
        "date": 253_402_300_800_000,
    }.get(case or "")
    universe.epoch(at=at)
    return universe


@scene(
    lie(
        "silence-ends-a-monitor",
        BY_SIGNER,
        "kt monitor --exit-on-silence",
        7,
        "silence",
        LIVE,
        "silence exit",
    ),
    lie("silence-alarms-a-monitor", BY_SIGNER, "kt monitor", 0, "silence", LIVE, "silence"),
    lie(
        "future-head-alarms-a-monitor",
        BY_SIGNER,
        "kt monitor",
        0,
        "later than this machine's",
        LIVE,
        "future",
    ),
    lie("gap-alarms-a-monitor", BY_SIGNER, "kt monitor", 0, "after the one before", LIVE, "gap"),
    also="tests/projections/test_monitor_clock.py",
)
def watchman(stage: Stage, case: str | None) -> Ran:
    """A monitor verifies every head. A head that contradicts its clock also causes an alarm."""
    stage.write(_timed(stage, (case or "").partition(" ")[0]))
    process = stage.process("monitor", *(["--exit-on-silence"] if case in (None, "silence exit") else []))
    if case == "silence exit":
        return process.end()
    process.wait_for_line('"epoch": 2' if case is None else "clock alarm")
    return process.stop()


@scene(
    lie(
        "convicted-audit-resumes", BY_SIGNER, "kt audit --data", 5, "That was proven before", RESTART, "audit"
    ),
    lie(
        "convicted-monitor-resumes", BY_SIGNER, "kt monitor", 5, "That was proven before", RESTART, "monitor"
    ),
    also="tests/ledger/test_convicting.py",
)
def convicted_followers(stage: Stage, case: str | None) -> Ran:
    """After a contradiction, the operator shows the log that was verified first again."""
    logs = Logs.make(stage, None if case is None else "fork")

    def look() -> Ran:
        if case != "monitor":
            return stage.audit("--data", "kept")
        return stage.process("monitor").end()

    stage.audited("--data", "kept")
    if case == "monitor":
        process = stage.process("monitor")
        process.wait_for_line('"epoch": 3')
        process.stop()
    logs.tell(stage)
    if case is not None:
        look()
        stage.back()
    return look()


@scene(
    lie("evidence-of-an-audit", BY_SIGNER, "kt verify", 5, _TWO, RESTART),
    also="tests/e2e/test_cli_equivocation.py",
)
def audit_evidence(stage: Stage, case: str | None) -> Ran:
    """Evidence that an audit saves convicts the directory for every reader."""
    logs = Logs.make(stage, None if case is None else "fork")
    stage.audited("--data", "kept")
    logs.tell(stage)
    ran = stage.audit("--data", "kept")
    if case is None:
        return ran
    where = ran.err.partition("the evidence is in ")[2].partition(";")[0]
    return stage.kt("verify", where or "the-audit-saved-no-evidence")
