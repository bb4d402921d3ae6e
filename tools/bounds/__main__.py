"""``python -m tools.bounds --items N --kind KIND...``: what bounds an epoch, measured on real processes.

Of the kinds whose items are large there are fewer: a million of them would be a terabyte.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tools.bounds.items import KINDS, ONE_OF
from tools.bounds.running import MeasuredBounds, breaches, measure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bounds")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=list(KINDS), nargs="+", default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=1800.0, help="the most that one run may take")
    parser.add_argument("--data", type=Path, help="where to put the directories; default temporary")
    options = parser.parse_args()
    results: list[MeasuredBounds] = []
    for kind in options.kind:
        with tempfile.TemporaryDirectory(prefix="kt-bounds-", dir=options.data) as directory:
            items = max(1, options.items // ONE_OF.get(kind, 1))
            results.append(measure(Path(directory), kind, items, report, options.seconds))
            report(row(results[-1]))
    print("| items | in one epoch | queue | signer | node | log of mutations | seconds |")
    print("|---|---|---|---|---|---|---|")
    for result in results:
        print(row(result))
    broken = [f"{result.kind}: {breach}" for result in results for breach in breaches(result)]
    for breach in broken:
        report(breach)
    return 1 if broken else 0


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def row(result: MeasuredBounds) -> str:
    return (
        f"| {result.items:,} {result.kind} | {result.largest_epoch:,} "
        f"| {result.queue_events:,} events, {result.queue_bytes / 1e6:,.0f} MB "
        f"| {result.signer_mb:.0f} MB | {result.node_mb:.0f} MB "
        f"| {result.log_events:,} events, {result.log_bytes / 1e6:,.0f} MB | {result.seconds:.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
