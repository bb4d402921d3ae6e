"""Program that draws what a lookup costs against the size of the map, from reports of ``kt bench shared``.

  python -m tools.lookups_figure FIGURE.svg REPORT.json...

Each report is the output of ``kt bench shared --json``. Several reports of the same number of entries count
as one with the runs of all. The same reports give the same bytes. The program needs matplotlib:
``pip install -c constraints.txt -e '.[plot]'``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

Report = Mapping[str, float]
"""Medians by the names of their rows."""

KINDS = {"local": "#1f6fb4", "thin": "#d2691e"}
"""The kinds of front end, with their colours."""
FIRST, REPEATED = "--", "-"
"""The lines of first lookups, which read from the store, and of those that find all in memory."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: its title, its unit, and the rows that it shows of each kind, with their lines."""

    title: str
    unit: str
    rows: Mapping[str, str]
    kinds: Mapping[str, str] = field(default_factory=lambda: KINDS)
    is_logarithmic: bool = False


PANELS = (
    Panel(
        "Finding an index with its proof",
        "µs",
        {"first find in the map": FIRST, "repeated find in the map": REPEATED},
        is_logarithmic=True,
    ),
    # Both kinds read the same pages.
    Panel(
        "Pages read by a first find, both kinds",
        "pages",
        {"pages read by a first find": FIRST},
        {"thin": "#444444"},
    ),
    Panel("Lookups over HTTP", "lookups/s", {"first lookups": FIRST, "repeated lookups": REPEATED}),
)


def read_reports(documents: Iterable[str]) -> list[Report]:
    """Return a report for each number of entries, the smallest first: the medians of all of its runs.

    Raises ``ValueError`` for a document that is no report of ``kt bench shared``.
    """
    runs: dict[float, dict[str, list[float]]] = {}
    for document in documents:
        report = json.loads(document)
        if not isinstance(report, dict) or report.get("bench") != "shared":
            raise ValueError("it is no report of kt bench shared --json")
        rows = {row["name"]: row["runs"] for row in report["rows"]}
        of_size = runs.setdefault(rows["entries"][0], {})
        for name, values in rows.items():
            of_size.setdefault(name, []).extend(values)
    return [{name: median(values) for name, values in of_size.items()} for _, of_size in sorted(runs.items())]


def draw(reports: Sequence[Report], figure: Path) -> None:
    """Draw ``reports`` into the file ``figure``, whose suffix is the format."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A fixed salt gives the same names of shapes each time.
    mpl.rcParams.update({"svg.hashsalt": "kt-es", "font.size": 9})
    drawing: Any = Figure(figsize=(11, 3.8), layout="constrained", facecolor="white")
    for axes, panel in zip(drawing.subplots(1, len(PANELS)), PANELS, strict=True):
        _draw_panel(axes, panel, reports)
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    metadata = {"Date": None} if figure.suffix == ".svg" else None
    drawing.savefig(figure, dpi=150, metadata=metadata)


def _draw_panel(axes: Any, panel: Panel, reports: Sequence[Report]) -> None:
    entries = [report["entries"] for report in reports]
    for kind, colour in panel.kinds.items():
        for row, style in panel.rows.items():
            values = [report[f"{kind}: {row}"] for report in reports]
            name = f"{kind}, {'first' if style == FIRST else 'repeated'}"
            axes.plot(entries, values, style, color=colour, marker="o", markersize=4, label=name)
    axes.set_xscale("log")
    axes.set_xticks(entries, [f"{count:,.0f}" for count in entries], minor=False)
    axes.minorticks_off()
    if panel.is_logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(panel.title)
    axes.set_xlabel("entries in the map")
    axes.set_ylabel(panel.unit)
    axes.grid(visible=True, which="major", color="#dddddd")


def main(arguments: Sequence[str]) -> None:
    """Draw the reports that ``arguments`` name. Ends the program with the reason if that cannot be done."""
    if len(arguments) < 2:
        sys.exit(__doc__)
    figure, *names = map(Path, arguments)
    try:
        reports = read_reports(name.read_text() for name in names)
        figure.parent.mkdir(parents=True, exist_ok=True)
        draw(reports, figure)
    except ImportError:
        sys.exit("matplotlib is not installed: pip install -c constraints.txt -e '.[plot]'")
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{', '.join(map(str, names))}: cannot be drawn: {error!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
