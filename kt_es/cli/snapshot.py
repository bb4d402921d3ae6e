"""``kt snapshot``: the state of a signer or monitor in one file, and a data directory begun with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from kt_es.cli.context import output_of, settings_of
from kt_es.cli.fsck import end_line, progress_line
from kt_es.cli.operate import DATA_OPTION
from kt_es.errors import ConfigError
from kt_es.formats.heads import MapHead
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.process.files import replacing
from kt_es.process.space import unwritable
from kt_es.wording import counted
from projections.snapshot import load, save


@click.group("snapshot")
def snapshot_command() -> None:
    """Save the state of a signer or monitor to one file, or begin with such a file."""


@snapshot_command.command("save")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@DATA_OPTION
@click.pass_context
def save_command(context: click.Context, file: Path, data: Path | None) -> None:
    """Save the signer's last epoch to FILE, also while the signer runs."""
    output, settings = output_of(context), settings_of(context)
    store = RocksStore.view(data or settings.path(settings.signer.data), FAMILIES)
    try:
        ledger = Ledger(store, settings.origin, settings.pinned)
        with _written(file) as sink:
            head = save(ledger, sink, progress_line(output))
    finally:
        store.close()
        end_line(output)
    output.ok(f"every page and entry of epoch {head.epoch} verified")
    output.data({"file": str(file), **_document(head)}, [f"{file}: {_words(head)}"])


@snapshot_command.command("load")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@DATA_OPTION
@click.pass_context
def load_command(context: click.Context, file: Path, data: Path | None) -> None:
    """Begin the signer's empty data directory with FILE, once all of it is verified."""
    output, settings = output_of(context), settings_of(context)
    target = data or settings.path(settings.signer.data)
    with _made(target) as unfinished:
        store = RocksStore.open(unfinished, FAMILIES)
        try:
            with file.open("rb") as source:
                head = load(source, store, settings.origin, settings.pinned, progress_line(output))
        finally:
            store.close()
            end_line(output)
    output.ok("signed by the directory's key, entries hash to the signed map root")
    output.data({"data": str(target), **_document(head)}, [f"{target}: {_words(head)}"])


@contextmanager
def _written(file: Path) -> Iterator[BinaryIO]:
    """A file that is there entirely or not at all."""
    try:
        with replacing(file) as sink:
            yield sink
    except OSError as error:
        raise unwritable(file, error) from None


@contextmanager
def _made(target: Path) -> Iterator[Path]:
    """A directory that becomes ``target`` when all went well; else nothing is left of it."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty: a snapshot is loaded into an empty directory or a new one")
    unfinished = target.with_name(f"{target.name}.loading")
    # What an interrupted attempt left.
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
