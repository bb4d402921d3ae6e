"""Options of commands that replay both logs from tiles, and what an outsider needs for that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from kt_es.cli.options import ca_option, is_named, options
from kt_es.cli.output import config_path, settings_of
from kt_es.client.trusted import Pinned
from kt_es.config.settings import Settings
from kt_es.errors import ConfigError
from projections.monitor_sources import TileAddress

from_option = options(
    click.option(
        "--from",
        "url",
        metavar="URL",
        help="Read both logs there as C2SP tiles over HTTP, not in the event log; without the queue.",
    ),
    ca_option,
)
"""The fields of ``tile_address``. Their parameters are ``url`` and ``ca``."""


def tile_address(
    context: click.Context, url: str, ca: Path | None, interval: float | None = None
) -> TileAddress:
    """Return where tiles are. Raises ``ConfigError`` if options of the event log are given as well."""
    for name, why in (
        ("log", "give one of them"),
        ("directory", "the streams of the event log are not read"),
        ("queue", "the queue is not public"),
    ):
        if name in context.params and is_named(context, name) and context.params[name] is not False:
            raise ConfigError(f"--{name} does not go with --from: {why}")
    return TileAddress(url, ca, interval)


def refuse_without_from(context: click.Context, given: Mapping[str, object]) -> None:
    """Raise ``ConfigError`` for options that are about tiles, if there are none."""
    for name, value in given.items():
        if value is not None and is_named(context, name):
            raise ConfigError(f"--{name} goes with --from only: name the server of tiles, or leave it out")


def tile_settings(context: click.Context, vkey: str | None) -> Settings:
    """Return the directory whose tiles are replayed: from its key alone as outsiders have it, or kt.toml."""
    if vkey is None:
        if not config_path(context).exists():
            raise ConfigError(
                "--from needs the key of the directory: give --vkey, as its operator published it, or a "
                "kt.toml with --config"
            )
        return settings_of(context)
    origin = Pinned.parse(vkey).origin
    # The name is that of the streams in the event log, which are not read.
    return Settings(directory="people", origin=origin, key=vkey, base=config_path(context).parent)
