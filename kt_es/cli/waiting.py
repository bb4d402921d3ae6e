"""How commands that run once wait for the event log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from kt_es.cli.numbers import Number
from kt_es.cli.output import Output
from kt_es.eventstore.esdb import Connector
from kt_es.eventstore.patient import Patience, PatientLog

_F = TypeVar("_F", bound=Callable[..., Any])


def patience_option(command: _F) -> _F:
    """``--patience``, for commands that open the event log."""
    return click.option(
        "--patience",
        type=Number(0),
        default=30.0,
        show_default=True,
        help="Seconds to wait for the event log while it is away; then the exit code is 7.",
    )(command)


@contextmanager
def event_log(uri: str, output: Output, patience: float) -> Iterator[PatientLog]:
    """The log at ``uri``. Raises ``ConfigError`` at once if that is no connection string."""
    log = PatientLog(Connector(uri), Patience(patience, output.note))
    try:
        yield log
    finally:
        log.close()
