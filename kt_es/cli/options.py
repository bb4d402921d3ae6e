"""Common parts of options: ``--json`` and ``-q`` for all commands, shared variables, and numbers.

Each option has its own variable, ``KT_<COMMAND>_<OPTION>``. An option that means the same in several commands
also has the variable ``KT_<OPTION>``, which sets it for all of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

# The options data, listen and metrics are not shared, because each process needs its own value.
SHARED = (
    *("server", "vkey", "state", "ca", "timeout", "keys", "mine", "log", "patience", "directory"),
    *("origin", "label_policy", "min_interval", "max_interval"),
)
"""Options that ``KT_<OPTION>`` sets for every command that has them."""

LARGEST = 1e9
"""Thirty years in seconds. The clocks and timers of the system accept such a value."""

_F = TypeVar("_F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A range of numbers up to a thousand million. ``nan`` is refused, because it is in no range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        converted = super().convert(value, param, ctx)
        if isinstance(converted, float):
            if math.isnan(converted):
                self.fail(f"{value!r} is not a number.", param, ctx)
            if converted > LARGEST:
                self.fail(f"{value!r} is more than {LARGEST:.0f}.", param, ctx)
        return converted


def options(*decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Return one decorator that adds several options, in the order of ``--help``."""

    def decorate(command: _F) -> _F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def with_common_options(command: click.Command, prefix: str) -> click.Command:
    """Add the common options and variables to ``command`` and its subcommands.

    ``prefix`` begins the names of the command's own variables, such as ``KT_SIGNER``.
    """
    names = {option for parameter in command.params for option in parameter.opts}
    for flags, field, text in (
        (("--json",), "json", "Print one JSON document on standard output."),
        (("-q", "--quiet"), "quiet", "No check marks and progress on standard error."),
    ):
        if names.isdisjoint(flags):
            flag = click.Option(
                [*flags, f"output_{field}"],
                is_flag=True,
                expose_value=False,
                envvar=f"{prefix}_{field.upper()}",
                callback=_set(field),
                help=text,
            )
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
    """Return whether ``option`` is on the command line. There it takes precedence over any variable."""
    return context.get_parameter_source(option) is ParameterSource.COMMANDLINE


def given_options(context: click.Context, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``names`` that the command line or a variable sets."""
    return tuple(name for name in names if context.get_parameter_source(name) is not ParameterSource.DEFAULT)


def wants_json(words: Sequence[str]) -> bool:
    """Return whether a command line that could not be parsed, or ``KT_JSON``, asks for JSON."""
    before = words[: words.index("--")] if "--" in words else words
    try:
        return "--json" in before or bool(click.BOOL.convert(os.environ.get("KT_JSON") or "0", None, None))
    except click.BadParameter:
        return False
