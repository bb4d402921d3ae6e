"""The context of a command: its output, the settings of the directory, the stop signal."""

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
"""The file beside ``kt.toml`` in which ``kt up`` describes its processes."""


def output_of(context: click.Context) -> Output:
    output = context.find_root().obj["output"]
    return output if isinstance(output, Output) else Output()


def logs_of(context: click.Context) -> str:
    """Return the value of ``--logs``."""
    return str(context.find_root().obj["logs"])


def config_path(context: click.Context) -> Path:
    return Path(context.find_root().obj["config"])


def settings_of(context: click.Context, log: str | None = None) -> Settings:
    """Load the settings of ``--config``.

    Args:
        context: the context of the command.
        log: the connection string to use instead of that of a running ``kt up`` or of the file. A ``kt up``
            may use another address for its node than the file.

    Raises:
        ConfigError: the file cannot be used, or the extra that reads settings is not installed.
    """
    path = config_path(context)
    require("server", f"reading {path}")
    from kt_es.config import load_settings

    settings = load_settings(path)
    log = log or running_up(settings.base).get("log")
    return settings if log is None else settings.model_copy(update={"log": log})


def running_up(base: Path) -> Mapping[str, Any]:
    """Return the state file of the ``kt up`` that runs in ``base``; empty if none runs there."""
    try:
        state = json.loads((base / STATE_FILE).read_text())
        os.kill(int(state["pid"]), 0)
    except PermissionError:
        pass  # the process exists, but belongs to another user
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return state if isinstance(state, dict) else {}


def stop_on_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set. A second signal ends the process at once."""
    end_with_parent()
    return stop_event()
