"""``kt bench``: how fast the parts are on this machine; and the measurement of the map over RocksDB."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import click
from click.core import ParameterSource

from kt_es.cli.output import Output, output_of
from kt_es.cli.trials.bench_all import LEAST_ENTRIES, SIZES, TURNS, Amounts, bench_all
from kt_es.cli.trials.bench_batch import bench_batch
from kt_es.cli.trials.bench_frontend import bench_frontend
from kt_es.cli.trials.bench_monitor import bench_monitor
from kt_es.cli.trials.bench_node import RUNS, bench_node
from kt_es.cli.trials.bench_report import Row, peak_memory, report, report_lines
from kt_es.cli.trials.bench_shared import bench_shared
from kt_es.cli.trials.bench_signer import ENTRIES, bench_recovery, bench_signer
from kt_es.cli.trials.figures import document, table
from kt_es.cli.trials.picture import check_picture, draw
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, KtError
from kt_es.ledger.pages import PageTable, page_cache
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.map import EMPTY_ROOT, Map, Root
from kt_es.merkle.verify import map_root, require_root

Update = tuple[bytes, bytes]
LEAST_UPDATES_PER_SECOND = 15_000
PROOFS = 1_000
_DIGITS = 9
_STRIDE = 7_919
"""A prime, so that the steps of a run spread over all entries and name none twice."""
_USED_BY = {
    "entries": ("recovery", "batch", "monitor", "shared"),
    "runs": ("node",),
    "workers": ("frontend",),
    "beside": ("frontend",),
    "shared": ("signer", "shared"),
    **dict.fromkeys(("sizes", "turns", "plot", "akd"), ("all",)),
}
"""Options, and the benches that have them."""


class Sizes(click.ParamType[tuple[int, ...]]):
    """Numbers of entries with commas between them, ascending, each once."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        words = str(value).split(",")
        if not all(word.isascii() and word.isdigit() and 0 < len(word) <= _DIGITS for word in words):
            self.fail(f"{value!r} is no list of numbers such as 10000,100000", param, ctx)
        sizes = tuple(sorted({int(word) for word in words}))
        if sizes[0] < LEAST_ENTRIES:
            self.fail(f"{sizes[0]} entries are too few to measure: at least {LEAST_ENTRIES}", param, ctx)
        return sizes


@click.command("bench")
@click.argument(
    "which",
    type=click.Choice(["map", "signer", "node", "recovery", "frontend", "batch", "monitor", "shared", "all"]),
)
@click.option(
    "--entries",
    type=click.IntRange(1),
    default=ENTRIES,
    show_default=True,
    help="Of `recovery`, `batch`, `monitor` and `shared`: in the map.",
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=RUNS,
    show_default=True,
    help="Of `node`: how many, for medians.",
)
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Of `frontend`: its processes."
)
@click.option(
    "--beside",
    metavar="KT",
    help="Of `frontend`: the command kt of another environment, whose front end is measured by turns.",
)
@click.option(
    "--shared",
    metavar="URI",
    help="Of `signer` and `shared`: keep the map in this store, in a keyspace that does not exist yet.",
)
@click.option(
    "--sizes",
    type=Sizes(),
    default=",".join(map(str, SIZES)),
    show_default=True,
    metavar="N,N...",
    help="Of `all`: the entries, one measurement for each.",
)
@click.option("--turns", type=click.IntRange(1), default=TURNS, show_default=True, help="Of `all`: how many.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Of `all`: draw cost against size into this file, .png, .svg or .pdf.",
)
@click.option(
    "--akd",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PROGRAM",
    help="Of `all`: measure this program beside the signer (tools/akd).",
)
@click.pass_context
def bench_command(
    context: click.Context,
    which: str,
    entries: int,
    runs: int,
    workers: int,
    beside: str | None,
    shared: str | None,
    sizes: tuple[int, ...],
    turns: int,
    plot: Path | None,
    akd: Path | None,
) -> None:
    """Measure the map (updates/s), the signer (mutations/s), the node (events/s), the way back of
    processes (`recovery`), a front end (`frontend`), batch lookups beside single ones (`batch`), replays
    over tiles beside those over the event log (`monitor`), front ends over a shared store beside local ones
    (`shared`), or the parts of a directory at several sizes beside what the machine can do at most (`all`).

    Ends with exit code 1 if a measurement misses its limit.
    """
    for option, benches_with_it in _USED_BY.items():
        is_given = context.get_parameter_source(option) is ParameterSource.COMMANDLINE
        if is_given and which not in benches_with_it:
            raise click.UsageError(
                f"kt bench {which} has no --{option}: it is for {', '.join(benches_with_it)}"
            )
    if which == "all":
        _bench_all(output_of(context), sizes, replace(Amounts(), turns=turns), plot, akd)
        return
    benches: dict[str, Callable[[Path], list[Row]]] = {
        "map": bench_map,
        "signer": lambda at: bench_signer(at, shared=shared),
        "node": lambda at: bench_node(at, runs=runs),
        "recovery": lambda at: bench_recovery(at, entries),
        "frontend": lambda at: bench_frontend(
            at, workers=workers, beside=beside, note=output_of(context).note
        ),
        "batch": lambda at: bench_batch(at, entries, note=output_of(context).note),
        "monitor": lambda at: bench_monitor(at, entries, note=output_of(context).note),
        "shared": lambda at: _bench_shared(at, entries, shared, output_of(context).note),
    }
    with tempfile.TemporaryDirectory(prefix="kt-bench-") as directory:
        rows = benches[which](Path(directory))
    output_of(context).data(report(which, rows), report_lines(which, rows))
    missed = [row.name for row in rows if not row.kept]
    if missed:
        raise KtError(f"below its limit: {', '.join(missed)}; run it again on an idle machine")


def _bench_all(
    output: Output, sizes: Sequence[int], amounts: Amounts, plot: Path | None, akd: Path | None
) -> None:
    if plot is not None:
        check_picture(plot)
    figures = bench_all(sizes, amounts, akd=akd, note=output.note)
    output.data(document(figures), table(figures))
    if plot is not None:
        draw(figures, plot)


def _bench_shared(
    directory: Path, entries: int, shared: str | None, note: Callable[[str], None]
) -> list[Row]:
    if shared is None:
        raise ConfigError(
            "kt bench shared needs a shared store: give --shared URI, such as cassandra://127.0.0.1/kt_bench"
        )
    return bench_shared(directory, entries, shared, note=note)


def bench_map(directory: Path, entries: int = 100_000, epoch: int = 10_000, runs: int = 5) -> list[Row]:
    """Load a map in the empty ``directory``, and then update ``epoch`` of its ``entries`` in each run.

    Apply, write and ``flush_wal`` are timed: an update counts when it is durable on disk.
    """
    with closing(RocksStore.open(directory, FAMILIES)) as store:
        tree = Map(PageTable(store), page_cache())
        indices = sorted(sha256(b"index %d" % number) for number in range(entries))
        slices = [_updates(1, indices[low : low + epoch]) for low in range(0, entries, epoch)]
        root = EMPTY_ROOT
        began = perf_counter()
        for updates in slices:
            root = _advance(store, tree, root, 1, updates)
        loading = perf_counter() - began
        store.compact()
        on_disk = sum(path.stat().st_size for path in directory.glob("*.sst"))

        seconds = []
        for run in range(runs):
            chosen = [indices[(run + number * _STRIDE) % entries] for number in range(epoch)]
            updates = _updates(run + 2, chosen)
            began = perf_counter()
            root = _advance(store, tree, root, run + 2, updates)
            seconds.append(perf_counter() - began)
        per_second = [epoch / taken for taken in seconds]
        return [
            Row.of("updates_per_second", "updates/s", per_second, LEAST_UPDATES_PER_SECOND),
            Row.of("time_per_update", "µs", [taken / epoch * 1e6 for taken in seconds]),
            Row.of("bulk_load", "entries/s", [entries / loading]),
            Row.of("disk_per_entry", "bytes", [on_disk / entries]),
            *_proofs(tree, root, indices, runs),
            Row.of("peak_memory", "MB", [peak_memory()]),
        ]


def _advance(store: RocksStore, tree: Map, root: Root, version: int, updates: Sequence[Update]) -> Root:
    root, pages = tree.apply(root, version, updates)
    store.write(PageTable(store).put(version, pages))
    return root


def _updates(version: int, indices: Sequence[bytes]) -> list[Update]:
    return [(index, sha256(b"entry %d" % version + index)) for index in indices]


def _proofs(tree: Map, root: Root, indices: Sequence[bytes], runs: int) -> list[Row]:
    times, sizes = [], []
    for run in range(runs):
        chosen = [indices[(run + number * _STRIDE) % len(indices)] for number in range(PROOFS)]
        began = perf_counter()
        proofs = [tree.prove(root, index) for index in chosen]
        times.append((perf_counter() - began) / PROOFS * 1e6)
        for index, proof in zip(chosen, proofs, strict=True):
            require_root("map", map_root(index, proof), root.hash)
        sizes.append(sum(len(proof.siblings) for proof in proofs) / PROOFS)
    return [Row.of("time_per_proof", "µs", times), Row.of("siblings_per_proof", "hashes", sizes)]
