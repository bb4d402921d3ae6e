"""Coverage-guided runs, one process for each target, and their results."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.fuzz.seeds import seeds
from tools.fuzz.targets import ANY, QUICK

ROOT = Path(__file__).parents[2]
MAX_INPUT = 64 * 1024
# Seconds for one input. It may take one second, but instrumented code on a busy machine is slower.
TIMEOUT = 5
MEMORY_MB = 1024
# Seconds that a run has in addition, to start and to end.
GRACE = 120


@dataclass(frozen=True, slots=True)
class FuzzOutcome:
    """The run of one target. ``findings`` are the inputs that broke it, and ``report`` is the output."""

    target: str
    executions: int
    per_second: int
    coverage: int
    findings: tuple[Path, ...]
    failed: bool
    report: str


def fuzz(target: str, seconds: int, corpus: Path, seed: int, timeout: int = TIMEOUT) -> FuzzOutcome:
    """Fuzz ``target``. Its corpus and its findings are kept under ``corpus``.

    An input that takes longer than ``timeout`` seconds is a finding.
    """
    inputs, found = corpus / target, corpus / "findings" / target
    for folder in (inputs, found):
        folder.mkdir(parents=True, exist_ok=True)
    for data in _seeds(target):
        (inputs / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    before = set(found.iterdir())
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={timeout}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={MAX_INPUT}",
        f"-seed={seed}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
    ]
    command = [sys.executable, "-m", "tools.fuzz.engine", target, *options, str(inputs)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, timeout=seconds + GRACE, check=False, stdin=subprocess.DEVNULL
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    return FuzzOutcome(
        target,
        _number(r"stat::number_of_executed_units:\s+(\d+)", said),
        _number(r"stat::average_exec_per_sec:\s+(\d+)", said),
        _number(r"cov: (\d+)", said),
        tuple(sorted(set(found.iterdir()) - before)),
        done.returncode != 0,
        _report(said.splitlines()),
    )


def _seeds(target: str) -> list[bytes]:
    known = seeds()
    if target != ANY:
        return known[target]
    return [bytes((number,)) + data for number, name in enumerate(QUICK) for data in known[name]]


def _number(pattern: str, text: str) -> int:
    numbers = re.findall(pattern, text)
    return int(numbers[-1]) if numbers else 0


def _report(lines: Sequence[str]) -> str:
    """Return the last lines of the output, without those in which libFuzzer reports its progress."""
    kept = [line for line in lines if not re.match(r"(#\d+|INFO|stat::|\"|#+ )", line)]
    return "\n".join(kept[-40:])
