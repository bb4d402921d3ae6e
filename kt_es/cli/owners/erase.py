"""``kt erase``: erase the profile of a version for good. The entry and its commitment stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kt_es.cli.options import CHANGE_TIMEOUT, Reach, reach_options, until_fresh
from kt_es.cli.output import output_of, running_up, settings_of
from kt_es.cli.owners.keys import choose_signers, keys_option
from kt_es.cli.owners.signing import confirm, yes_option
from kt_es.cli.people.get import show_checks
from kt_es.cli.policies import show_vouched
from kt_es.client.client import Client
from kt_es.client.history import Version
from kt_es.client.trust import Lookup
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import RefusedError
from kt_es.formats.entries import PublicKey
from kt_es.formats.erasures import Erasure, ErasureReason

if TYPE_CHECKING:
    from kt_es.config.settings import Settings


@dataclass(frozen=True, slots=True)
class _Signer:
    """The key that signs erasures, its name for people, and the reason of the erasures."""

    key: PrivateKey
    name: str
    reason: ErasureReason

    @property
    def id(self) -> str:
        return PublicKey(self.key.algorithm, self.key.public).id.hex()


@click.command("erase")
@click.argument("label")
@click.option(
    "--version",
    "numbers",
    multiple=True,
    type=click.IntRange(1),
    help="Erase the profile of this version; may be repeated. Default: the present version.",
)
@click.option("--all", "everything", is_flag=True, help="Erase the profiles of all versions.")
@click.option(
    "--operator", is_flag=True, help="Erase as the directory's operator, with the signer key of kt.toml."
)
@click.option(
    "--reason",
    type=click.Choice([reason.label for reason in ErasureReason]),
    help="The operator's reason, which is published; required with --operator.",
)
@click.option("--sign-with", "names", multiple=True, metavar="NAME", help="The owner's signing key.")
@yes_option
@keys_option
@reach_options
@click.pass_context
def erase_command(
    context: click.Context,
    /,
    label: str,
    numbers: tuple[int, ...],
    everything: bool,
    operator: bool,
    reason: str | None,
    names: tuple[str, ...],
    yes: bool,
    keys: Path,
    **reach: Any,
) -> None:
    """Erase what LABEL published: show it, sign the erasure, submit it, and verify that it stands.

    Front ends delete the profile and show it to nobody. The entry keeps its version, its commitment and its
    authorized keys, so the account can be changed as before. An erasure cannot be undone.

    The owner signs with a key of the present version. With --operator the signer key of kt.toml signs, and
    the log publishes --reason for ever.
    """
    output = output_of(context)
    if operator is (reason is None):
        raise click.UsageError("--operator needs a --reason, and --reason is for --operator only")
    if numbers and everything:
        raise click.UsageError("give either --version or --all")
    settings = settings_of(context) if operator else None
    reached = Reach(**reach) if settings is None else _beside(context, Reach(**reach), settings)
    with reached.client(timeout=CHANGE_TIMEOUT, on_stale=until_fresh(output)) as client:
        before = client.lookup(label, profile=False)
        chosen = _chosen(client, before, numbers, everything)
        if settings is None or reason is None:
            signer = _owner(keys, names, before)
        else:
            signer = _operator(client, settings, ErasureReason[reason.upper()])
        pending = [each for each in chosen if not client.lookup(label, each.epoch, profile=False).erased]
        for line in _lines(client, before.label, pending, signer):
            output.note(line)
        if pending:
            confirm(yes)
        origin = before.head.origin
        for version in pending:
            made = Erasure.sign(before.index, version.entry_hash, signer.reason, origin, signer.key)
            client.submit_erasure(made)
        proven = [client.confirm_erasure(before.label, version) for version in chosen]
    show_checks(output, proven[-1])
    for version in chosen:
        output.ok(f"the profile of version {version.number} of {before.label} is erased")
    signed = {
        "versions": [version.number for version in pending],
        "reason": signer.reason.label,
        "signed_by": signer.id,
    }
    erased = [
        {
            "version": version.number,
            "entry": version.entry_hash.hex(),
            "commitment": version.entry.commitment.hex(),
            "erased": lookup.erased,
        }
        for version, lookup in zip(chosen, proven, strict=True)
    ]
    document = {
        "label": before.label,
        "origin": origin,
        "erased": erased,
        "signed": signed if pending else None,
        **show_vouched(output, client),
    }
    output.data(document, [])


def _beside(context: click.Context, reach: Reach, settings: Settings) -> Reach:
    """Return ``reach`` with the front end and the pinned key of ``kt.toml``, unless options name others."""
    given = context.get_parameter_source("server")
    url = running_up(settings.base).get("url") or f"http://{settings.frontend.listen}"
    server = str(url) if given is ParameterSource.DEFAULT else reach.server
    return replace(reach, server=server, vkey=reach.vkey or settings.key)


def _chosen(client: Client, before: Lookup, numbers: Sequence[int], everything: bool) -> list[Version]:
    """Return the versions to erase, by the verified history."""
    if before.entry is None:
        raise RefusedError("absent", f"{before.label} has no account: there is nothing to erase")
    versions = client.history(before.label).versions
    if everything:
        return list(versions)
    missing = [number for number in numbers if number > len(versions)]
    if missing:
        problem = f"{before.label} has no version {missing[0]}; its last one is {len(versions)}"
        raise RefusedError("unknown-version", f"{problem}: give --version up to that")
    return [versions[number - 1] for number in sorted(set(numbers) or {len(versions)})]


def _owner(keys: Path, names: tuple[str, ...], before: Lookup) -> _Signer:
    allowed = () if before.entry is None else before.entry.authorized_keys
    key = next(key for key in choose_signers(keys, names, before) if key.public in allowed)
    return _Signer(key.private, key.name, ErasureReason.OWNER)


def _operator(client: Client, settings: Settings, reason: ErasureReason) -> _Signer:
    from signer.keys import KeyRing

    in_force = client.directory().trusted.configs[-1].config.signer_key
    ring = KeyRing.load(settings.path(settings.signer.keys))
    return _Signer(ring.key_for(in_force), "the signer key", reason)


def _lines(client: Client, label: str, pending: Sequence[Version], signer: _Signer) -> Iterator[str]:
    """Describe what is to be signed: ``-`` is erased, ``=`` stays."""
    for version in pending:
        yield (
            f"  erasure of version {version.number} of {label}, reason: {signer.reason.label}, "
            f"signed by {signer.id} ({signer.name}):"
        )
        for key in client.lookup(label, version.epoch).profile or ():
            yield f"    - key {key.type} {key.name}, {len(key.data)} bytes"
        yield f"    = entry {version.entry_hash.hex()} with its commitment"
