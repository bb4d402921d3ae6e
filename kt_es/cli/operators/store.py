"""``kt store``: the tables of a shared store, and the map in a data directory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import click

from kt_es.cli.options import FOLDER, event_log, log_option, patience_option
from kt_es.cli.output import output_of, settings_of
from kt_es.cli.shared import make_store, require_map, required_sharing, shared_ledger
from kt_es.config.settings import Settings
from kt_es.errors import ConfigError, DivergenceError, counted
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.replay import Replay
from kt_es.ledger.retention import NEW_KEYSPACE, prune
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.stores import open_store
from kt_es.ledger.tables import FAMILIES
from kt_es.ledger.verifiers import Verifiers
from projections.fsck.directory import FsckReport
from projections.fsck.examination import check_directory, check_shared

MOST_PROBLEMS = 100

_data = click.argument("data", metavar="[DIR]", type=FOLDER, required=False)


@click.group("store")
def store_command() -> None:
    """Make, fill, prune or check a shared store; prune or check a data directory."""


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
    sharing = required_sharing(settings)
    shared = sharing.cassandra
    schema, is_new = make_store(sharing, replication)
    if schema.made:
        output.ok(f"made {', '.join(schema.made)}")
    found = "found" if schema.made else "found all tables of"
    output.ok(f"{'began' if is_new else found} the store of {settings.origin}")
    replicas = ", ".join(f"{name} {count}" for name, count in schema.replication.items())
    output.data(
        {"keyspace": shared.keyspace, "made": schema.made, "replication": dict(schema.replication)},
        [f"keyspace {shared.keyspace} at {shared.place}: replicas {replicas}"],
    )


@store_command.command("rebuild")
@log_option
@patience_option
@click.pass_context
def rebuild_command(context: click.Context, log: str | None, patience: float) -> None:
    """Fill the shared store from the event log: a new store for an old directory, or after a loss of rows.

    Every verdict is decided again, and every signature and root is verified. Rows that are there are written
    once more. The signer and front ends of other stores may be running.

    A store that was pruned is refused, since deleted rows cannot be written again: take a new keyspace.
    """
    output, settings = output_of(context), settings_of(context, log)
    sharing = required_sharing(settings)
    with event_log(settings.log, output, patience) as opened, closing(open_store(None, sharing)) as store:
        ledger = Ledger(store, settings.origin, settings.pinned, cache_bytes=sharing.cache)
        _refuse_pruned(ledger)
        try:
            with Verifiers(settings.origin) as verifiers:
                for epoch in Replay(opened, settings.names, ledger, verifiers=verifiers).catch_up():
                    output.progress_of("epochs written", epoch.head.epoch)
        finally:
            output.progress()
        check_pinned(ledger)
        committed = ledger.committed
    if committed.epoch == 0:
        raise ConfigError(
            f"{settings.names.heads} has no epoch, so nothing was written: name the event log of the "
            "directory in kt.toml or with --log, or start the signer, if the directory is new"
        )
    output.ok(f"replayed {counted(committed.epoch, 'epochs')} into the shared store")
    output.data(
        {"epoch": committed.epoch, "entries": committed.root.size},
        [f"epoch {committed.epoch}, {counted(committed.root.size, 'entries')}"],
    )


@store_command.command("prune")
@_data
@click.option("--keep", metavar="EPOCHS", type=click.IntRange(1), required=True, help="How many to keep.")
@log_option
@patience_option
@click.pass_context
def prune_command(
    context: click.Context, data: Path | None, keep: int, log: str | None, patience: float
) -> None:
    """Delete the pages in DIR that none of the last EPOCHS epochs needs. Stop the process of DIR first.

    Without DIR the pages of the shared store are pruned, while its signer and front ends go on.

    Both logs, all entries and all heads stay. A front end then refuses lookups and ranges of older epochs, so
    histories and watches that begin with them cannot be verified there. A data directory that is built again
    from the log has the pages of all epochs, and so has a new keyspace after `kt store rebuild`.

    Ends with exit code 4 if lists of replaced pages are missing or wrong in the shared store: some pages stay
    then that nothing needs.
    """
    output, settings = output_of(context), settings_of(context, log)
    problems: list[str] = []
    if data is None:
        with event_log(settings.log, output, patience) as reached, shared_ledger(settings, reached) as ledger:
            gone = prune(ledger, keep, problems.append)
    else:
        # Opening a store to write would create one.
        RocksStore.view(data, FAMILIES).close()
        with closing(RocksStore.open(data, FAMILIES)) as store:
            ledger = _checked(store, data, settings)
            gone = prune(ledger, keep)
            store.compact()
    newest, oldest = ledger.committed.epoch, ledger.oldest
    output.ok(f"deleted {counted(gone, 'pages')}")
    for problem in problems[:MOST_PROBLEMS]:
        output.fail(problem)
    document = {"data": _name(data), "deleted": gone, "oldest": oldest, "newest": newest}
    output.data(
        {**document, "problems": problems[:MOST_PROBLEMS]},
        [f"{_name(data)}: epochs {oldest} to {newest} are whole"],
    )
    if problems:
        raise DivergenceError(
            f"lists of replaced pages in {_name(data)} are missing or wrong in "
            f"{counted(len(problems), 'places')}: pages that nothing needs stay, and take space until the "
            "directory moves to a new keyspace"
        )


@store_command.command("check")
@_data
@click.option("--epoch", type=click.IntRange(1), help="The epoch to read; default the latest.")
@log_option
@patience_option
@click.pass_context
def check_command(
    context: click.Context, data: Path | None, epoch: int | None, log: str | None, patience: float
) -> None:
    """Compare the pages of one epoch, and all entries, heads and nodes in DIR, with what was signed.

    Without DIR the shared store is read: every row that signers and front ends use. Its entries, configs and
    erasures are compared with all records of the event log. The process of DIR may be running, and so may the
    signer and front ends of a shared store.
    """
    output, settings = output_of(context), settings_of(context, log)
    report = FsckReport(output.progress_of, MOST_PROBLEMS, goes_on=True)
    with ExitStack() as stack:
        stack.callback(output.progress)
        if data is None:
            reached = stack.enter_context(event_log(settings.log, output, patience))
            ledger = stack.enter_context(shared_ledger(settings, reached))
            epoch = epoch or ledger.committed.epoch
            check_shared(ledger, epoch, reached, settings.names, report)
        else:
            ledger = _checked(stack.enter_context(closing(RocksStore.view(data, FAMILIES))), data, settings)
            epoch = epoch or ledger.committed.epoch
            check_directory(ledger, epoch, report)
    entries = report.counts["leaves of the map"]
    problems = report.differences
    for problem in problems:
        output.fail(problem)
    output.data(
        {
            "data": _name(data),
            "epoch": epoch,
            "entries": entries,
            "found": report.found,
            "problems": problems,
        },
        [f"{_name(data)}: epoch {epoch}, {counted(entries, 'entries')}, {_places(report, 'problems')}"],
    )
    if problems:
        mend = "delete the directory, and it is built from the log"
        if data is None and ledger.oldest > 1:
            mend = f"it was pruned, and is not filled in place: {NEW_KEYSPACE}"
        elif data is None:
            mend = (
                "run `kt store rebuild`, which fills it from the log; rows that were deleted come back in "
                "a new keyspace only"
            )
        raise DivergenceError(
            f"{_name(data)} differs from the signed head of epoch {epoch} in "
            f"{_places(report, 'places')}: {mend}"
        )


def _refuse_pruned(ledger: Ledger) -> None:
    """Raise ``ConfigError`` if rows were deleted from the shared store: nothing inserts them again."""
    oldest = ledger.tables.states.oldest()
    if oldest > 1:
        raise ConfigError(
            f"the shared store was pruned: it keeps the epochs from {oldest} on, and deleted rows cannot be "
            f"written again. Nothing was written: {NEW_KEYSPACE}"
        )


def _name(data: Path | None) -> str:
    return "the shared store" if data is None else str(data)


def _checked(store: RocksStore, data: Path, settings: Settings) -> Ledger:
    require_map(store, data, settings, "leave DIR out")
    ledger = Ledger(store, settings.origin, settings.pinned)
    check_commit(ledger)
    check_pinned(ledger)
    return ledger


def _places(report: FsckReport, what: str) -> str:
    """Count what was found; of many, only the first ones are sure to be counted once."""
    few = report.found <= len(report.differences)
    return counted(report.found, what) if few else f"more than {counted(len(report.differences), what)}"
