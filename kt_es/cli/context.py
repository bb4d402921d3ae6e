"""What the commands share: the output, the settings of the directory, the stop signal."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kt_es.cli.output import Output
from kt_es.cli.supervisor import end_with_parent
from kt_es.extras import require
from kt_es.process.signals import stop_event

if TYPE_CHECKING:
    from kt_es.config import Settings

STATE_FILE = "up.json"
"""Where ``kt up`` says, beside the settings, what runs and where."""


def output_of(context: click.Context) -> Output:
    output = context.find_root().obj["output"]
    return output if isinstance(output, Output) else Output()


def logs_of(context: click.Context) -> str:
    """How the process shows its logs, as ``--logs`` says."""
    return str(context.find_root().obj["logs"])


def config_path(context: click.Context) -> Path:
    return Path(context.find_root().obj["config"])


def settings_of(context: click.Context, log: str | None = None) -> Settings:
    """The settings of ``--config``, with ``log`` as connection string if given, else that of a ``kt up``.

    A ``kt up`` that runs may have been given another address for its node than the one in the file.
    Raises ``ConfigError`` where the extra is not installed that reads settings.
    """
    path = config_path(context)
    require("server", f"reading {path}")
    from kt_es.config import load_settings

    settings = load_settings(path)
    log = log or running_up(settings.base).get("log")
    return settings if log is None else settings.model_copy(update={"log": log})


def running_up(base: Path) -> Mapping[str, Any]:
    """What the ``kt up`` of the directory in ``base`` says of itself; nothing if none runs there."""
    try:
        state = json.loads((base / STATE_FILE).read_text())
        os.kill(int(state["pid"]), 0)
    except PermissionError:
        pass  # somebody else's process is one nevertheless
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return state if isinstance(state, dict) else {}


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set; a second signal ends the process at once."""
    end_with_parent()
    return stop_event()
