"""What auditors ask: audit, epochs, checkpoint."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from kt_es.cli.clients import Reach, reach_options
from kt_es.cli.context import config_path, output_of, settings_of
from kt_es.cli.output import Output, at, is_terminal
from kt_es.client.session import Head
from kt_es.client.trusted import Pinned
from kt_es.config import Settings
from kt_es.errors import ConfigError
from kt_es.eventstore.esdb import EsdbLog, connect
from kt_es.formats.heads import MapHead
from projections.auditor import AuditReport, audit
from projections.ledger import FAMILIES, Ledger
from projections.rocks import Store


def directory_options(
    context: click.Context, log: str | None, vkey: str | None, directory: str | None
) -> Settings:
    """The directory to look at: from options alone, as an outsider has it, or from ``kt.toml``."""
    if vkey is None:
        if directory is not None:
            raise ConfigError("--directory needs --vkey: without the key nothing can be verified")
        return settings_of(context, log)
    if log is None:
        raise ConfigError("--vkey needs --log: the connection string of the event log")
    origin = Pinned.parse(vkey).origin
    return Settings(
        directory=directory or "people", origin=origin, key=vkey, log=log, base=config_path(context).parent
    )


@contextmanager
def event_log(settings: Settings) -> Iterator[EsdbLog]:
    log = connect(settings.log)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def ledger_of(settings: Settings, data: Path | None) -> Iterator[Ledger]:
    """A ledger to replay into: in ``data``, where it goes on next time, or in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="kt-audit-") as temporary:
        store = Store.open(data or Path(temporary), FAMILIES)
        try:
            yield Ledger(store, settings.origin, settings.pinned)
        finally:
            store.close()


@click.command("audit")
@click.option("--log", metavar="URI", help="Connection string of the event log; default from kt.toml.")
@click.option("--vkey", help="The directory's key, to audit without a kt.toml.")
@click.option("--directory", help="The directory's name, with --vkey.  [default: people]")
@click.option(
    "--queue/--no-queue", default=True, show_default=True, help="Compare the records with the queue."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the replay here and go on from it next time; default: from the start.",
)
@click.pass_context
def audit_command(
    context: click.Context,
    log: str | None,
    vkey: str | None,
    directory: str | None,
    queue: bool,
    data: Path | None,
) -> None:
    """Replay both logs from the start: decide every verdict again, verify every signature and root."""
    output = output_of(context)
    settings = directory_options(context, log, vkey, directory)
    started = time.monotonic()
    with event_log(settings) as opened, ledger_of(settings, data) as ledger:
        report = run_audit(output, settings, opened, ledger, queue)
        root = ledger.committed.root
    seconds = time.monotonic() - started
    output.data(
        {
            "origin": settings.origin,
            "epochs": report.epochs,
            "records": report.records,
            "compared_with_queue": report.compared_with_queue,
            "verdicts": dict(report.verdicts),
            "entries": root.size,
            "map_root": root.hash.hex(),
            "seconds": round(seconds, 3),
        },
        [
            f"{settings.origin}: correct in {report.epochs} epochs, {report.records} records, "
            f"{root.size} entries"
        ],
    )


def run_audit(output: Output, settings: Settings, log: EsdbLog, ledger: Ledger, queue: bool) -> AuditReport:
    """The audit with its progress and check marks."""

    def show(head: MapHead) -> None:
        if is_terminal() and not output.quiet:
            click.echo(f"\r  epoch {head.epoch}, {head.log_size} records", err=True, nl=False)

    report = audit(log, settings.names, ledger, with_queue=queue, progress=show)
    if is_terminal() and not output.quiet:
        click.echo("\r\033[K", err=True, nl=False)
    if report.head is None:
        output.ok("nothing new has been published")
        return report
    output.ok(f"{report.records} records: every verdict decided again, every signature verified")
    output.ok(f"{report.epochs} heads: signatures, timestamps, map roots, log roots and both checkpoints")
    if report.compared_with_queue:
        output.ok(f"{report.compared_with_queue} items are those of the queue, none left out or reordered")
    output.ok(f"as of epoch {report.head.epoch}, {at(report.head.timestamp)}, for {settings.origin}")
    return report


@click.command("epochs")
@click.option("--last", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@reach_options
@click.pass_context
def epochs_command(context: click.Context, /, last: int, **reach: Any) -> None:
    """The latest epochs, each head verified."""
    with Reach(**reach).client() as client:
        heads = [shown.head for shown in client.heads(last)]
    output_of(context).data(
        {"epochs": [head_document(head) for head in heads]},
        [
            f"epoch {head.epoch}  {at(head.timestamp)}  {head.map_size} entries  {head.log_size} records  "
            f"{head.map_root.hex()[:16]}"
            for head in heads
        ],
    )


def head_document(head: MapHead) -> dict[str, Any]:
    """A head as ``--json`` shows it."""
    return {
        "origin": head.origin,
        "epoch": head.epoch,
        "timestamp": head.timestamp,
        "map_root": head.map_root.hex(),
        "map_size": head.map_size,
        "log_size": head.log_size,
        "log_root": head.log_root.hex(),
        "queue_next": head.queue_next,
        "config_hash": head.config_hash.hex(),
    }


@click.command("checkpoint")
@click.option("--which", type=click.Choice(["heads", "mutations"]), default="heads", show_default=True)
@reach_options
@click.pass_context
def checkpoint_command(context: click.Context, /, which: str, **reach: Any) -> None:
    """The latest checkpoint of a log, verified and consistent with what was trusted before."""
    with Reach(**reach).client() as client:
        head: Head = client.head()
    text = head.heads_checkpoint if which == "heads" else head.mutations_checkpoint
    output_of(context).data({"log": which, "checkpoint": text}, text.removesuffix("\n").split("\n"))
