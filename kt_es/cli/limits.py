"""Options of ``kt frontend`` for what one client may take; each overrides its name in ``kt.toml``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from kt_es.cli.numbers import Number
from kt_es.config import FrontendTable
from kt_es.errors import ConfigError
from kt_es.server.limits import ClientLimits

_Command = TypeVar("_Command", bound=Callable[..., Any])

_COUNT = click.IntRange(1)
_RATE = Number(0)
_OPTIONS: tuple[tuple[str, click.IntRange | Number | None, str, str], ...] = (
    ("max-connections", _COUNT, "COUNT", "Connections at a time."),
    ("address-connections", _COUNT, "COUNT", "Connections of one address."),
    ("network-connections", _COUNT, "COUNT", "Connections of one network."),
    ("address-rate", _RATE, "RATE", "Lookups a second of one address; 0 is no limit."),
    ("network-rate", _RATE, "RATE", "Lookups a second of one network; 0 is no limit."),
    ("exempt", None, "NETWORKS", "Networks without limits of their own, with commas between them."),
    ("trusted-proxies", None, "NETWORKS", "Networks whose X-Forwarded-For names the client."),
)


def limit_options(command: _Command) -> _Command:
    """The options of all limits; none has a default but that of ``kt.toml``."""
    for name, kind, metavar, what in reversed(_OPTIONS):
        command = click.option(f"--{name}", type=kind, metavar=metavar, help=what)(command)
    return command


def limits_of(table: FrontendTable, options: Mapping[str, object]) -> ClientLimits:
    """The limits of ``table``, with those of ``options`` that were given in their place."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return FrontendTable(**{**table.model_dump(), **given}).limits
    except ValueError as error:
        problem = next(iter(getattr(error, "errors", list)()), {"msg": str(error), "loc": ("limits",)})
        name = str(problem["loc"][0]).replace("_", "-")
        raise ConfigError(f"{name}: {str(problem['msg']).removeprefix('Value error, ')}") from None
