"""What users do: look a label up, and show what was proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kt_es.cli.changes import Changes, changes_since
from kt_es.cli.clients import Reach, reach_options
from kt_es.cli.context import output_of
from kt_es.cli.output import Output, at
from kt_es.cli.saving import save_profile, save_proof
from kt_es.client.history import History
from kt_es.client.trust import Lookup
from kt_es.formats.notes import encode_base64
from kt_es.formats.profiles import ProfileKey

PROVEN_ABSENT = 3


@click.command("get")
@click.argument("label")
@click.option("--epoch", type=click.IntRange(1), help="As it stood in this epoch; default the latest.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the proof to FILE.")
@click.option(
    "--save", type=click.Path(path_type=Path, file_okay=False), help="Save the keys as files in a directory."
)
@reach_options
@click.pass_context
def get_command(
    context: click.Context,
    /,
    label: str,
    epoch: int | None,
    out: Path | None,
    save: Path | None,
    **reach: Any,
) -> int:
    """Look LABEL up, verify everything, and print its keys."""
    output = output_of(context)
    with Reach(**reach).client() as client:
        lookup = client.lookup(label, epoch)
        changes = changes_since(client, lookup)
    if out is not None:
        save_proof(out, lookup.proof)
        output.note(f"  proof saved to {out}")
    if save is not None:
        save_profile(save, lookup.profile or ())
    return show_lookup(output, lookup, changes)


def show_checks(output: Output, lookup: Lookup | History) -> None:
    for check in lookup.checks:
        output.ok(check)


def show_lookup(output: Output, lookup: Lookup, changes: Changes | None = None) -> int:
    """The lookup for people or as JSON; the exit code."""
    show_checks(output, lookup)
    for line in () if changes is None else changes.lines:
        output.note(f"  {line}")
    output.note(f"  as of {at(lookup.timestamp)}, epoch {lookup.epoch} of {lookup.head.origin}")
    if lookup.absent:
        lines = []
    elif lookup.profile is None:
        lines = [f"{lookup.label}  (profile erased)" if lookup.erased else lookup.label]
    else:
        lines = [_key_line(key) for key in lookup.profile]
    document = lookup_document(lookup)
    if changes is not None:
        document["since_last_time"] = changes.document
    output.data(document, lines)
    return PROVEN_ABSENT if lookup.absent else 0


def _key_line(key: ProfileKey) -> str:
    text = (
        key.data.decode("ascii", "replace").strip()
        if key.type in ("ssh", "age")
        else f"{len(key.data)} bytes"
    )
    return f"{key.type}  {key.name}  {text}"


def lookup_document(lookup: Lookup) -> dict[str, Any]:
    entry = lookup.entry
    return {
        "label": lookup.label,
        "origin": lookup.head.origin,
        "epoch": lookup.epoch,
        "timestamp": lookup.timestamp,
        "absent": lookup.absent,
        "erased": lookup.erased,
        "version": None if entry is None else entry.version,
        "keys": None if lookup.profile is None else [_profile_document(key) for key in lookup.profile],
        "authorized_keys": None if entry is None else [key.id.hex() for key in entry.authorized_keys],
        "checks": list(lookup.checks),
    }


def _profile_document(key: ProfileKey) -> dict[str, str]:
    return {"name": key.name, "type": key.type, "data": encode_base64(key.data)}
