"""What the commands share: the output, the settings of the directory, the stop signal."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from kt_es.cli.output import Output
from kt_es.cli.supervisor import end_with_parent
from kt_es.config import Settings, load_settings


def output_of(context: click.Context) -> Output:
    output = context.find_root().obj["output"]
    return output if isinstance(output, Output) else Output()


def config_path(context: click.Context) -> Path:
    return Path(context.find_root().obj["config"])


def settings_of(context: click.Context, log: str | None = None) -> Settings:
    """The settings of ``--config``, with the connection string replaced where one is given."""
    settings = load_settings(config_path(context))
    return settings if log is None else settings.model_copy(update={"log": log})


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set; a second signal ends the process at once."""
    end_with_parent()
    stop, asked = threading.Event(), False

    def handle(number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            raise SystemExit(128 + number)
        asked = True
        # In a thread: an Event's own lock may be held by the wait that the signal interrupted.
        threading.Thread(target=stop.set, daemon=True).start()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
