"""``kt bench``: how fast the parts are on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from kt_es.cli.output import output_of
from kt_es.cli.trials.bench_map import bench_map
from kt_es.cli.trials.bench_node import RUNS, bench_node
from kt_es.cli.trials.bench_recovery import ENTRIES, bench_recovery
from kt_es.cli.trials.bench_report import Row, report, report_lines
from kt_es.cli.trials.bench_signer import bench_signer
from kt_es.errors import KtError

BENCHES: dict[str, Callable[[Path], list[Row]]] = {
    "map": bench_map,
    "signer": bench_signer,
    "node": bench_node,
}
# Not part of `all`, because a run of full size takes a quarter of an hour.
LONG = ("recovery",)


@click.command("bench")
@click.argument("which", type=click.Choice([*BENCHES, *LONG, "all"]))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@click.option(
    "--entries", type=click.IntRange(1), default=ENTRIES, show_default=True, help="Of `recovery`: in the map."
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=RUNS,
    show_default=True,
    help="Of `node`: how many, for medians.",
)
@click.pass_context
def bench_command(context: click.Context, which: str, as_json: bool, entries: int, runs: int) -> None:
    """Measure the map (updates/s), the signer (mutations/s), the node (events/s) or the way back of
    processes (`recovery`).

    Ends with exit code 1 if a figure misses its limit.
    """
    output = output_of(context)
    output.json |= as_json
    names = list(BENCHES) if which == "all" else [which]
    rows: list[Row] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="kt-bench-") as directory:
            at = Path(directory)
            if name in LONG:
                rows += bench_recovery(at, entries)
            elif name == "node":
                rows += bench_node(at, runs=runs)
            else:
                rows += BENCHES[name](at)
    output.data(report(which, rows), report_lines(which, rows))
    missed = [row.name for row in rows if not row.kept]
    if missed:
        raise KtError(f"below its limit: {', '.join(missed)}")
