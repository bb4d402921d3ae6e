"""``kt snapshot``: save the state of a signer or monitor to a file, or begin a data directory with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import click

from kt_es.cli.options import FILE, NEW_FILE, data_option, event_log, log_option, patience_option
from kt_es.cli.output import Output, output_of, settings_of
from kt_es.cli.shared import require_map, shared_ledger
from kt_es.errors import ConfigError, counted
from kt_es.formats.heads import MapHead
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.process.files import replacing
from kt_es.process.space import unwritable
from projections.snapshot import load, save


@click.group("snapshot")
def snapshot_command() -> None:
    """Save the state of a signer or monitor to one file, or begin with such a file."""


@snapshot_command.command("save")
@click.argument("file", type=NEW_FILE)
@data_option
@log_option
@patience_option
@click.pass_context
def save_command(
    context: click.Context, file: Path, data: Path | None, log: str | None, patience: float
) -> None:
    """Save the signer's last epoch to FILE. The signer may be running.

    If the map is in a shared store, the newest epoch of the event log is saved from there.
    """
    output, settings = output_of(context), settings_of(context, log)
    with ExitStack() as stack:
        if data is None and settings.sharing is not None:
            reached = stack.enter_context(event_log(settings.log, output, patience))
            ledger = stack.enter_context(shared_ledger(settings, reached))
        else:
            folder = data or settings.path(settings.signer.data)
            store = RocksStore.view(folder, FAMILIES)
            stack.enter_context(closing(store))
            require_map(store, folder, settings, "leave --data out")
            ledger = Ledger(store, settings.origin, settings.pinned)
        try:
            # The file exists completely or not at all.
            with replacing(file) as sink:
                head = save(ledger, sink, output.progress_of)
        except OSError as error:
            raise unwritable(file, error) from None
        finally:
            output.progress()
    output.ok(f"every page and entry of epoch {head.epoch} verified")
    _print(output, "file", file, head)


@snapshot_command.command("load")
@click.argument("file", type=FILE)
@data_option
@click.pass_context
def load_command(context: click.Context, file: Path, data: Path | None) -> None:
    """Verify FILE, and begin the signer's empty data directory with it."""
    output, settings = output_of(context), settings_of(context)
    if data is None and settings.sharing is not None:
        raise ConfigError("the signer's map is in a shared store: fill it with `kt store rebuild`")
    target = data or settings.path(settings.signer.data)
    with _made(target) as unfinished, closing(RocksStore.open(unfinished, FAMILIES)) as store:
        try:
            with file.open("rb") as source:
                head = load(source, store, settings.origin, settings.pinned, output.progress_of)
        finally:
            output.progress()
    output.ok("signed by the directory's key, entries hash to the signed map root")
    _print(output, "data", target, head)


@contextmanager
def _made(target: Path) -> Iterator[Path]:
    """Yield a directory that becomes ``target`` on success and is removed otherwise."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty: name an empty directory or a new one with --data")
    unfinished = target.with_name(f"{target.name}.loading")
    # An interrupted attempt may have left it.
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        yield unfinished
        if target.exists():
            target.rmdir()
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _print(output: Output, kind: str, path: Path, head: MapHead) -> None:
    document = {"epoch": head.epoch, "entries": head.map_size, "map_root": head.map_root.hex()}
    line = f"{path}: epoch {head.epoch}, {counted(head.map_size, 'entries')}"
    output.data({kind: str(path), **document}, [line])
