"""``kt audit``: replay both logs from the start."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from kt_es.cli.auditors.comparing import compared_with
from kt_es.cli.auditors.tiled import from_option, refuse_without_from, tile_address, tile_settings
from kt_es.cli.options import NEW_FOLDER, also_option, event_log, is_named, log_option, patience_option
from kt_es.cli.output import Output, at, config_path, output_of, settings_of
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME, Settings
from kt_es.errors import CannotTellError, ConfigError, counted
from kt_es.eventstore.streams import EventLog
from kt_es.formats.heads import MapHead
from kt_es.ledger.clock import ClockReport, Gap, spoken
from kt_es.ledger.convicting import check_unconvicted, keeping_evidence
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.process.clock import wall_clock
from projections.auditor import AuditReport, audit, audit_epochs
from projections.monitor_sources import TILE_TIMEOUT
from projections.tiles.following import replayed_tiles
from projections.tiles.server import Tiles
from projections.unproven import keeping_unproven


def directory_options(
    context: click.Context,
    log: str | None,
    vkey: str | None,
    directory: str | None,
    *,
    needs_log: bool = True,
) -> Settings:
    """Return the directory to examine: from options alone, as an outsider has it, or from ``kt.toml``.

    With ``vkey`` but no ``log`` the rest comes from ``kt.toml``, if there is one for the same directory.
    """
    if vkey is None:
        if directory is not None and is_named(context, "directory"):
            raise ConfigError("--directory needs --vkey: without the key nothing can be verified")
        return settings_of(context, log)
    origin = Pinned.parse(vkey).origin
    if log is None and config_path(context).exists():
        return _keyed(settings_of(context), origin, vkey, directory)
    if log is None and needs_log:
        raise ConfigError("--vkey needs --log: the connection string of the event log")
    settings = Settings(
        directory=directory or "people", origin=origin, key=vkey, base=config_path(context).parent
    )
    return settings if log is None else settings.model_copy(update={"log": log})


def _keyed(settings: Settings, origin: str, vkey: str, directory: str | None) -> Settings:
    """Return ``settings`` with the pinned key that was given instead of that of ``kt.toml``."""
    for name, given, present in (
        ("--vkey", origin, settings.origin),
        ("--directory", directory or settings.directory, settings.directory),
    ):
        if given != present:
            raise ConfigError(
                f"{name} is of {given}, and {settings.base / FILE_NAME} of {present}: name the log with "
                "--log, or leave the option out"
            )
    return settings.model_copy(update={"key": vkey})


@contextmanager
def ledger_of(settings: Settings, data: Path | None) -> Iterator[Ledger]:
    """Open a ledger to replay into: in ``data``, or in a temporary directory that is then removed."""
    with (
        tempfile.TemporaryDirectory(prefix="kt-audit-") as temporary,
        closing(RocksStore.open(data or Path(temporary), FAMILIES)) as store,
    ):
        yield Ledger(store, settings.origin, settings.pinned)


@click.command("audit")
@log_option
@from_option
@click.option("--vkey", help="Any signer key of the directory, to audit without a kt.toml.")
@click.option("--directory", help="The directory's name, with --vkey.  [default: people]")
@click.option(
    "--queue/--no-queue", default=True, show_default=True, help="Compare the records with the queue."
)
@click.option(
    "--data",
    type=NEW_FOLDER,
    help="Keep the replay here, and continue it next time; default: from the start.",
)
@click.option(
    "--allow-gaps",
    is_flag=True,
    help="Accept past gaps between heads, if the directory was down on purpose.",
)
@also_option
@patience_option
@click.pass_context
def audit_command(
    context: click.Context,
    /,
    log: str | None,
    url: str | None,
    ca: Path | None,
    vkey: str | None,
    directory: str | None,
    queue: bool,
    data: Path | None,
    allow_gaps: bool,
    also: tuple[str, ...],
    patience: float,
) -> None:
    """Replay both logs from the start: decide every verdict again, and verify every signature and root.

    With --data the log is first compared with the last head that was verified there. Timestamps are
    compared with this machine's clock at the end; if they differ too much, the exit code is 7. With --also
    the checkpoints that others show are compared with what was verified.

    With --from no right to the event log is needed: a URL and the key of --vkey are enough.
    """
    output = output_of(context)
    started = time.monotonic()
    with keeping_evidence(data), ExitStack() as stack:
        if url is None:
            refuse_without_from(context, {"ca": ca})
            settings = directory_options(context, log, vkey, directory)
            opened = stack.enter_context(event_log(settings.log, output, patience))
        else:
            where = tile_address(context, url, ca)
            settings = tile_settings(context, vkey)
            tiles = stack.enter_context(closing(where.open(max(TILE_TIMEOUT, patience))))
        ledger = stack.enter_context(ledger_of(settings, data))
        check_unconvicted(data, ledger)
        if url is None:
            report = run_audit(output, settings, opened, ledger, queue)
        else:
            with keeping_unproven(data):
                report = _audit_tiles(output, settings, tiles, ledger, patience)
        own = None if url is None else stack.enter_context(closing(where.place(settings.origin)))
        compared = compared_with(output, also, settings.origin, ledger, own=own, data=data)
        root = ledger.committed.root
    seconds = time.monotonic() - started
    counts = ("epoch", "timestamp", "anchor", "epochs", "records", "compared_with_queue")
    output.data(
        {
            "origin": settings.origin,
            **{name: getattr(report, name) for name in counts},
            "verdicts": dict(report.verdicts),
            "entries": root.size,
            "map_root": root.hash.hex(),
            "seconds": round(seconds, 3),
            "compared": compared.documents,
            **clock_document(report.clock),
        },
        [_conclusion(settings.origin, report, root.size) + compared.not_compared],
    )
    if compared.complaint:
        raise CannotTellError("comparison", compared.complaint)
    complaint = clock_complaint(report, allow_gaps=allow_gaps)
    if complaint:
        raise CannotTellError("clock", complaint)


def _conclusion(origin: str, report: AuditReport, entries: int) -> str:
    as_of = f"as of epoch {report.epoch}, {at(report.timestamp)}"
    if not report.epochs:
        return f"{origin}: verified {as_of}, and the log still holds that head; nothing new since"
    return (
        f"{origin}: correct in {counted(report.epochs, 'epochs')}, {counted(report.records, 'records')}, "
        f"{counted(entries, 'entries')}, {as_of}"
    )


def clock_document(clock: ClockReport) -> dict[str, Any]:
    """Describe what the timestamps show, for ``--json``. Lengths are in milliseconds."""
    farthest, longest = clock.farthest, clock.longest
    return {
        "future_heads": clock.future,
        "farthest_future_head": None if farthest is None else asdict(farthest),
        "gaps": clock.gaps,
        "longest_gap": None
        if longest is None
        else {
            "after_epoch": longest.epoch - 1,
            "before_epoch": longest.epoch,
            "from": longest.begun,
            "to": longest.ended,
            "length": longest.length,
            "max_interval": longest.promised,
        },
        "silence": clock.silence,
        "max_interval_changes": [asdict(change) for change in clock.changes],
    }


def clock_complaint(report: AuditReport, *, allow_gaps: bool) -> str:
    """Return why timestamps make the audit end with exit code 7; empty if they do not."""
    clock, problems = report.clock, []
    if clock.farthest is not None:
        head = clock.farthest
        problems.append(
            f"the head of epoch {head.epoch} says {at(head.timestamp)}, {spoken(head.ahead)} later than this "
            f"machine's clock ({clock.future} such heads): one of the clocks is wrong"
        )
    if clock.silence:
        problems.append(
            f"no head since epoch {report.epoch}, {at(report.timestamp)}: silence for {spoken(clock.silence)}"
        )
    if clock.longest is not None and not allow_gaps:
        gaps = _gaps(clock, clock.longest)
        problems.append(f"{gaps}; --allow-gaps accepts them where the directory was down on purpose")
    return "; ".join(problems)


def _gaps(clock: ClockReport, longest: Gap) -> str:
    return (
        f"{counted(clock.gaps, 'gaps')} between heads of more than max_interval and a minute, the longest "
        f"{spoken(longest.length)} between epochs {longest.epoch - 1} and {longest.epoch}, "
        f"{at(longest.begun)} to {at(longest.ended)}, where max_interval was {spoken(longest.promised)}"
    )


def run_audit(output: Output, settings: Settings, log: EventLog, ledger: Ledger, queue: bool) -> AuditReport:
    """Audit the logs in the event log, and print progress and check marks."""
    show = partial(_show, output)
    report = audit(log, settings.names, ledger, with_queue=queue, now=wall_clock, progress=show)
    return _reported(output, settings, report)


def _audit_tiles(
    output: Output, settings: Settings, tiles: Tiles, ledger: Ledger, patience: float
) -> AuditReport:
    """Do what ``run_audit`` does with tiles, except the comparison with the queue."""
    report = audit_epochs(
        lambda observe, verifiers: replayed_tiles(
            tiles, ledger, observe, verifiers, patience=patience, say=output.note
        ),
        ledger,
        None,
        nothing=f"{tiles.url} has no epoch yet",
        now=wall_clock,
        progress=partial(_show, output),
    )
    return _reported(output, settings, report)


def _show(output: Output, head: MapHead) -> None:
    output.progress(f"  epoch {head.epoch}, {counted(head.log_size, 'records')}")


def _reported(output: Output, settings: Settings, report: AuditReport) -> AuditReport:
    output.progress()
    if report.anchor:
        output.ok(f"the log still holds the head of epoch {report.anchor}, as it was verified here before")
    if not report.epochs:
        output.ok("nothing new has been published")
        return report
    records, heads = counted(report.records, "records"), counted(report.epochs, "heads")
    output.ok(f"{records}: every verdict decided again, every signature verified")
    output.ok(f"{heads}: signatures, timestamps, map roots, log roots and both checkpoints")
    if report.compared_with_queue:
        compared = counted(report.compared_with_queue, "items")
        output.ok(f"{compared} of the queue stand in the log of mutations, none left out or reordered")
    for change in report.clock.changes:
        output.note(
            f"  from epoch {change.epoch} on, max_interval is {spoken(change.now)}; "
            f"it was {spoken(change.before)}"
        )
    if report.clock.longest is not None:
        output.note(f"  {_gaps(report.clock, report.clock.longest)}")
    output.ok(f"as of epoch {report.epoch}, {at(report.timestamp)}, for {settings.origin}")
    return report
