"""``kt snapshot``: save the state of a signer or monitor to a file, or begin a data directory with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from kt_es.cli.options import data_option
from kt_es.cli.output import output_of, settings_of
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
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@data_option
@click.pass_context
def save_command(context: click.Context, file: Path, data: Path | None) -> None:
    """Save the signer's last epoch to FILE. The signer may be running."""
    output, settings = output_of(context), settings_of(context)
    store = RocksStore.view(data or settings.path(settings.signer.data), FAMILIES)
    try:
        ledger = Ledger(store, settings.origin, settings.pinned)
        with _written(file) as sink:
            head = save(ledger, sink, output.progress_of)
    finally:
        store.close()
        output.progress()
    output.ok(f"every page and entry of epoch {head.epoch} verified")
    output.data({"file": str(file), **_document(head)}, [f"{file}: {_words(head)}"])


@snapshot_command.command("load")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@data_option
@click.pass_context
def load_command(context: click.Context, file: Path, data: Path | None) -> None:
    """Verify FILE, and begin the signer's empty data directory with it."""
    output, settings = output_of(context), settings_of(context)
    target = data or settings.path(settings.signer.data)
    with _made(target) as unfinished:
        store = RocksStore.open(unfinished, FAMILIES)
        try:
            with file.open("rb") as source:
                head = load(source, store, settings.origin, settings.pinned, output.progress_of)
        finally:
            store.close()
            output.progress()
    output.ok("signed by the directory's key, entries hash to the signed map root")
    output.data({"data": str(target), **_document(head)}, [f"{target}: {_words(head)}"])


@contextmanager
def _written(file: Path) -> Iterator[BinaryIO]:
    """Write a file that exists completely or not at all."""
    try:
        with replacing(file) as sink:
            yield sink
    except OSError as error:
        raise unwritable(file, error) from None


@contextmanager
def _made(target: Path) -> Iterator[Path]:
    """Yield a directory that becomes ``target`` on success and is removed otherwise."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty: a snapshot is loaded into an empty directory or a new one")
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


def _document(head: MapHead) -> dict[str, object]:
    return {"epoch": head.epoch, "entries": head.map_size, "map_root": head.map_root.hex()}


def _words(head: MapHead) -> str:
    return f"epoch {head.epoch}, {counted(head.map_size, 'entries')}"
