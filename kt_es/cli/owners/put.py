"""``kt put`` and ``kt revoke``: change the published keys of an account, or take signing keys off it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kt_es.cli.options import CHANGE_TIMEOUT, FILE, Reach, proof_option, until_fresh
from kt_es.cli.output import output_of
from kt_es.cli.owners.keys import choose_signers, key_ids, read_key_file, read_mine, signing_keys
from kt_es.cli.owners.register import explained
from kt_es.cli.owners.signing import (
    Signing,
    check_receipt,
    publish_change,
    say_unchanged,
    signing_options,
)
from kt_es.client.client import Client
from kt_es.client.states import KeyStore
from kt_es.client.trust import Lookup
from kt_es.errors import KtError, RefusedError
from kt_es.formats.entries import PROFILE_TYPES, ProfileKey, PublicKey
from kt_es.importers.accounts import keeping


@click.command("put")
@click.argument("label")
@click.option(
    "--key",
    "files",
    multiple=True,
    type=FILE,
    help="A public key or certificate file; may be repeated. Its kind is recognized.",
)
@click.option(
    "--add",
    "added",
    multiple=True,
    type=FILE,
    help="A file to publish beside the present keys; it replaces a key of the same name. May be repeated.",
)
@click.option(
    "--remove",
    "removed",
    multiple=True,
    metavar="NAME",
    help="The name of a published key to remove; the others stay. May be repeated.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(PROFILE_TYPES),
    help="The type of the files; raw publishes what is not recognized. Private keys are always refused.",
)
@click.option("--rotate-to", "rotate", multiple=True, metavar="NAME", help="Signing keys for later changes.")
@signing_options("the stored one that the present version names")
@proof_option
@click.pass_context
def put_command(
    context: click.Context,
    /,
    label: str,
    files: tuple[Path, ...],
    kind: str | None,
    added: tuple[Path, ...],
    removed: tuple[str, ...],
    names: tuple[str, ...],
    rotate: tuple[str, ...],
    accept: tuple[str, ...],
    yes: bool,
    receipt: Path | None,
    no_wait: bool,
    mine: tuple[str, ...],
    keys: Path,
    **reach: Any,
) -> None:
    """Publish LABEL's keys or change them: show the change, sign it, submit it, and verify that it stands.

    --key names all keys to publish. --add and --remove change some keys and leave the rest.

    Whoever signs a version vouches for its authorized keys. So a key that you do not know is refused: a key
    that is neither stored here nor declared with --mine, and that no version signed by a key of yours has.
    --accept takes such a key over.
    """
    output = output_of(context)
    _check_edits(files, added, removed)
    check_receipt(receipt, no_wait=no_wait)
    read = [read_key_file(path, kind) for path in files or added]
    for file in read:
        if file.left_out:
            output.note(f"  {file.path}: text and comments around the keys are not published")
    given = [key for file in read for key in file.keys]
    new = signing_keys(keys, rotate) if rotate else []
    known = read_mine(keys, mine, accept)
    with Reach(**reach).client(timeout=CHANGE_TIMEOUT, on_stale=until_fresh(output)) as client:
        before = client.lookup(label)
        profile = list(keeping(before.profile or (), given, names=not files))
        for key, wanted in zip(profile, given, strict=True):
            if key.data != wanted.data:
                output.note(f"  {wanted.name}: what only the published copy has stays, such as a revocation")
        if not files:
            profile = _edited(client, before, profile, removed)
            if not rotate and before.profile is not None and tuple(profile) == before.profile:
                say_unchanged(output, client, before)
                return
        signers = choose_signers(keys, names, before)
        with explained(client):
            signing = Signing(signers, new, known, yes, receipt=receipt, waits=not no_wait)
            publish_change(output, client, before, profile, signing)


def _check_edits(files: Sequence[Path], added: Sequence[Path], removed: Sequence[str]) -> None:
    """Raise ``click.UsageError`` unless the options name either all keys or changes, each name once."""
    if files and (added or removed):
        raise click.UsageError("--key names all keys that are published: leave out --add and --remove")
    if not (files or added or removed):
        raise click.UsageError("nothing to publish: give --key FILE, or --add FILE and --remove NAME")
    names = [*(path.name[:255] for path in added), *removed]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"--add and --remove name {name} more than once: leave one of them out")


def _edited(
    client: Client, before: Lookup, added: Sequence[ProfileKey], removed: Sequence[str]
) -> list[ProfileKey]:
    """Return the present profile with some keys added, replaced and removed.

    A name to remove that is not published is refused, unless an earlier version had it: then the command
    is repeated, and its work is done.
    """
    if before.erased and not added:
        problem = f"the profile of {before.label} was erased: no key is left to be removed"
        raise RefusedError("erased", f"{problem}; publish keys with --key FILE", "remove")
    present = before.profile or ()
    missing = [name for name in removed if name not in {key.name for key in present}]
    if missing:
        _refuse_unknown_names(client, before, missing)
    changed = {key.name: key for key in added}
    replaced = [changed.get(key.name, key) for key in present if key.name not in removed]
    there = {key.name for key in replaced}
    # Two published keys may have the same name. The key that replaces both is listed once.
    return list(dict.fromkeys([*replaced, *(key for key in added if key.name not in there)]))


def _refuse_unknown_names(client: Client, before: Lookup, missing: Sequence[str]) -> None:
    if before.entry is None:
        problem = f"{before.label} has published nothing: leave --remove out"
        raise RefusedError("unknown-name", problem, "remove")
    earlier = {
        key.name
        for version in client.history(before.label, profiles=True).versions
        for key in version.profile or ()
    }
    never = [name for name in missing if name not in earlier]
    if never:
        named = ", ".join(key.name for key in before.profile or ()) or "none"
        problem = f"{before.label} has no key called {', '.join(never)}; its keys are called: {named}"
        raise RefusedError("unknown-name", f"{problem}; give --remove one of them", "remove")


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
    receipt: Path | None,
    no_wait: bool,
    mine: tuple[str, ...],
    keys: Path,
    **reach: Any,
) -> None:
    """Take signing keys off LABEL's account: sign and publish a version without them.

    KEY is the name of a stored key, or a key id as `kt history` shows it. The published keys stay as they
    are. Versions that the revoked keys signed earlier stay in the history.
    """
    output = output_of(context)
    check_receipt(receipt, no_wait=no_wait)
    ids = _revoked_ids(keys, revoked)
    new = signing_keys(keys, added) if added else []
    known = read_mine(keys, mine, accept)
    with Reach(**reach).client(timeout=CHANGE_TIMEOUT, on_stale=until_fresh(output)) as client:
        before = client.lookup(label)
        if before.entry is None:
            raise RefusedError("absent", f"{before.label} has no account: there is nothing to revoke")
        present = before.entry.authorized_keys
        _refuse_unknown_keys(client, before, ids, present)
        without = tuple(key for key in present if key.id in ids)
        if not without:
            # Every key to revoke was authorized earlier and is gone, so the command is repeated.
            _refuse_to_add(before, present, [key.public for key in new])
            say_unchanged(output, client, before)
            return
        _refuse_to_revoke_all(before, present, without, [key.public for key in new])
        if before.profile is None:
            raise KtError(
                f"the profile of {before.label} was erased, so its keys cannot be published again: "
                f"use `kt put --key FILE --rotate-to NAME`"
            )
        signers = choose_signers(keys, names, before, without)
        signing = Signing(signers, new, known, yes, without, receipt, not no_wait)
        publish_change(output, client, before, before.profile, signing)


def _revoked_ids(keys: Path, revoked: Sequence[str]) -> list[bytes]:
    """Return the key ids of the arguments, each the name of a stored key or an id in hexadecimal."""
    stored = {key.name: key.public.id for key in KeyStore(keys).list()}
    return [stored[word] if word in stored else next(iter(key_ids((word,)))) for word in revoked]


def _refuse_unknown_keys(
    client: Client, before: Lookup, ids: Sequence[bytes], present: Sequence[PublicKey]
) -> None:
    """Refuse ids that no version of the account authorized."""
    missing = set(ids) - {key.id for key in present}
    if not missing:
        return
    versions = client.history(before.label).versions
    earlier = {key.id for version in versions for key in version.entry.authorized_keys}
    for key_id in sorted(missing - earlier):
        there = ", ".join(key.id.hex() for key in present)
        raise RefusedError(
            "unknown-key",
            f"{key_id.hex()} never was an authorized key of {before.label}; name one of these: {there}",
        )


def _refuse_to_add(before: Lookup, present: Sequence[PublicKey], new: Sequence[PublicKey]) -> None:
    for key in new:
        if key not in present:
            raise RefusedError(
                "unknown-key",
                f"{before.label} has none of the keys to revoke any more, and {key.id.hex()} is not "
                f"authorized: authorize it with `kt put --rotate-to NAME`",
            )


def _refuse_to_revoke_all(
    before: Lookup, present: Sequence[PublicKey], without: Sequence[PublicKey], new: Sequence[PublicKey]
) -> None:
    for key in new:
        if key in without:
            raise RefusedError(
                "unauthorized",
                f"{key.id.hex()} cannot be revoked and authorized by one version: name another key with "
                "--replace-with",
            )
    if not new and all(key in without for key in present):
        raise RefusedError(
            "unauthorized",
            f"no key would be left that can change {before.label}: make one with `kt keys generate NAME` and "
            f"give it with --replace-with NAME",
        )
