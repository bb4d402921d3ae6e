"""Program that draws what a lookup costs against the size of the map, from reports of ``kt bench shared``.

  python -m tools.lookups_figure FIGURE.svg REPORT.json...

Each report is the output of ``kt bench shared --json`` at another number of entries. The program needs
matplotlib: ``pip install -c constraints.txt -e '.[plot]'``. The same reports give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Report = Mapping[str, float]
"""The values of one report, by the names of their rows."""

KINDS = {"local": "#1f6fb4", "thin": "#d2691e"}
"""The kinds of front end, with their colours."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: its title, its axis, and the rows of each kind with the styles of their lines."""

    title: str
    axis: str
    rows: Mapping[str, str]
    is_logarithmic: bool = False


PANELS = (
    Panel(
        "Find in the map, with proof",
        "µs",
        {"first find in the map": "--", "repeated find in the map": "-"},
        is_logarithmic=True,
    ),
    Panel("Pages read by a first find", "pages", {"pages read by a first find": "--"}),
    Panel("Lookups over HTTP", "lookups/s", {"first lookups": "--", "repeated lookups": "-"}),
)


def read_reports(documents: Iterable[str]) -> list[Report]:
    """Return the reports in ``documents``, the one with the fewest entries first.

    Raises ``ValueError`` for a document that is no report of ``kt bench shared``.
    """
    reports = []
    for document in documents:
        report = json.loads(document)
        if not isinstance(report, dict) or report.get("bench") != "shared":
            raise ValueError("it is no report of kt bench shared --json")
        reports.append({row["name"]: float(row["value"]) for row in report["rows"]})
    return sorted(reports, key=lambda report: report["entries"])


def draw(reports: Sequence[Report], figure: Path) -> None:
    """Draw ``reports`` into the file ``figure``, whose suffix is the format."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A fixed salt gives the same names of shapes each time.
    mpl.rcParams.update({"svg.hashsalt": "kt-es", "font.size": 9})
    drawing: Any = Figure(figsize=(11, 3.8), layout="constrained", facecolor="white")
    for axes, panel in zip(drawing.subplots(1, len(PANELS)), PANELS, strict=True):
        _draw_panel(axes, panel, reports)
    metadata = {"Date": None} if figure.suffix == ".svg" else None
    drawing.savefig(figure, dpi=150, metadata=metadata)


def _draw_panel(axes: Any, panel: Panel, reports: Sequence[Report]) -> None:
    entries = [report["entries"] for report in reports]
    # The pages of both kinds are the same: one line.
    kinds = {"thin": "#444444"} if panel.axis == "pages" else KINDS
    for kind, colour in kinds.items():
        for row, style in panel.rows.items():
            label = "both kinds" if panel.axis == "pages" else f"{kind}, {row.split()[0]}"
            values = [report[f"{kind}: {row}"] for report in reports]
            axes.plot(entries, values, style, color=colour, marker="o", markersize=4, label=label)
    axes.set_xscale("log")
    if panel.is_logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.set_ylim(bottom=0)
        if panel.axis != "pages":
            axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(panel.title)
    axes.set_xlabel("entries in the map")
    axes.set_ylabel(panel.axis)
    axes.grid(visible=True, which="major", color="#dddddd")
    axes.legend(frameon=False)


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
