"""``python -m tools.abuse``: each attack against a real front end while another client looks accounts up.

Ends with 1 if that client was refused once, if it waited longer than ``--p99`` ms in one of a hundred
lookups, or if the front end ended.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.abuse.attacks import NAMES, OVER_TLS
from tools.abuse.bystander import Bystander, Seen
from tools.abuse.stage import Stage, stage

NONE = "no attack"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.abuse")
    parser.add_argument("--only", help="attacks with this in their name")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each attack")
    parser.add_argument("--p99", type=float, default=250.0, help="ms for 99 of 100 lookups")
    options = parser.parse_args()
    failures: list[str] = []
    chosen = [name for name in NAMES if options.only is None or options.only in name]
    print("| attack | lookups | p50 ms | p99 ms | refused | files | memory MB | the attacker was told |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for tls in (False, True):
        names = [name for name in chosen if (name in OVER_TLS) == tls]
        if not names:
            continue
        with (
            tempfile.TemporaryDirectory(prefix="kt-abuse-") as data,
            stage(Path(data) / "stage", tls=tls) as made,
        ):
            for name in (NONE, *names):
                failures += _run(made, name, options.seconds, options.p99)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _run(made: Stage, name: str, seconds: float, most: float) -> list[str]:
    """Run one attack, print its row, and return the problems."""
    told = "{}"
    files = 0
    with Bystander(made) as other:
        if name == NONE:
            command = ["sleep", str(min(seconds, 10))]
        else:
            command = [sys.executable, "-m", "tools.abuse.attacks", name, str(made.port), str(seconds)]
        attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        while True:
            try:
                told = attacker.communicate(timeout=0.5)[0] or "{}"
                break
            except subprocess.TimeoutExpired:
                files = max(files, made.files if made.process.poll() is None else 0)
    seen = other.seen
    row = [
        name, f"{len(seen.seconds)}", f"{seen.quantile(0.5):.1f}", f"{seen.quantile(0.99):.1f}",
        f"{len(seen.refused)}", f"{files}", f"{made.resident_mb:.0f}" if made.process.poll() is None else "-",
        ", ".join(f"{what} {count}" for what, count in sorted(json.loads(told).items())),
    ]  # fmt: skip
    print("| " + " | ".join(row) + " |", flush=True)
    return [f"{name}: {problem}" for problem in _problems(made, seen, most, attacker.returncode)]


def _problems(made: Stage, seen: Seen, most: float, code: int) -> list[str]:
    problems = []
    if code:
        problems.append(f"the attacker ended with {code}")
    if made.process.poll() is not None:
        problems.append(f"the front end ended with {made.process.returncode}")
    if seen.refused:
        problems.append(f"{len(seen.refused)} lookups refused: {sorted(set(seen.refused))}")
    if seen.quantile(0.99) >= most:
        problems.append(f"p99 {seen.quantile(0.99):.0f} ms, not below {most:.0f}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
