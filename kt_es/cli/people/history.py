"""The past of an account and of a directory: ``kt history``, ``kt epochs``, ``kt checkpoint``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from kt_es.cli.options import Reach, reach_options
from kt_es.cli.output import at, output_of
from kt_es.cli.people.get import PROVEN_ABSENT, show_checks
from kt_es.cli.people.others import compare_with, others_options
from kt_es.cli.policies import show_vouched
from kt_es.client.client import Client
from kt_es.client.history import History, Version
from kt_es.client.watching import every_epoch
from kt_es.errors import ConfigError, VerificationError
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import MapHead


@click.command("history")
@click.argument("label")
@click.option("--every-epoch", "each", is_flag=True, help="Verify and show each epoch.")
@click.option("--since", type=click.IntRange(1), help="With --every-epoch: from this epoch on.")
@click.option("--afresh", is_flag=True, help="Fetch and verify all versions again.")
@others_options
@reach_options
@click.pass_context
def history_command(
    context: click.Context,
    /,
    label: str,
    each: bool,
    since: int | None,
    afresh: bool,
    also: tuple[str, ...],
    watchers: bool,
    **reach: Any,
) -> int:
    """List every version of LABEL, verified: its epoch and the keys that signed it.

    Versions that were verified before are kept, and only new ones are fetched. --every-epoch verifies each
    epoch, by default from the first version on, and so finds a version that stood for one epoch only.
    """
    output = output_of(context)
    if since is not None and not each:
        raise ConfigError(f"--since {since} belongs to --every-epoch: add it, or leave --since out")
    with Reach(**reach).client() as client:
        history = client.history(label, afresh=afresh)
        show_checks(output, history)
        shown = {**compare_with(output, client, also, watchers), **show_vouched(output, client)}
        runs = _runs(client, history, since) if each else None
    document: dict[str, Any] = {
        "label": history.label,
        "versions": [version_document(version) for version in history.versions],
    }
    document.update(shown)
    lines = [version_line(version) for version in history.versions]
    if runs is not None:
        document["epochs"] = [run.document() for run in runs]
        lines = [run.line() for run in runs]
        output.ok(f"each epoch from {runs[0].first} to {runs[-1].last} verified")
    output.data(document, lines)
    return 0 if history.versions else PROVEN_ABSENT


@dataclass(slots=True)
class _Run:
    """Consecutive epochs with the same version of an account."""

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
    """Verify each epoch up to the latest one, and join equal epochs."""
    first = since or (history.versions[0].epoch if history.versions else 1)
    if first > history.current.epoch:
        raise ConfigError(
            f"--since {first}: the latest epoch is {history.current.epoch}; give an earlier one"
        )
    runs: list[_Run] = []
    for seen in every_epoch(client, history.label, first, history.current.epoch):
        if not seen.authorized:
            problem = f"the keys before did not authorize the change in epoch {seen.epoch}"
            raise VerificationError("signatures", problem)
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


@click.command("epochs")
@click.option("--last", type=click.IntRange(1), default=10, show_default=True, help="How many epochs.")
@click.option("--follow", is_flag=True, help="Print each new epoch from now on, until interrupted.")
@click.option("--since", type=click.IntRange(0), help="With --follow: first the epochs after this one.")
@reach_options
@click.pass_context
def epochs_command(
    context: click.Context, /, last: int, follow: bool, since: int | None, **reach: Any
) -> None:
    """List the latest epochs, each head verified.

    --follow prints each epoch when it is published, with --json one document a line. It ends with 7 if none
    comes for longer than the directory promises.
    """
    output = output_of(context)
    if since is not None and not follow:
        raise ConfigError(f"--since {since} belongs to --follow: add it, or leave --since out")
    with Reach(**reach).client() as client:
        if follow:
            for shown in client.following.heads(since):
                output.line(head_document(shown.head), head_line(shown.head))
            return
        heads = [shown.head for shown in client.heads(last)]
    document = {"epochs": [head_document(head) for head in heads]}
    output.data(document, [head_line(head) for head in heads])


def head_line(head: MapHead) -> str:
    return (
        f"epoch {head.epoch}  {at(head.timestamp)}  {head.map_size} entries  {head.log_size} records  "
        f"{head.map_root.hex()[:16]}"
    )


def head_document(head: MapHead) -> dict[str, Any]:
    return {
        "origin": head.origin,
        "epoch": head.epoch,
        "timestamp": head.timestamp,
        "map_root": head.map_root.hex(),
        "map_size": head.map_size,
        "log_size": head.log_size,
        "log_root": head.log_root.hex(),
        "queue_next": head.queue_next,
        "config_hash": head.config_hash.hex(),
    }


@click.command("checkpoint")
@click.option(
    "--which", type=click.Choice(["heads", "mutations"]), default="heads", show_default=True, help="The log."
)
@reach_options
@click.pass_context
def checkpoint_command(context: click.Context, /, which: str, **reach: Any) -> None:
    """Print the latest checkpoint of a log, verified and consistent with the trusted one."""
    with Reach(**reach).client() as client:
        head = client.head()
        vouched = show_vouched(output_of(context), client)
    text = head.heads_checkpoint if which == "heads" else head.mutations_checkpoint
    output_of(context).data(
        {"log": which, "checkpoint": text, **vouched}, text.removesuffix("\n").split("\n")
    )
