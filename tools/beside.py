"""Program that runs ``kt bench`` in two environments by turns, because the speed of a machine drifts.

  python -m tools.beside BENCH ROUNDS KT KT

``KT`` is the command ``kt`` of an environment, for instance of another commit or with another client library.
The program prints the median of each measurement in both environments, and the ratio of the second to the
first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

OK = (0, 1)  # 1 means that a measurement missed its limit; it still counts


@dataclass(slots=True)
class Side:
    """The results of one environment: its client library, and the values of all rounds by measurement."""

    client: str = ""
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def take(self, report: dict[str, Any]) -> None:
        """Add the report of a round."""
        # Reports of commits older than this program do not name the library.
        self.client = report.get("client", "")
        for row in report["rows"]:
            self.values.setdefault((row["name"], row["unit"]), []).append(row["value"])


def table(first: Side, second: Side) -> list[str]:
    """Return the lines of a Markdown table that compares both sides."""
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
    """Run the benchmark once and return its report. Raises ``CalledProcessError`` if it fails."""
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
