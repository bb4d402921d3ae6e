"""What every command takes, wherever it stands: ``--json`` and ``-q``, and variables that many share.

Each option has its own variable, ``KT_<COMMAND>_<OPTION>``. Options that mean the same in every command
that has them also take ``KT_<OPTION>``, for all of those commands.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

# Not data, listen and metrics: of another process they mean another directory or address.
SHARED = (
    *("server", "vkey", "state", "ca", "timeout", "keys", "mine", "log", "patience", "directory"),
    *("origin", "label_policy", "min_interval", "max_interval"),
)
"""Options that ``KT_<OPTION>`` sets for every command that has them."""


def with_common_options(command: click.Command, prefix: str) -> click.Command:
    """``command``, and those below it, with the options and variables that all commands have.

    ``prefix`` begins the names of the command's own variables, such as ``KT_SIGNER``.
    """
    names = {option for parameter in command.params for option in parameter.opts}
    for flag in (
        click.Option(
            ["--json", "output_json"],
            is_flag=True,
            expose_value=False,
            envvar=f"{prefix}_JSON",
            callback=_set("json"),
            help="Print one JSON document on standard output.",
        ),
        click.Option(
            ["-q", "--quiet", "output_quiet"],
            is_flag=True,
            expose_value=False,
            envvar=f"{prefix}_QUIET",
            callback=_set("quiet"),
            help="No check marks and progress on standard error.",
        ),
    ):
        if not names.intersection(flag.opts):
            command.params.append(flag)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name in SHARED:
            name = parameter.name.upper()
            parameter.envvar = [f"{prefix}_{name}", f"KT_{name}"]
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            with_common_options(below, f"{prefix}_{name.upper().replace('-', '_')}")
    return command


def _set(field: str) -> Any:
    def set_on(context: click.Context, _: click.Parameter, value: bool) -> None:
        output = (context.find_root().obj or {}).get("output")
        if value and output is not None:
            setattr(output, field, True)

    return set_on


def is_named(context: click.Context, option: str) -> bool:
    """Whether ``option`` stands on the command line: then it is stronger than any variable."""
    return context.get_parameter_source(option) is ParameterSource.COMMANDLINE


def wants_json(words: Sequence[str]) -> bool:
    """Whether ``words`` of a command line that could not be read ask for JSON, or ``KT_JSON`` does."""
    before = words[: words.index("--")] if "--" in words else words
    try:
        return "--json" in before or bool(click.BOOL.convert(os.environ.get("KT_JSON") or "0", None, None))
    except click.BadParameter:
        return False
