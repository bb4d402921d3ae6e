"""The options of commands that sign a change, and the question before it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from kt_es.cli.clients import keys_option, reach_options
from kt_es.cli.mine import mine_option
from kt_es.errors import KtError

_F = TypeVar("_F", bound=Callable[..., Any])


def yes_option(command: _F) -> _F:
    return click.option("--yes", is_flag=True, help="Sign without asking. Only a terminal is asked.")(command)


def signing_options(default: str) -> Callable[[_F], _F]:
    """``--sign-with``, without which ``default`` signs, ``--accept``, ``--yes``, and whose keys where."""

    def options(command: _F) -> _F:
        for option in (
            reach_options,
            keys_option,
            mine_option,
            yes_option,
            click.option(
                "--accept",
                multiple=True,
                metavar="KEYID",
                help="An authorized key that you know, though it is not yours; may be repeated.",
            ),
            click.option(
                "--sign-with",
                "names",
                multiple=True,
                metavar="NAME",
                help=f"Signing keys; default: {default}.",
            ),
        ):
            command = option(command)
        return command

    return options


def confirm(yes: bool) -> None:
    """Ask at a terminal. Elsewhere nobody could answer, and what is signed has been shown."""
    if not yes and sys.stdin.isatty() and not click.confirm("Sign and publish this?", err=True):
        raise KtError("nothing was signed or published")
