"""The command line as text may name it: its commands, options and KT_* variables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from kt_es.cli.main import cli


def check_words(words: Sequence[str]) -> None:
    """Fail unless ``words``, as they follow ``kt``, are a command with options that it has."""
    command: click.Command = cli
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if word.startswith("-"):
            option = _option(command, word.partition("=")[0])
            assert option is not None, f"kt {' '.join(words)}: {command.name} has no option {word}"
            if not option.is_flag and "=" not in word and pending and not pending[0].startswith("-"):
                pending.pop(0)
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"kt {' '.join(words)}: there is no command {word}"
            command = found


def variables() -> set[str]:
    """Every variable that stands for an option."""
    return set(_variables(cli, "KT"))


def _variables(command: click.Command, prefix: str) -> Iterator[str]:
    for parameter in command.params:
        if parameter.name is not None:
            yield f"{prefix}_{parameter.name.upper()}"
        given = parameter.envvar
        yield from [given] if isinstance(given, str) else given or ()
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _variables(found, f"{prefix}_{name.upper().replace('-', '_')}")


def _option(command: click.Command, word: str) -> click.Option | None:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and word in (*parameter.opts, *parameter.secondary_opts):
            return parameter
    if word in ("-h", "--help"):
        return click.Option(["--help"], is_flag=True)
    return None
