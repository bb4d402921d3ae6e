"""The picture of ``kt bench all``: what each part costs against the number of entries, beside its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

from kt_es.cli.trials.figures import AKD_PUBLISH, PER_SECOND, Figure
from kt_es.errors import ConfigError
from kt_es.extras import require

FORMATS = (".png", ".svg", ".pdf")
INCHES = (13.0, 8.4)
DPI = 110
_LIMIT_STYLES = ("--", ":", "-.")
_GREY = "#555555"


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram.

    Attributes:
        title: What it shows.
        unit: The label of its vertical axis. A rate is drawn as its inverse, in µs.
        figures: What is drawn, by part and name, with the words of the legend and the colour.
        is_logarithmic: Costs and limits differ by powers of ten.
    """

    title: str
    unit: str
    figures: Mapping[tuple[str, str], tuple[str, str]]
    is_logarithmic: bool = False


_MAP, _SIGNER, _REPLICA, _FRONTEND, _LOG = "#1f6fb4", "#c0392b", "#7d3c98", "#d2691e", "#2e7d32"

PANELS = (
    Panel("Update of the map", "µs per update", {("map", "updates"): ("map", _MAP)}, is_logarithmic=True),
    Panel(
        "Mutations: decided, and replayed",
        "µs per mutation",
        {
            ("signer", "mutations"): ("signer, queue to head", _SIGNER),
            ("replica", "records"): ("replica", _REPLICA),
        },
        is_logarithmic=True,
    ),
    Panel(
        "Lookup over HTTP, again",
        "µs per lookup",
        {("front end", "lookups"): ("front end", _FRONTEND)},
        is_logarithmic=True,
    ),
    Panel("Append to the log", "µs per mutation", {("log", "appends"): ("log", _LOG)}, is_logarithmic=True),
    Panel(
        "Peak memory of a process",
        "MB",
        {
            ("map", "peak memory"): ("map", _MAP),
            ("signer", "peak memory"): ("signer", _SIGNER),
            ("replica", "peak memory"): ("replica", _REPLICA),
            ("front end", "peak memory"): ("front end", _FRONTEND),
            ("log", "peak memory"): ("log", _LOG),
        },
    ),
    Panel(
        "Disk",
        "bytes per entry",
        {
            ("map", "disk, with entries"): ("map and entries", _MAP),
            ("log", "disk"): ("log, one copy of the queue", _LOG),
        },
    ),
)


def check_picture(path: Path) -> None:
    """Check before a long run that the picture can be written to ``path`` after it.

    Raises:
        ConfigError: matplotlib is not installed, the folder is missing, or the suffix is no format.
    """
    require("plot", "--plot")
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path} is no picture: its name must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}")


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Draw ``figures`` into the file ``path``, whose suffix is the format.

    A line has the medians, and a bar at each point goes from the least to the most of the turns.

    Raises:
        ConfigError: The file cannot be written.
    """
    from matplotlib.figure import Figure as Drawing

    drawing: Any = Drawing(figsize=INCHES, layout="constrained", facecolor="white")
    for axes, panel in zip(drawing.subplots(2, len(PANELS) // 2).flat, PANELS, strict=True):
        _draw_panel(axes, panel, figures)
    drawing.suptitle("kt bench all: cost against size; grey lines were measured alone in the same run")
    try:
        drawing.savefig(path, dpi=DPI)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _draw_panel(axes: Any, panel: Panel, figures: Sequence[Figure]) -> None:
    limits: dict[str, list[tuple[int, float]]] = {}
    for (part, name), (words, colour) in panel.figures.items():
        found = sorted(
            (figure for figure in figures if (figure.part, figure.name) == (part, name)),
            key=lambda figure: figure.entries,
        )
        runs = [[_cost(figure, value) for value in figure.runs] for figure in found]
        middle = [_cost(figure, figure.value) for figure in found]
        spread = [
            [value - min(values) for value, values in zip(middle, runs, strict=True)],
            [max(values) - value for value, values in zip(middle, runs, strict=True)],
        ]
        sizes = [figure.entries for figure in found]
        axes.errorbar(
            sizes, middle, yerr=spread, color=colour, marker="o", markersize=4, capsize=3, label=words
        )
        for figure in found:
            for limit in figure.limits:
                at = figure.entries, _cost(figure, figure.limit(limit))
                # The limit of a second figure is the same one, measured at another time.
                if at[0] not in dict(limits.setdefault(limit, [])):
                    limits[limit].append(at)
    for number, (limit, points) in enumerate(limits.items()):
        sizes, costs = [size for size, _ in points], [cost for _, cost in points]
        style = _LIMIT_STYLES[number % len(_LIMIT_STYLES)]
        axes.plot(sizes, costs, style, color=_GREY, marker=".", label=_words(limit))
    _scale(axes, panel, sorted({figure.entries for figure in figures}))


def _scale(axes: Any, panel: Panel, sizes: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
    axes.set_xticks(sizes, [_short(size) for size in sizes], minor=False)
    axes.minorticks_off()
    if panel.is_logarithmic:
        axes.set_yscale("log")
        # Whole powers of ten, so that at least two of them have a label.
        low, high = axes.get_ylim()
        axes.set_ylim(10 ** floor(log10(low)), 10 ** ceil(log10(high)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    axes.set_title(panel.title)
    axes.set_xlabel("entries")
    axes.set_ylabel(panel.unit)
    axes.grid(visible=True, which="major", color="#dddddd")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1, frameon=False, fontsize=9)


def _cost(figure: Figure, value: float) -> float:
    """Return a rate as µs each; any other value as it is."""
    return 1e6 / value if figure.unit.endswith(PER_SECOND) else value


def _words(limit: str) -> str:
    return limit if limit == AKD_PUBLISH else f"limit: {limit}"


def _short(size: int) -> str:
    for unit, suffix in ((1_000_000, " M"), (1_000, " k")):
        if size >= unit:
            return f"{size / unit:g}{suffix}"
    return str(size)
