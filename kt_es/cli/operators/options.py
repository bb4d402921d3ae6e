"""Options of commands that reach the event log, or run or inspect a process; and the log that they open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kt_es.cli.options import Number
from kt_es.cli.output import Output
from kt_es.eventstore.connecting import Connector
from kt_es.eventstore.patient import Patience, PatientLog

log_option = click.option("--log", metavar="URI", help="Connection string of the event log.")
data_option = click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Its data; default as in kt.toml."
)
metrics_option = click.option(
    "--metrics", metavar="HOST:PORT", help="Serve figures for Prometheus; default as in kt.toml."
)
patience_option = click.option(
    "--patience",
    type=Number(0),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the event log while it is away; then the exit code is 7.",
)


@contextmanager
def event_log(uri: str, output: Output, patience: float) -> Iterator[PatientLog]:
    """Open the log at ``uri``, which waits up to ``patience`` seconds in an outage.

    Raises:
        ConfigError: at once, if ``uri`` is no connection string.
    """
    log = PatientLog(Connector(uri), Patience(patience, output.note))
    try:
        yield log
    finally:
        log.close()
