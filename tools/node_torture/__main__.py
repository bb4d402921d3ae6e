"""Kills a node again and again; ``make torture-node ROUNDS=n`` runs it."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tools.node_torture.rounds import Torture


def main() -> int:
    """Run a torture. Return 0 if every check passed; otherwise keep and name the data, and return 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.node_torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, help="of every draw; default a random one, printed first")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    report(f"seed {seed}")
    base = Path(tempfile.mkdtemp(prefix="kt-node-torture-"))
    torture = Torture(base, seed, options.rounds, report)
    try:
        torture.run()
    except Exception as error:
        report(f"FAILED with seed {seed}: {error}")
        report(f"{torture.result}; data are kept in {base}")
        return 1
    report(str(torture.result))
    shutil.rmtree(base)
    return 0


def report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
