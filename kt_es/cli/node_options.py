"""Options of ``kt node`` for its limits, and the one that its commands share with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kt_es.cli.options import Number
from kt_es.node.ops.limits import BOUNDS, MAX_INT, Bound, Limits, spelled

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def limit_options(command: Decorated) -> Decorated:
    """An option for each limit, with the node's own default."""
    defaults = Limits()
    for name, bound in reversed(list(BOUNDS.items())):
        option = click.option(
            f"--{spelled(name)}",
            type=_range(bound, getattr(defaults, name)),
            default=getattr(defaults, name),
            show_default=True,
            metavar=bound.unit,
            help=bound.help,
        )
        command = option(command)
    return command


def given_limits(context: click.Context, limits: Mapping[str, float]) -> dict[str, float]:
    """Those of ``limits`` that an option or a variable gave; the rest are defaults."""
    return {
        name: value
        for name, value in limits.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def _range(bound: Bound, default: float) -> click.IntRange | Number:
    if isinstance(default, int):
        return click.IntRange(int(bound.low), None if bound.high == MAX_INT else int(bound.high))
    return Number(bound.low, bound.high)


def data_option(kind: click.Path, text: str = "The node's data.") -> Callable[[Decorated], Decorated]:
    """``--data`` of a command below ``kt node``: its own, or else the one that was given before it."""

    def inherited(context: click.Context, option: click.Parameter, value: Any) -> Any:
        above = context.parent
        while value is None and above is not None:
            value = above.params.get("data")
            above = above.parent
        if value is None:
            raise click.MissingParameter(ctx=context, param=option)
        # Again, because what stands before the command need not exist, and what this one reads must.
        return kind.convert(value, option, context)

    return click.option("--data", type=kind, callback=inherited, help=f"{text}  [required]")


def refuse_options_of_running(context: click.Context, command: str, but: Sequence[str] = ("data",)) -> None:
    """Raises ``UsageError`` for what was given to ``kt node`` and says nothing to ``command``.

    ``but`` names the options that ``command`` takes.
    """
    for option in context.command.params:
        name = option.name or ""
        if (
            name not in but
            and option.expose_value
            and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ):
            raise click.UsageError(
                f"{option.opts[0]} is for a node that is to run, not for {command}", context
            )
