"""``kt bench`` in two environments by turns, since a machine's speed drifts while it measures: a program.

  python -m tools.beside BENCH ROUNDS KT KT

``KT`` is the command ``kt`` of an environment: of another commit, or with another client library. Prints the
median of each figure in both, and how the second compares with the first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

OK = (0, 1)  # 1 says that a figure missed its limit: it is a figure all the same


@dataclass(slots=True)
class Side:
    """What one environment came to: its client library, and by figure the values of all rounds."""

    client: str = ""
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def take(self, report: dict[str, Any]) -> None:
        """Add the report of a round."""
        # Commits before this program do not say which library they use.
        self.client = report.get("client", "")
        for row in report["rows"]:
            self.values.setdefault((row["name"], row["unit"]), []).append(row["value"])


def table(first: Side, second: Side) -> list[str]:
    """Both sides as the lines of a table in Markdown."""
    lines = [
        f"| figure | unit | {first.client or 'first'} | {second.client or 'second'} | second / first |",
        "|---|---|---:|---:|---:|",
    ]
    for (name, unit), values in first.values.items():
        others = second.values.get((name, unit))
        if others:
            one, other = median(values), median(others)
            lines.append(f"| {name} | {unit} | {one:,.1f} | {other:,.1f} | {other / one:.2f} |")
    return lines


def run(kt: str, bench: str) -> dict[str, Any]:
    """The report of one run. Raises ``CalledProcessError`` if there is none."""
    done = subprocess.run(
        [kt, "--json", "-q", "bench", bench, "--runs", "1"], stdout=subprocess.PIPE, check=False
    )
    if done.returncode not in OK:
        raise subprocess.CalledProcessError(done.returncode, done.args)
    report = json.loads(done.stdout)
    if not isinstance(report, dict) or "rows" not in report:
        raise ValueError(f"{kt} printed no report: {report}")
    return report


def main(arguments: Sequence[str]) -> None:
    bench, rounds, *commands = arguments
    first, second = Side(), Side()
    for number in range(int(rounds)):
        turns = [(first, commands[0]), (second, commands[1])]
        for side, kt in turns if number % 2 == 0 else turns[::-1]:
            side.take(run(kt, bench))
    print("\n".join(table(first, second)))


if __name__ == "__main__":
    main(sys.argv[1:])
