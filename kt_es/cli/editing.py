"""``kt put --add`` and ``--remove``: some of the published keys change, and the rest stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from kt_es.cli.output import Output
from kt_es.cli.people import lookup_document, show_checks
from kt_es.client.client import Client
from kt_es.client.trust import Lookup
from kt_es.errors import RefusedError
from kt_es.formats.profiles import ProfileKey

_F = TypeVar("_F", bound=Callable[..., Any])


def edit_options(command: _F) -> _F:
    """``--add`` and ``--remove``."""
    for option in (
        click.option(
            "--remove",
            "removed",
            multiple=True,
            metavar="NAME",
            help="A published key that is to go, by its name; the others stay. May be repeated.",
        ),
        click.option(
            "--add",
            "added",
            multiple=True,
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="A file beside what is published, or in the place of its namesake. May be repeated.",
        ),
    ):
        command = option(command)
    return command


def check_edits(files: Sequence[Path], added: Sequence[Path], removed: Sequence[str]) -> None:
    """Raise ``click.UsageError`` unless either all keys are named or what changes, each name once."""
    if files and (added or removed):
        raise click.UsageError("--key names all keys that are published: leave out --add and --remove")
    if not (files or added or removed):
        raise click.UsageError("nothing to publish: give --key FILE, or --add FILE and --remove NAME")
    names = [*(path.name[:255] for path in added), *removed]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"the name {name} stands in --add and --remove more than once")


def edited(
    client: Client, before: Lookup, added: Sequence[ProfileKey], removed: Sequence[str]
) -> list[ProfileKey]:
    """The present profile of ``before`` with some keys added, replaced and removed.

    A name to remove that is not published is refused, unless an earlier version had it: then the command
    is repeated, and there is nothing left to do.
    """
    if before.erased and not added:
        raise RefusedError(
            "erased", f"the profile of {before.label} was erased: no key is left to be removed", "remove"
        )
    present = before.profile or ()
    missing = [name for name in removed if name not in {key.name for key in present}]
    if missing:
        _refuse_unknown_names(client, before, missing)
    changed = {key.name: key for key in added}
    replaced = [changed.get(key.name, key) for key in present if key.name not in removed]
    there = {key.name for key in replaced}
    # Two published keys may have one name; the one that comes in their place stands there once.
    return list(dict.fromkeys([*replaced, *(key for key in added if key.name not in there)]))


def _refuse_unknown_names(client: Client, before: Lookup, missing: Sequence[str]) -> None:
    if before.entry is None:
        raise RefusedError("unknown-name", f"{before.label} has published nothing", "remove")
    earlier = {
        key.name
        for version in client.history(before.label, profiles=True).versions
        for key in version.profile or ()
    }
    never = [name for name in missing if name not in earlier]
    if never:
        named = ", ".join(key.name for key in before.profile or ()) or "none"
        raise RefusedError(
            "unknown-name",
            f"{before.label} has no key called {', '.join(never)}; its keys are called: {named}",
            "remove",
        )


def say_unchanged(output: Output, before: Lookup) -> None:
    """There is nothing to sign: what was wanted stands already."""
    number = None if before.entry is None else before.entry.version
    show_checks(output, before)
    output.ok(f"version {number} of {before.label} is like that already; nothing was signed")
    output.data({**lookup_document(before), "stands": True, "signed": None}, [])
