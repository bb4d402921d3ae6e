"""``kt export``: the public logs of a directory as files that any web server can serve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from kt_es.cli.options import NEW_FOLDER, Number, event_log, log_option, patience_option
from kt_es.cli.output import Output, output_of, settings_of, stop_on_signals
from kt_es.config.settings import Settings
from kt_es.errors import UnavailableError, counted
from kt_es.process.space import unwritable
from projections.tiles.export import Exported, TileExport


@click.group("export")
def export_command() -> None:
    """Write the public logs of a directory to files."""


@export_command.command("tiles")
@click.argument("folder", type=NEW_FOLDER)
@click.option(
    "--every",
    type=Number(0.1),
    metavar="SECONDS",
    help="Keep running, and write what is new after each of these times. Without it, write once.",
)
@log_option
@patience_option
@click.pass_context
def tiles_command(
    context: click.Context, folder: Path, every: float | None, log: str | None, patience: float
) -> None:
    """Write both logs to FOLDER as C2SP tiles, from where FOLDER ends.

    A web server may serve FOLDER all the while. Files do not change once they are written, except the two
    named checkpoint. Everything in them is public.
    """
    output, settings = output_of(context), settings_of(context, log)
    stop = stop_on_signals()
    with closing(TileExport(folder, settings.origin, settings.names)) as export:
        while True:
            try:
                with event_log(settings.log, output, patience) as reached, _writing(folder):
                    for done in export.run(reached, stop.is_set):
                        output.note(_spoken(done))
            except UnavailableError as error:
                # A full disk, too: an operator makes space while this goes on.
                if every is None:
                    raise
                output.fail(f"{error}; trying again in {every:g} s")
            if every is None or stop.wait(every):
                break
        _print(output, folder, settings, export.reached)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from None


def _spoken(done: Exported) -> str:
    return f"{counted(done.heads, 'epochs')}, {counted(done.mutations, 'records')}"


def _print(output: Output, folder: Path, settings: Settings, reached: Exported) -> None:
    output.ok(f"{folder} has {_spoken(reached)} of {settings.origin}")
    output.data(
        {
            "folder": str(folder),
            "origin": settings.origin,
            "epochs": reached.heads,
            "records": reached.mutations,
        },
        [],
    )
