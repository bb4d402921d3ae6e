"""``kt revoke``: take lost or stolen signing keys off an account."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kt_es.cli.options import CHANGE_TIMEOUT, Reach, until_fresh
from kt_es.cli.output import output_of
from kt_es.cli.owners.keys import choose_signers, key_ids, read_mine, signing_keys
from kt_es.cli.owners.signing import Signing, publish_change, say_unchanged, signing_options
from kt_es.client.client import Client
from kt_es.client.states import KeyStore
from kt_es.client.trust import Lookup
from kt_es.errors import KtError, RefusedError
from kt_es.formats.entries import ProfileKey, PublicKey


@click.command("revoke")
@click.argument("label")
@click.argument("revoked", metavar="KEY...", nargs=-1, required=True)
@click.option(
    "--replace-with",
    "added",
    multiple=True,
    metavar="NAME",
    help="A signing key of yours to authorize instead; may be repeated.",
)
@signing_options("a stored one that stays authorized")
@click.pass_context
def revoke_command(
    context: click.Context,
    /,
    label: str,
    revoked: tuple[str, ...],
    added: tuple[str, ...],
    names: tuple[str, ...],
    accept: tuple[str, ...],
    yes: bool,
    mine: tuple[str, ...],
    keys: Path,
    **reach: Any,
) -> None:
    """Take signing keys off LABEL's account: sign and publish a version without them.

    KEY is the name of a stored key, or a key id as `kt history` shows it. The published keys stay as they
    are. Versions that the revoked keys signed earlier stay in the history.
    """
    output = output_of(context)
    ids = _revoked_ids(keys, revoked)
    new = signing_keys(keys, added) if added else []
    known = read_mine(keys, mine, accept)
    with Reach(**reach).client(timeout=CHANGE_TIMEOUT, on_stale=until_fresh(output)) as client:
        before = client.lookup(label)
        without = _authorized(client, before, ids)
        if not without:
            _refuse_to_add(before, [key.public for key in new])
            say_unchanged(output, before)
            return
        _refuse_to_revoke_all(before, without, [key.public for key in new])
        signers = choose_signers(keys, names, before, without)
        publish_change(
            output, client, before, _profile(before), Signing(signers, new, known, yes, tuple(without))
        )


def _revoked_ids(keys: Path, revoked: Sequence[str]) -> list[bytes]:
    """Return the key ids of the arguments, each the name of a stored key or an id in hexadecimal."""
    stored = {key.name: key.public.id for key in KeyStore(keys).list()}
    return [stored[word] if word in stored else next(iter(key_ids((word,)))) for word in revoked]


def _authorized(client: Client, before: Lookup, ids: Sequence[bytes]) -> list[PublicKey]:
    """Return the authorized keys to revoke. A key that only an earlier version had is revoked already."""
    entry = before.entry
    if entry is None:
        raise RefusedError("absent", f"{before.label} has no account: there is nothing to revoke")
    missing = set(ids) - {key.id for key in entry.authorized_keys}
    if missing:
        earlier = {
            key.id
            for version in client.history(before.label).versions
            for key in version.entry.authorized_keys
        }
        for key_id in sorted(missing - earlier):
            there = ", ".join(key.id.hex() for key in entry.authorized_keys)
            raise RefusedError(
                "unknown-key",
                f"{key_id.hex()} never was an authorized key of {before.label}; present ones: {there}",
            )
    return [key for key in entry.authorized_keys if key.id in ids]


def _refuse_to_add(before: Lookup, new: Sequence[PublicKey]) -> None:
    """Refuse a replacement that is not authorized yet, where all keys to revoke are gone already."""
    present = () if before.entry is None else before.entry.authorized_keys
    for key in new:
        if key not in present:
            raise RefusedError(
                "unknown-key",
                f"{before.label} has none of the keys to revoke any more, and {key.id.hex()} is not "
                f"authorized: authorize it with `kt put --rotate-to NAME`",
            )


def _refuse_to_revoke_all(before: Lookup, without: Sequence[PublicKey], new: Sequence[PublicKey]) -> None:
    both = [key.id.hex() for key in new if key in without]
    if both:
        raise RefusedError("unauthorized", f"{both[0]} cannot be revoked and authorized by one version")
    present = () if before.entry is None else before.entry.authorized_keys
    if not new and all(key in without for key in present):
        raise RefusedError(
            "unauthorized",
            f"no key would be left that can change {before.label}: make one with `kt keys generate NAME` and "
            f"give it with --replace-with NAME",
        )


def _profile(before: Lookup) -> tuple[ProfileKey, ...]:
    """Return the published keys, to publish them again."""
    if before.profile is None:
        raise KtError(
            f"the profile of {before.label} was erased, so its keys cannot be published again: "
            f"use `kt put --key FILE --rotate-to NAME`"
        )
    return before.profile
