"""What a front end shows of the log of heads: epochs, checkpoint."""

from __future__ import annotations

from typing import Any

import click

from kt_es.cli.clients import Reach, reach_options
from kt_es.cli.context import output_of
from kt_es.cli.output import at
from kt_es.client.session import DirectoryHead
from kt_es.formats.heads import MapHead


@click.command("epochs")
@click.option("--last", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@reach_options
@click.pass_context
def epochs_command(context: click.Context, /, last: int, **reach: Any) -> None:
    """The latest epochs, each head verified."""
    with Reach(**reach).client() as client:
        heads = [shown.head for shown in client.heads(last)]
    output_of(context).data(
        {"epochs": [head_document(head) for head in heads]},
        [
            f"epoch {head.epoch}  {at(head.timestamp)}  {head.map_size} entries  {head.log_size} records  "
            f"{head.map_root.hex()[:16]}"
            for head in heads
        ],
    )


def head_document(head: MapHead) -> dict[str, Any]:
    """A head as ``--json`` shows it."""
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
@click.option("--which", type=click.Choice(["heads", "mutations"]), default="heads", show_default=True)
@reach_options
@click.pass_context
def checkpoint_command(context: click.Context, /, which: str, **reach: Any) -> None:
    """The latest checkpoint of a log, verified and consistent with what was trusted before."""
    with Reach(**reach).client() as client:
        head: DirectoryHead = client.head()
    text = head.heads_checkpoint if which == "heads" else head.mutations_checkpoint
    output_of(context).data({"log": which, "checkpoint": text}, text.removesuffix("\n").split("\n"))
