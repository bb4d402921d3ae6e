"""``kt node --check``, and ``backup``, ``restore`` and ``scavenge`` below ``kt node``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from kt_es.cli.output import Output, output_of
from kt_es.errors import KtError

_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_EXISTING = click.Path(path_type=Path, file_okay=False, exists=True)
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def data_option(kind: click.Path, text: str = "The node's data.") -> Callable[[Decorated], Decorated]:
    """``--data`` of a command below ``kt node``: the command's own, or the one given to ``kt node``."""

    def inherited(context: click.Context, option: click.Parameter, value: Any) -> Any:
        above = context.parent
        while value is None and above is not None:
            value = above.params.get("data")
            above = above.parent
        if value is None:
            raise click.MissingParameter(ctx=context, param=option)
        # Convert again: the option of ``kt node`` need not exist, while this command may need it to.
        return kind.convert(value, option, context)

    return click.option("--data", type=kind, callback=inherited, help=f"{text}  [required]")


def check_data(data: Path, output: Output) -> None:
    """Check all data of a stopped node, and print the report.

    Raises:
        DamageError: the data are damaged; the message has the first problem.
        KtError: the data cannot be read.
    """
    from kt_es.node.ops.checking import check
    from kt_es.node.store.storage import DamageError

    report = check(data)
    output.data({"sound": report.sound, **asdict(report)}, report.problems)
    if not report.sound:
        raise DamageError(f"{data}: {report.found} problems, the first: {report.problems[0]}")
    output.ok(f"{report.events} events in {report.streams} streams, up to position {report.position}")
    output.ok(f"{report.groups} persistent subscriptions")


@click.command("backup")
@click.argument("target", type=_DIRECTORY)
@data_option(_EXISTING)
@click.pass_context
def backup_command(context: click.Context, target: Path, data: Path) -> None:
    """Copy the node's data to the new directory TARGET, on the node's machine; it may go on running."""
    from kt_es.node.ops.control import backup_of

    made = backup_of(data, target)
    output_of(context).data({"backup": str(target), **made}, [])
    output_of(context).ok(f"{target} has everything up to position {made['position']}: {_mb(made['bytes'])}")


@click.command("restore")
@click.argument("source", type=_EXISTING)
@data_option(_DIRECTORY, "Where to, absent or empty.")
@click.pass_context
def restore_command(context: click.Context, source: Path, data: Path) -> None:
    """Make a node's data from the backup SOURCE, and check them."""
    from kt_es.node.ops.backup import restore

    made = restore(source, data)
    try:
        check_data(data, output_of(context))
    except KtError:
        shutil.rmtree(data, ignore_errors=True)
        raise
    output_of(context).ok(f"restored to {data} what {source} has of {made.made_at}")


@click.command("scavenge")
@data_option(_EXISTING)
@click.pass_context
def scavenge_command(context: click.Context, data: Path) -> None:
    """Take off the disk what reads no longer show: deleted, truncated and expired events.

    The node may go on running.
    """
    from kt_es.node.ops.control import scavenge_of

    done = scavenge_of(data)
    output = output_of(context)
    output.data(done, [])
    output.ok(f"removed {done['events']} events of {done['streams']} streams: {_mb(done['bytes'])}")
    output.ok(f"on disk {_mb(done['disk_after'])} instead of {_mb(done['disk_before'])}")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


UPKEEP = (backup_command, restore_command, scavenge_command)
