"""``kt history``: every version of an account, or what stood in every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from kt_es.cli.clients import Reach, reach_options
from kt_es.cli.context import output_of
from kt_es.cli.output import at
from kt_es.cli.people import PROVEN_ABSENT, show_checks
from kt_es.client.client import Client
from kt_es.client.history import History, Version
from kt_es.client.watching import every_epoch
from kt_es.errors import ConfigError, VerificationError
from kt_es.formats.entries import Mutation


@click.command("history")
@click.argument("label")
@click.option("--every-epoch", "each", is_flag=True, help="Show and verify what stood in each epoch.")
@click.option("--since", type=click.IntRange(1), help="With --every-epoch: from this epoch on.")
@click.option("--afresh", is_flag=True, help="Fetch and verify versions again that were verified before.")
@reach_options
@click.pass_context
def history_command(
    context: click.Context,
    /,
    label: str,
    each: bool,
    since: int | None,
    afresh: bool,
    **reach: Any,
) -> int:
    """Every version of LABEL: since when, signed by which key; all of it verified.

    Versions that were verified before are kept, and only new ones are fetched. With --every-epoch each
    epoch is verified, by default from the first version on, so a version that stood for one epoch is seen.
    """
    output = output_of(context)
    if since is not None and not each:
        raise ConfigError("--since belongs to --every-epoch")
    with Reach(**reach).client() as client:
        history = client.history(label, afresh=afresh)
        show_checks(output, history)
        runs = _runs(client, history, since) if each else None
    document: dict[str, Any] = {
        "label": history.label,
        "versions": [version_document(version) for version in history.versions],
    }
    lines = [version_line(version) for version in history.versions]
    if runs is not None:
        document["epochs"] = [run.document() for run in runs]
        lines = [run.line() for run in runs]
        output.ok(f"each epoch from {runs[0].first} to {runs[-1].last} verified")
    output.data(document, lines)
    return 0 if history.versions else PROVEN_ABSENT


@dataclass(slots=True)
class _Run:
    """Consecutive epochs in which the same stood."""

    first: int
    last: int
    mutation: Mutation | None

    def line(self) -> str:
        what = "absent" if self.mutation is None else f"version {self.mutation.entry.version}"
        return f"epochs {self.first} to {self.last}: {what}"

    def document(self) -> dict[str, Any]:
        known = self.mutation
        return {
            "first": self.first,
            "last": self.last,
            "version": None if known is None else known.entry.version,
            "entry": None if known is None else known.entry_hash.hex(),
        }


def _runs(client: Client, history: History, since: int | None) -> list[_Run]:
    """What stood in each epoch up to the latest one, equal epochs together."""
    first = since or (history.versions[0].epoch if history.versions else 1)
    if first > history.current.epoch:
        raise ConfigError(f"--since {first}: the latest epoch is {history.current.epoch}")
    runs: list[_Run] = []
    for seen in every_epoch(client, history.label, first, history.current.epoch):
        if not seen.authorized:
            raise VerificationError(
                "signatures", f"the keys before did not authorize the change in epoch {seen.epoch}"
            )
        if runs and (runs[-1].mutation and runs[-1].mutation.entry_hash) == seen.entry_hash:
            runs[-1].last = seen.epoch
        else:
            runs.append(_Run(seen.epoch, seen.epoch, seen.mutation))
    return runs


def version_document(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "epoch": version.epoch,
        "timestamp": version.timestamp,
        "entry": version.entry_hash.hex(),
        "signed_by": [key.id.hex() for key in version.signers],
        "authorized_keys": [key.id.hex() for key in version.entry.authorized_keys],
        "erased": version.erased,
    }


def version_line(version: Version) -> str:
    signers = ", ".join(key.id.hex() for key in version.signers)
    return (
        f"version {version.number}  since epoch {version.epoch}, {at(version.timestamp)}  signed by {signers}"
    )
