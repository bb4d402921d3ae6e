"""``kt config``: show the signed config of a directory, and change it by a signed item of the queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kt_es.cli.options import Number, data_option, event_log, log_option, options, patience_option
from kt_es.cli.output import Output, output_of, settings_of
from kt_es.cli.owners.signing import confirm, yes_option
from kt_es.cli.shared import shared_ledger
from kt_es.config.settings import Settings
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.heads import MapHead
from signer.changes import Base, ConfigChanges, base_of, following, sign_change
from signer.keys import KeyRing

INTERVALS = ("min_interval", "max_interval", "max_merge_delay")

change_options = options(
    log_option,
    data_option,
    click.option(
        "--timeout",
        type=Number(0),
        help="Seconds to wait for a head under the new config; default two intervals and a minute.",
    ),
    yes_option,
    patience_option,
)
"""Options of commands that change the config."""


@dataclass(frozen=True, slots=True)
class Operated:
    """A directory, with the chain of its configs."""

    settings: Settings
    output: Output
    changes: ConfigChanges


@contextmanager
def operated(
    context: click.Context, log: str | None, data: Path | None, patience: float
) -> Iterator[Operated]:
    """Open the directory of ``kt.toml`` and its log."""
    settings, output = settings_of(context, log), output_of(context)
    with event_log(settings.log, output, patience) as reached:
        if data is None and settings.sharing is not None:
            with shared_ledger(settings, reached) as ledger:
                base = Base.of(ledger)
        else:
            base = base_of(data or settings.path(settings.signer.data), settings.origin, settings.pinned)
        changes = ConfigChanges(reached, settings.names, settings.origin, settings.pinned, base)
        yield Operated(settings, output, changes)


@click.group("config")
def config_command() -> None:
    """Show or change the signed config of a directory: its signer keys and its intervals."""


@config_command.command("show")
@log_option
@data_option
@patience_option
@click.pass_context
def config_show(context: click.Context, log: str | None, data: Path | None, patience: float) -> None:
    """Print the latest config, and whether it is in force."""
    with operated(context, log, data, patience) as it:
        chain = it.changes.chain()
        head = it.changes.in_force(chain[-1].config)
    config = chain[-1].config
    since = "not in force yet" if head is None else f"in force in epoch {head.epoch}"
    lines = [
        f"config {len(chain)} of {config.origin}, {since}",
        *(f"  {name}  {_seconds(getattr(config, name))}" for name in INTERVALS),
        f"  signer key  {config.signer_key.id.hex()}",
        *(f"  signer key  {key.id.hex()}  (announced)" for key in config.signer_keys[1:]),
    ]
    it.output.data(config_document(chain, head), lines)


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"


def config_document(chain: tuple[SignedConfig, ...], head: MapHead | None) -> dict[str, Any]:
    """Describe the latest config and, if it is in force, the epoch of ``head``. Times are in milliseconds."""
    config = chain[-1].config
    return {
        "origin": config.origin,
        "number": len(chain),
        "hash": config.hash.hex(),
        "signer_key": config.signer_key.id.hex(),
        "announced": [key.id.hex() for key in config.signer_keys[1:]],
        **{name: getattr(config, name) for name in INTERVALS},
        "epoch": None if head is None else head.epoch,
    }


@config_command.command("set")
@click.option("--min-interval", type=Number(0), help="Seconds that an epoch collects submissions.")
@click.option("--max-interval", type=Number(0.001), help="Seconds between two heads at most.")
@click.option(
    "--max-merge-delay",
    type=Number(0.001),
    help="Seconds from a receipt to the head that decides; default --max-interval, if that is given.",
)
@change_options
@click.pass_context
def config_set(
    context: click.Context,
    min_interval: float | None,
    max_interval: float | None,
    max_merge_delay: float | None,
    log: str | None,
    data: Path | None,
    timeout: float | None,
    yes: bool,
    patience: float,
) -> None:
    """Change the directory's intervals: show the change, sign it, and wait for a head under it.

    The change is in force from the epoch after the one that accepts it, for every signer, front end, monitor
    and client, without a restart. Run again, the command does what is still missing.
    """
    given = (min_interval, max_interval, max_interval if max_merge_delay is None else max_merge_delay)
    wanted = {
        name: round(value * 1000) for name, value in zip(INTERVALS, given, strict=True) if value is not None
    }
    if not wanted:
        raise click.UsageError("nothing to set: give --min-interval, --max-interval or --max-merge-delay")
    with operated(context, log, data, patience) as it:
        before = it.changes.chain()[-1].config
        changed = {name: value for name, value in wanted.items() if getattr(before, name) != value}
        config = following(before, **changed) if changed else before
        if changed:
            keys = it.settings.path(it.settings.signer.keys)
            key = KeyRing.load(keys).key_for(before.signer_key)
            signer = before.signer_key.id.hex()
            it.output.note(f"  a change of the config of {config.origin}, signed by {signer}:")
            for name in INTERVALS:
                if name in changed:
                    it.output.note(f"    - {name} {_seconds(getattr(before, name))}")
                mark = "+" if name in changed else "="
                it.output.note(f"    {mark} {name} {_seconds(getattr(config, name))}")
            confirm(yes)
            it.changes.submit(sign_change(config, [key]))
            it.output.ok("the change is in the queue and will be accepted")
        head = wait_for(it, config, timeout, before)
        chain = it.changes.chain()
    it.output.ok(f"in force: epoch {head.epoch} is under it" if changed else "it is like that already")
    it.output.data({**config_document(chain, head), "changed": sorted(changed)}, [])


def wait_for(it: Operated, config: Config, timeout: float | None, before: Config) -> MapHead:
    """Wait for the first head under ``config``, and report the wait. ``timeout`` is in seconds."""
    head = it.changes.in_force(config)
    if head is not None:
        return head
    longest = max(config.max_interval, before.max_interval) / 1000
    seconds = 2 * longest + 60 if timeout is None else timeout
    it.output.note(f"  waiting for a head under it, up to {seconds:g} s")
    return it.changes.wait(config, seconds)
