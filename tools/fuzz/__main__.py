"""``python -m tools.fuzz TARGET|all --seconds N [--corpus DIR]``: coverage-guided fuzzing of our own code.

The exit code is 1 if anything was found. Every finding is printed as a case for ``regressions.json``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import secrets
import sys
import tempfile
from pathlib import Path

from tools.fuzz.running import FuzzOutcome, fuzz
from tools.fuzz.targets import TARGETS

# Time of the deeper targets, as a multiple of the time of a decoder.
WEIGHTS = {"decision": 5, "queue": 5, "json": 2, "proof": 2, "lookup": 2, "snapshot": 2}
_SHOWN_INPUT = 4096


def main() -> int:
    arguments = _arguments()
    if importlib.util.find_spec("atheris") is None:
        print(
            "atheris is not installed: pip install -e '.[fuzz]' (Linux on x86-64 has wheels)", file=sys.stderr
        )
        return 2
    names = list(TARGETS) if arguments.target == "all" else [arguments.target]
    total = sum(WEIGHTS.get(name, 1) for name in names)
    print(f"{len(names)} targets in {arguments.seconds} s, seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="kt-fuzz-") as folder:
        corpus = (arguments.corpus or Path(folder)).resolve()
        outcomes = []
        for name in names:
            seconds = max(1, arguments.seconds * WEIGHTS.get(name, 1) // total)
            outcomes.append(fuzz(name, seconds, corpus, arguments.seed))
            _show(outcomes[-1])
    failed = [outcome.target for outcome in outcomes if outcome.failed]
    executions = sum(outcome.executions for outcome in outcomes)
    print(f"{executions} executions; " + (f"findings in {', '.join(failed)}" if failed else "no findings"))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("target", choices=["all", *TARGETS], metavar="TARGET|all", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--corpus", type=Path, help="where inputs and findings are kept between runs")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31 - 1) + 1)
    return parser.parse_args()


def _show(outcome: FuzzOutcome) -> None:
    print(
        f"{outcome.target:22} {outcome.executions:>10} executions {outcome.per_second:>7}/s "
        f"{outcome.coverage:>5} edges  {'FAILED' if outcome.failed else 'ok'}",
        flush=True,
    )
    if outcome.failed:
        print(outcome.report)
    for path in outcome.findings:
        data = path.read_bytes()
        shown = data.hex() if len(data) <= _SHOWN_INPUT else f"{len(data)} bytes in {path}"
        print(json.dumps({"name": path.name[:24], "target": outcome.target, "hex": shown}))


if __name__ == "__main__":
    sys.exit(main())
