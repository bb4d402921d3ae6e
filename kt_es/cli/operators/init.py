"""``kt init``: make a directory."""

from __future__ import annotations

from pathlib import Path

import click

from kt_es.cli.operators.options import patience_option
from kt_es.cli.operators.rights import set_rights
from kt_es.cli.operators.setup import (
    CONFIG_OPTIONS,
    NewDirectory,
    begin_queue,
    refuse_other_settings,
    write_directory,
)
from kt_es.cli.options import Number, given_options
from kt_es.cli.output import config_path, output_of
from kt_es.config import FILE_NAME, load_settings
from kt_es.errors import KtError
from kt_es.eventstore.connecting import Connector, check_uri
from kt_es.eventstore.patient import Patience
from kt_es.formats.labels import LABEL_POLICIES


@click.command("init")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Where to make it; default here."
)
@click.option("--directory", default="people", show_default=True, help="Its name, which names the streams.")
@click.option("--origin", default="localhost/people", show_default=True, help="Its schema-less URL.")
@click.option(
    "--log",
    default="esdb://127.0.0.1:2113?Tls=false",
    show_default=True,
    metavar="URI",
    help="Connection string of the event log.",
)
@click.option(
    "--label-policy",
    type=click.Choice(LABEL_POLICIES),
    default=LABEL_POLICIES[0],
    show_default=True,
    help="Which labels it has.",
)
@click.option(
    "--min-interval",
    type=Number(0),
    default=1.0,
    show_default=True,
    help="Seconds that an epoch collects submissions.",
)
@click.option(
    "--max-interval",
    type=Number(0.1),
    default=60.0,
    show_default=True,
    help="Seconds between two heads at most.",
)
@click.option("--acl", is_flag=True, help="Set the streams' rights for users frontend, signer, monitor.")
@click.option("--save-credentials", is_flag=True, help="Keep user and password of --log in kt.toml.")
@patience_option
@click.pass_context
def init_command(
    context: click.Context,
    data: Path | None,
    directory: str,
    origin: str,
    log: str,
    label_policy: str,
    min_interval: float,
    max_interval: float,
    acl: bool,
    save_credentials: bool,
    patience: float,
) -> None:
    """Make a directory: its keys, kt.toml, and the config that begins its queue.

    Run again, it does what is still missing. It overwrites nothing.
    """
    output = output_of(context)
    base = data or config_path(context).parent
    new = NewDirectory(
        directory,
        origin,
        log,
        label_policy,
        min_interval,
        max_interval,
        save_credentials=save_credentials,
    )
    check_uri(log)
    if (base / FILE_NAME).exists():
        settings = load_settings(base / FILE_NAME)
        refuse_other_settings(context, settings, "directory", "origin", "log")
    else:
        settings = write_directory(base, new)
        output.ok(f"made keys and {base / FILE_NAME} for {settings.origin}")
        if settings.log != log:
            output.note(
                f"  {FILE_NAME} has the log's address without user and password: give each process its own "
                "with --log or KT_LOG"
            )
    connector = Connector(log if given_options(context, ("log",)) else settings.log)

    def begin() -> bool:
        event_log = connector()
        try:
            # The rights come first. Otherwise every user could write the streams as soon as they exist.
            problems = set_rights(event_log, settings) if acl else []
            if problems:
                for problem in problems:
                    output.fail(problem)
                raise KtError(
                    f"rights that are not as they have to be: {len(problems)}; the queue was not begun"
                )
            return begin_queue(settings, event_log, new, given_options(context, CONFIG_OPTIONS))
        finally:
            event_log.close()

    # After an outage ``begin`` runs again. It leaves existing things unchanged.
    begun = Patience(patience, output.note).until_done(begin)
    output.ok(f"{'began' if begun else 'found'} the queue {settings.names.queue}")
    output.data(
        {"origin": settings.origin, "directory": settings.directory, "key": settings.key},
        [settings.key],
    )
