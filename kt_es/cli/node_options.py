"""Options of ``kt node`` for its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kt_es.node.limits import BOUNDS, MAX_INT, Bound, Limits, spelled

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


def _range(bound: Bound, default: float) -> click.IntRange | click.FloatRange:
    if isinstance(default, int):
        return click.IntRange(int(bound.low), None if bound.high == MAX_INT else int(bound.high))
    return click.FloatRange(bound.low, bound.high)
