"""``kt store``: the tables of a shared store, and the pages of the map in a data directory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import click

from kt_es.cli.options import FOLDER
from kt_es.cli.output import output_of, settings_of
from kt_es.config import FILE_NAME
from kt_es.errors import ConfigError, DivergenceError, counted
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.cassandra_settings import EXAMPLE
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.retention import check_epoch, prune
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES

MOST_PROBLEMS = 100

_data = click.argument("data", metavar="DIR", type=FOLDER)


@click.group("store")
def store_command() -> None:
    """Make a shared store; prune or check the pages in a data directory."""


def _replication(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Mapping[str, int] | int | None:
    """Parse ``N`` or ``DATACENTER=N,DATACENTER=N``."""
    counts: dict[str, int] = {}
    for part in value.split(",") if value is not None else ():
        name, _, count = part.rpartition("=")
        if not (count.isascii() and count.isdecimal() and 0 < int(count) < 100) or name in counts:
            raise click.BadParameter(
                f"{value!r} is not N or DATACENTER=N,DATACENTER=N with 1 to 99 replicas each."
            )
        counts[name] = int(count)
    if "" in counts and len(counts) > 1:
        raise click.BadParameter(f"{value!r} names the datacenter of some numbers only.")
    return counts.get("", counts) or None


@store_command.command("init")
@click.option(
    "--replication",
    metavar="N|DC=N,DC=N",
    callback=_replication,
    help="Replicas of every row, for each datacenter; default 3 in the one that is connected.",
)
@click.pass_context
def init_command(context: click.Context, replication: Mapping[str, int] | int | None) -> None:
    """Make the keyspace and the tables of the shared store that kt.toml names, for this directory.

    Run again, it makes what is still missing. It changes nothing that exists.
    """
    output, settings = output_of(context), settings_of(context)
    shared = settings.shared
    if shared is None:
        raise ConfigError(
            f'{settings.base / FILE_NAME} names no shared store: add [store] with shared = "{EXAMPLE}"'
        )
    # The driver is an extra, and ``settings.shared`` has found it.
    from kt_es.ledger.cassandra import CassandraStore
    from kt_es.ledger.cassandra_schema import create_schema, write_about

    schema = create_schema(shared, replication)
    with closing(CassandraStore.connect(shared)) as store:
        is_new = write_about(store, settings.origin)
    if schema.made:
        output.ok(f"made {', '.join(schema.made)}")
    found = "found" if schema.made else "found all tables of"
    output.ok(f"{'began' if is_new else found} the store of {settings.origin}")
    replicas = ", ".join(f"{name} {count}" for name, count in schema.replication.items())
    output.data(
        {"keyspace": shared.keyspace, "made": schema.made, "replication": dict(schema.replication)},
        [f"keyspace {shared.keyspace} at {shared.place}: replicas {replicas}"],
    )


@store_command.command("prune")
@_data
@click.option("--keep", metavar="EPOCHS", type=click.IntRange(1), required=True, help="How many to keep.")
@click.pass_context
def prune_command(context: click.Context, data: Path, keep: int) -> None:
    """Delete the pages in DIR that none of the last EPOCHS epochs needs. Stop the process of DIR first.

    Both logs, all entries and all heads stay. A front end then refuses lookups and histories of older epochs.
    A data directory that was deleted is built again with all pages.
    """
    output, settings = output_of(context), settings_of(context)
    with closing(RocksStore.open(data, FAMILIES)) as store:
        ledger = Ledger(store, settings.origin, settings.pinned)
        check_commit(ledger)
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
        ledger = Ledger(store, settings.origin, settings.pinned)
        check_commit(ledger)
        epoch = epoch or ledger.committed.epoch
        entries = check_epoch(ledger, epoch, problems.append) if epoch else 0
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
