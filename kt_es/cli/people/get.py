"""``kt get`` and ``kt verify``: look an account up, or verify a saved proof or evidence without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kt_es.cli.options import (
    FILE,
    LOOKUP_TIMEOUT,
    NEW_FILE,
    NEW_FOLDER,
    Reach,
    reach_options,
    state_option,
)
from kt_es.cli.output import Output, at, output_of
from kt_es.cli.people.many import key_line, read_labels, show_many
from kt_es.cli.people.others import compare_with, others_options
from kt_es.cli.policies import show_vouched
from kt_es.cli.saving import save_profile, save_proof
from kt_es.client.client import Client
from kt_es.client.history import History, Version
from kt_es.client.offline import Conviction, verify_evidence, verify_proof
from kt_es.client.state import FileStateStore
from kt_es.client.states import States
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Pinned
from kt_es.errors import ConfigError, EquivocationError, MalformedError, UnavailableError, VerificationError
from kt_es.formats.batches import MAX_BATCH
from kt_es.formats.evidence import MAX_EVIDENCE_FILE, evidence_in
from kt_es.formats.notes import encode_base64
from kt_es.formats.proofs import PROOF_FILE, ProofFile

PROVEN_ABSENT = 3
NOTHING: Mapping[str, Any] = {}


@click.command("get")
@click.argument("labels", metavar="LABEL...", nargs=-1)
@click.option("--from", "source", type=FILE, help="Look up the labels in FILE, one a line, as well.")
@click.option("--epoch", type=click.IntRange(1), help="Look up this epoch; default the latest.")
@click.option("--out", type=NEW_FILE, help="Save the proof to FILE.")
@click.option("--save", type=NEW_FOLDER, help="Save the keys as files in a directory.")
@others_options
@reach_options
@click.pass_context
def get_command(
    context: click.Context,
    /,
    labels: tuple[str, ...],
    source: Path | None,
    epoch: int | None,
    out: Path | None,
    save: Path | None,
    also: tuple[str, ...],
    watchers: bool,
    **reach: Any,
) -> int:
    """Look each LABEL up, verify everything, and print its keys.

    Several labels are looked up together, up to 1000 in one request. The exit code is 3 if one of them is
    proven absent.
    """
    output = output_of(context)
    wanted = [*labels, *(() if source is None else read_labels(source))]
    if not wanted:
        raise click.UsageError("there is no label to look up: give LABEL, or a file of labels with --from")
    if len(wanted) > 1:
        if out is not None or save is not None:
            raise click.UsageError("--out and --save are for one label: leave them out, or give one LABEL")
        return _get_many(output, Reach(**reach), wanted, epoch, also, watchers)
    with Reach(**reach).client() as client:
        lookup = client.lookup(wanted[0], epoch)
        shown = {**compare_with(output, client, also, watchers), **show_vouched(output, client)}
        changes = changes_since(client, lookup)
    if out is not None:
        save_proof(out, lookup.proof)
        output.note(f"  proof saved to {out}")
    if save is not None:
        save_profile(save, lookup.profile or ())
    return show_lookup(output, lookup, changes, shown)


def _get_many(
    output: Output,
    reach: Reach,
    labels: Sequence[str],
    epoch: int | None,
    also: Sequence[str],
    watchers: bool,
) -> int:
    # The limit of time is for a request, as everywhere.
    timeout = (reach.timeout or LOOKUP_TIMEOUT) * (1 + len(labels) // MAX_BATCH)
    with reach.client() as client:
        found = client.lookup_many(labels, epoch, timeout=timeout)
        shown = {**compare_with(output, client, also, watchers), **show_vouched(output, client)}
        lookups = list({lookup.label: lookup for lookup in found}.values())
        changes = [changes_since(client, lookup) for lookup in lookups]
    lines = [
        f"{lookup.label}: {line}"
        for lookup, change in zip(lookups, changes, strict=True)
        if change is not None and change.document.get("changed")
        for line in change.lines
    ]
    documents = [_document(*pair) for pair in zip(lookups, changes, strict=True)]
    show_many(output, lookups, lines, documents, shown)
    return PROVEN_ABSENT if any(lookup.absent for lookup in lookups) else 0


def show_checks(output: Output, lookup: Lookup | History) -> None:
    for check in lookup.checks:
        output.ok(check)


def show_lookup(
    output: Output,
    lookup: Lookup,
    changes: AccountChanges | None = None,
    others: Mapping[str, Any] = NOTHING,
) -> int:
    """Print a lookup, and return the exit code. ``others`` are members for ``--json``, printed already."""
    show_checks(output, lookup)
    for line in () if changes is None else changes.lines:
        output.note(f"  {line}")
    output.note(f"  as of {at(lookup.timestamp)}, epoch {lookup.epoch} of {lookup.head.origin}")
    if lookup.absent:
        lines = []
    elif lookup.profile is None:
        lines = [f"{lookup.label}  (profile erased)" if lookup.erased else lookup.label]
    else:
        lines = [key_line(key) for key in lookup.profile]
    output.data({**_document(lookup, changes), **others}, lines)
    return PROVEN_ABSENT if lookup.absent else 0


def _document(lookup: Lookup, changes: AccountChanges | None) -> dict[str, Any]:
    document = lookup_document(lookup)
    if changes is not None:
        document["since_last_time"] = changes.document
    return document


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
        "keys": None
        if lookup.profile is None
        else [
            {"name": key.name, "type": key.type, "data": encode_base64(key.data)} for key in lookup.profile
        ],
        "authorized_keys": None if entry is None else [key.id.hex() for key in entry.authorized_keys],
        "checks": list(lookup.checks),
    }


@dataclass(frozen=True, slots=True)
class AccountChanges:
    """What changed in an account since this client saw it last. ``document`` is for ``--json``."""

    lines: tuple[str, ...]
    document: dict[str, Any]


def changes_since(client: Client, lookup: Lookup) -> AccountChanges | None:
    """Return what changed since the last lookup; None if ``lookup`` is about a past epoch.

    A change is shown by the verified history: each version since then, its epoch, and who signed it.
    """
    before = lookup.before
    if not lookup.latest or (before is not None and before.last.epoch > lookup.epoch):
        return None
    if before is None:
        return AccountChanges(("never looked up before: remembered from now on",), {"seen_before": False})
    seen = before.last
    document = {
        "seen_before": True,
        "version": seen.version or None,
        "epoch": seen.epoch,
        "first_seen": before.first.at,
        "last_seen": seen.at,
    }
    if seen.entry == lookup.sight.entry:
        line = f"unchanged since {at(before.first.at)}, first seen in epoch {before.first.epoch}"
        line = line if seen.version else f"still nobody: {line}"
        return AccountChanges((line,), {**document, "changed": False, "versions": []})
    new = 0 if lookup.entry is None else lookup.entry.version
    what = f"version {seen.version} → {new}" if seen.version else "published since then"
    lines = [f"CHANGED since {at(seen.at)}, when epoch {seen.epoch} was seen: {what}"]
    versions: list[Version] = []
    try:
        history = client.history(lookup.label).versions
        versions = [version for version in history if seen.version < version.number <= new]
    except UnavailableError as error:
        lines.append(f"the history of the change is not available now: {error}")
    shown = []
    for version in versions:
        number, epoch, signers = version.number, version.epoch, [key.id.hex() for key in version.signers]
        when, who = at(version.timestamp), ", ".join(signers)
        lines.append(f"version {number} since epoch {epoch}, {when}, signed by {who}")
        shown.append(
            {"version": number, "epoch": epoch, "timestamp": version.timestamp, "signed_by": signers}
        )
    return AccountChanges(tuple(lines), {**document, "changed": True, "versions": shown})


@click.command("verify")
@click.argument("file", type=FILE)
@click.option("--vkey", help="The directory's key; default the trusted key, or else that of FILE.")
@state_option
@click.pass_context
def verify_command(context: click.Context, file: Path, vkey: str | None, state: Path) -> int:
    """Verify a saved proof, or evidence of a contradiction, without a network."""
    output = output_of(context)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_EVIDENCE_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; name another file") from None
    given = None if vkey is None else Pinned.parse(vkey)
    states = States(state)
    try:
        evidence = evidence_in(data)
    except MalformedError as error:
        raise VerificationError("evidence", error.problem) from None
    if evidence is not None:
        return _show_evidence(output, *_convicted(evidence, given, states))
    if PROOF_FILE.encode() not in data[: len(PROOF_FILE) + 8]:
        raise ConfigError(
            f"{file} is neither a saved proof nor evidence: name a file that kt get --out wrote"
        )
    try:
        proof = ProofFile.decode(data)
    except MalformedError as error:
        raise VerificationError("proof file", str(error)) from None
    store = states.existing(proof.origin)
    pinned = given or _trusted(store)
    vouched = pinned is not None
    if pinned is None:
        pinned = Pinned(proof.origin, proof.configs[0].config.signer_key)
        output.note(f"  no --vkey given: taking the file's word for {pinned.vkey}")
    elif given is None:
        output.note(f"  no --vkey given: verifying under the trusted key {pinned.vkey}")
    return show_lookup(output, verify_proof(proof, pinned, store, vouched=vouched))


def _trusted(store: FileStateStore | None) -> Pinned | None:
    trusted = None if store is None else store.load()
    return None if trusted is None else trusted.pinned


def _convicted(data: bytes, given: Pinned | None, states: States) -> tuple[Conviction, bool]:
    """Return what the evidence proves, and whether the directory's key was given or is trusted."""
    convicted = verify_evidence(data, given)
    if given is not None:
        return convicted, True
    trusted = _trusted(states.existing(convicted.evidence.origin))
    return verify_evidence(data, trusted), trusted is not None


def _show_evidence(output: Output, convicted: Conviction, vouched: bool) -> int:
    evidence, key = convicted.evidence, convicted.first.vkey
    output.fail(f"{evidence.origin}: {convicted.sentence}")
    output.note(f"  signed by the directory whose first key is {key}")
    if not vouched:
        output.note("  no --vkey given: compare that key with the one that the operator published")
    document = {
        "evidence": evidence.kind.value,
        "origin": evidence.origin,
        "key": key,
        "vouched": vouched,
        "contradiction": convicted.sentence,
    }
    output.data(document, [convicted.sentence])
    return EquivocationError.exit_code
