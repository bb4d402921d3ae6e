"""Torture a directory of real processes; ``make torture ROUNDS=n`` runs it."""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tools.torture.rounds import Options, Torture


def main() -> int:
    """Run a torture. Return 0 if every check passed; otherwise keep and name data and logs, and return 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, help="of every draw; default a random one, printed first")
    parser.add_argument("--seconds", type=float, default=7200.0, help="no round begins after that long")
    parser.add_argument(
        "--frozen", type=float, default=120.0, help="how long the node is frozen once; 0: never"
    )
    parser.add_argument("--data", type=Path, help="a new directory, kept; default a temporary one")
    arguments = parser.parse_args()
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    options = Options(arguments.rounds, seed, arguments.seconds, arguments.frozen)
    report(f"seed {seed}")
    base = arguments.data or Path(tempfile.mkdtemp(prefix="kt-torture-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    torture = Torture(options, base, report)
    try:
        torture.run()
    except BaseException as error:
        summary(torture)
        report(f"FAILED with seed {seed}: {type(error).__name__}: {error}")
        report(f"data and logs are kept in {base}")
        if isinstance(error, Exception):
            return 1
        raise
    summary(torture)
    if arguments.data is None:
        shutil.rmtree(base)
    report(f"clean, seed {seed}")
    return 0


def summary(torture: Torture) -> None:
    for line in torture.result.lines():
        report(line)


def report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
