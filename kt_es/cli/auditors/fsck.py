"""``kt fsck``: examine a data directory, and compare it with the event log."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import click

from kt_es.cli.auditors.audit import directory_options
from kt_es.cli.options import FOLDER, event_log, is_named, patience_option
from kt_es.cli.output import Output, output_of
from kt_es.cli.shared import require_map
from kt_es.errors import DivergenceError, counted
from kt_es.eventstore.streams import StreamNames
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.node.stopped import opened
from projections.fsck.directory import MAX_DIFFERENCES, FsckReport
from projections.fsck.examination import fsck
from projections.fsck.streams import StreamReader


@click.command("fsck")
@click.argument("data", metavar="DIR", type=FOLDER)
@click.option("--log", metavar="URI", help="Also compare it with the event log at this connection string.")
@click.option(
    "--node",
    metavar="DIR",
    type=FOLDER,
    help="Also compare it with the log in the data directory of an embedded node that is not running.",
)
@click.option("--vkey", help="The directory's key, to examine without a kt.toml.")
@click.option("--directory", help="The directory's name, with --vkey.  [default: people]")
@patience_option
@click.pass_context
def fsck_command(
    context: click.Context,
    data: Path,
    log: str | None,
    node: Path | None,
    vkey: str | None,
    directory: str | None,
    patience: float,
) -> None:
    """Examine the data directory DIR of a signer, front end or monitor: every page, entry, node and head.

    Nothing is written. The process that uses DIR may be running: what it had committed at the start is
    examined. The exit code is 4 if anything differs from what was signed.
    """
    output = output_of(context)
    if log is not None and node is not None:
        if is_named(context, "log") and is_named(context, "node"):
            raise click.UsageError("--log and --node name two logs: give one of them")
        # The command line is stronger than a variable, which is for many commands.
        log, node = (log, None) if is_named(context, "log") else (None, node)
    settings = directory_options(context, None, vkey, directory, needs_log=False)
    with ExitStack() as stack:
        store = stack.enter_context(closing(RocksStore.view(data, FAMILIES)))
        streams: tuple[StreamReader, StreamNames] | None = None
        if node is not None:
            streams = stack.enter_context(opened(node)), settings.names
        elif log is not None:
            streams = stack.enter_context(event_log(log, output, patience)), settings.names
        require_map(store, data, settings, "`kt store check` without DIR examines the shared store")
        report = fsck(store, settings.origin, settings.pinned, log=streams, progress=output.progress_of)
    output.progress()
    _show(output, data, report)


def _show(output: Output, data: Path, report: FsckReport) -> None:
    for difference in report.differences:
        output.fail(difference)
    for what, count in report.counts.items():
        output.ok(f"{count:,} {what}")
    output.data(
        {
            "data": str(data),
            "epoch": report.epoch,
            "examined": dict(report.counts),
            "differences": report.differences,
        },
        [f"{data}: {'as it must be' if report.is_good else 'damaged'} at epoch {report.epoch}"],
    )
    if not report.is_good:
        many = "at least " if report.found >= MAX_DIFFERENCES else ""
        raise DivergenceError(
            f"{data} differs from what was signed in {many}{counted(report.found, 'places')}: keep it for an "
            "examination, and rebuild another one from the logs"
        )
