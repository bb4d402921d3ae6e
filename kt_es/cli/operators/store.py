"""``kt store``: upkeep of the pages of the map in a data directory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from kt_es.cli.options import FOLDER
from kt_es.cli.output import output_of, settings_of
from kt_es.config import Settings
from kt_es.errors import DivergenceError, counted
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.retention import check_epoch, prune
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES

MOST_PROBLEMS = 100

_data = click.argument("data", metavar="DIR", type=FOLDER)


@click.group("store")
def store_command() -> None:
    """Prune or check the pages in the data directory of a signer, front end or monitor."""


def _checked(store: RocksStore, settings: Settings) -> Ledger:
    ledger = Ledger(store, settings.origin, settings.pinned)
    check_commit(ledger)
    check_pinned(ledger)
    return ledger


@store_command.command("prune")
@_data
@click.option("--keep", metavar="EPOCHS", type=click.IntRange(1), required=True, help="How many to keep.")
@click.pass_context
def prune_command(context: click.Context, data: Path, keep: int) -> None:
    """Delete the pages in DIR that none of the last EPOCHS epochs needs. Stop the process of DIR first.

    Both logs, all entries and all heads stay. A front end then refuses lookups and ranges of older epochs, so
    histories and watches that begin with them cannot be verified there. A data directory that is built again
    from the log has the pages of all epochs.
    """
    output, settings = output_of(context), settings_of(context)
    # Opening a store to write would create one.
    RocksStore.view(data, FAMILIES).close()
    with closing(RocksStore.open(data, FAMILIES)) as store:
        ledger = _checked(store, settings)
        gone = prune(ledger, keep)
        store.compact()
        newest, oldest = ledger.committed.epoch, ledger.oldest
    output.ok(f"deleted {counted(gone, 'pages')}")
    output.data(
        {"data": str(data), "deleted": gone, "oldest": oldest, "newest": newest},
        [f"{data}: epochs {oldest} to {newest} are whole"],
    )


@store_command.command("check")
@_data
@click.option("--epoch", type=click.IntRange(1), help="The epoch to read; default the latest.")
@click.pass_context
def check_command(context: click.Context, data: Path, epoch: int | None) -> None:
    """Read every page and every entry of one epoch in DIR, and compare them with its signed head.

    The process of DIR may be running. `kt fsck` examines the rest of DIR, too.
    """
    output, settings = output_of(context), settings_of(context)
    problems: list[str] = []
    with closing(RocksStore.view(data, FAMILIES)) as store:
        ledger = _checked(store, settings)
        epoch = epoch or ledger.committed.epoch
        entries = check_epoch(ledger, epoch, problems.append)
    for problem in problems[:MOST_PROBLEMS]:
        output.fail(problem)
    output.data(
        {"data": str(data), "epoch": epoch, "entries": entries, "problems": problems[:MOST_PROBLEMS]},
        [f"{data}: epoch {epoch}, {counted(entries, 'entries')}, {counted(len(problems), 'problems')}"],
    )
    if problems:
        raise DivergenceError(
            f"{data} differs from the signed head of epoch {epoch} in {counted(len(problems), 'places')}: "
            "delete the directory, and it is built from the log"
        )
