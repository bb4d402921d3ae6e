"""What owners do with their accounts: make keys, and publish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from kt_es.cli.clients import CHANGE_TIMEOUT, DEFAULT_KEY, Reach, keys_option, signing_keys, until_fresh
from kt_es.cli.context import output_of
from kt_es.cli.editing import check_edits, edit_options, edited, say_unchanged
from kt_es.cli.mine import key_ids, read_mine
from kt_es.cli.output import Output
from kt_es.cli.people import lookup_document, show_checks
from kt_es.cli.profiles import described, read_key_file
from kt_es.cli.signing import confirm, signing_options
from kt_es.client.client import Client
from kt_es.client.keystore import KeyStore, StoredKey
from kt_es.client.publishing import Published
from kt_es.client.trust import Lookup
from kt_es.client.vouching import UNKNOWN_KEYS, Difference, Mine, Proposal
from kt_es.crypto.signatures import ECDSA_P256, ED25519, PrivateKey
from kt_es.errors import RefusedError
from kt_es.formats.keys import PublicKey
from kt_es.formats.notes import encode_base64
from kt_es.formats.profiles import PROFILE_TYPES, ProfileKey
from kt_es.importers.combining import keeping
from kt_es.importers.recognize import fingerprint_of

ALGORITHMS = {"ed25519": ED25519, "p256": ECDSA_P256}


@click.group("keys")
def keys_command() -> None:
    """Your signing keys: they authorize changes to your account."""


@keys_command.command("generate")
@click.argument("name", default=DEFAULT_KEY)
@click.option("--algorithm", type=click.Choice(list(ALGORITHMS)), default="ed25519", show_default=True)
@keys_option
@click.pass_context
def keys_generate(context: click.Context, name: str, algorithm: str, keys: Path) -> None:
    """Make a new signing key called NAME."""
    key = PrivateKey.from_seed(ALGORITHMS[algorithm], os.urandom(32))
    stored = KeyStore(keys).add(name, key)
    output = output_of(context)
    output.ok(f"made {stored.path}; keep a copy: without it your account cannot be changed")
    output.data(_key_document(stored), [stored.public.id.hex()])


@keys_command.command("list")
@keys_option
@click.pass_context
def keys_list(context: click.Context, keys: Path) -> None:
    """List your signing keys."""
    stored = KeyStore(keys).list()
    output_of(context).data(
        {"keys": [_key_document(key) for key in stored]},
        [f"{key.name}  {_algorithm(key.public)}  {key.public.id.hex()}" for key in stored],
    )


def _key_document(key: StoredKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "algorithm": _algorithm(key.public),
        "id": key.public.id.hex(),
        "public": encode_base64(key.public.raw),
    }


def _algorithm(key: PublicKey) -> str:
    return next(name for name, number in ALGORITHMS.items() if number == key.algorithm)


@click.command("put")
@click.argument("label")
@click.option(
    "--key",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A public key or certificate file; may be repeated. Its kind is recognized.",
)
@edit_options
@click.option(
    "--type",
    "kind",
    type=click.Choice(PROFILE_TYPES),
    help="What the files are; raw publishes what is not recognized. Private keys are refused in any case.",
)
@click.option("--rotate-to", "rotate", multiple=True, metavar="NAME", help="Signing keys for later changes.")
@signing_options("the stored one that the present version names")
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
    mine: tuple[str, ...],
    keys: Path,
    **reach: Any,
) -> None:
    """Publish LABEL's keys or change them: shows the change, signs, submits, and verifies that it stands.

    --key names all the keys that are published from then on. --add and --remove change some of them and
    leave the rest.

    Whoever signs a version vouches for its authorized keys. So keys that you do not know are refused:
    keys that are neither stored here nor declared with --mine, and that no version has which a key of yours
    signed. --accept takes such a key over.
    """
    output = output_of(context)
    check_edits(files, added, removed)
    read = [read_key_file(path, kind) for path in files or added]
    profile = [key for file in read for key in file.keys]
    for file in read:
        if file.left_out:
            output.note(f"  {file.path}: text and comments around the keys are not published")
    new = signing_keys(keys, rotate) if rotate else []
    known = read_mine(keys, mine)
    known = replace(known, declared=known.declared | key_ids(accept))
    with Reach(**reach).client(timeout=CHANGE_TIMEOUT, on_stale=until_fresh(output)) as client:
        before = client.lookup(label)
        given = profile
        profile = list(keeping(before.profile or (), given, names=not files))
        for key, wanted in zip(profile, given, strict=True):
            if key.data != wanted.data:
                output.note(f"  {wanted.name}: what only the published copy has stays, such as a revocation")
        if not files:
            profile = edited(client, before, profile, removed)
            if not rotate and before.profile is not None and tuple(profile) == before.profile:
                say_unchanged(output, before)
                return
        signers = choose_signers(keys, names, before)
        publish_change(output, client, before, profile, Signing(signers, new, known, yes))


@dataclass(frozen=True, slots=True)
class Signing:
    """With what a change is signed: keys of the present version, and ``new`` ones for the next.

    ``without`` are authorized keys of the present version that the next one does not have.
    """

    signers: Sequence[StoredKey]
    new: Sequence[StoredKey]
    known: Mine
    yes: bool
    without: Sequence[PublicKey] = ()


def publish_change(
    output: Output, client: Client, before: Lookup, profile: Sequence[ProfileKey], signing: Signing
) -> None:
    """Show the next version, sign and submit it, and print what is proven to stand."""
    stored = {key.public.id: key.name for key in (*signing.signers, *signing.new)}
    proposed = _proposed(client, before, profile, signing)
    for line in _proposal_lines(proposed, profile, stored):
        output.note(line)
    confirm(signing.yes)
    published = client.send(proposed)
    show_checks(output, published.lookup)
    _say_what_stands(output, published)
    document = lookup_document(published.lookup)
    output.data({**document, "stands": published.stands, "signed": _proposal_document(proposed, profile)}, [])


def choose_signers(
    keys: Path, names: tuple[str, ...], before: Lookup, without: Sequence[PublicKey] = ()
) -> list[StoredKey]:
    """The keys to sign with: the named ones, or the stored one that the present version names.

    One of ``without`` is taken only where there is no other one.
    """
    if before.entry is None:
        return signing_keys(keys, names)
    allowed = before.entry.authorized_keys
    store = KeyStore(keys)
    chosen = [store.get(name) for name in names] if names else list(store.list())
    held = [key for key in chosen if key.public in allowed]
    if not held:
        needed = ", ".join(key.id.hex() for key in allowed)
        where = f"the keys {', '.join(names)} are not among them" if names else f"none of them is in {keys}"
        raise RefusedError(
            "unauthorized",
            f"version {before.entry.version} of {before.label} can be changed by the keys {needed} only, and "
            f"{where}",
        )
    if names:
        return chosen
    held = [key for key in held if key.public not in without] or held
    return [key for key in held if key.name == DEFAULT_KEY] or held[:1]


def _proposed(client: Client, before: Lookup, profile: Sequence[ProfileKey], signing: Signing) -> Proposal:
    private = {key.name: key.private for key in (*signing.signers, *signing.new)}
    authorized = [key.public for key in signing.new] or None
    try:
        return client.propose(
            before, profile, list(private.values()), authorized, mine=signing.known, without=signing.without
        )
    except RefusedError as error:
        if error.reason != UNKNOWN_KEYS:
            raise
        raise RefusedError(
            error.reason,
            f"{error.problem}. If you know a key, take it over with --accept KEYID; if not, your account is "
            "in danger: leave the key out with --rotate-to, and tell the operator",
        ) from None


def _say_what_stands(output: Output, published: Published) -> None:
    mutation, proven = published.submission.mutation, published.lookup.entry
    number, label = mutation.entry.version, published.lookup.label
    if published.stands:
        output.ok(f"version {number} of {label} stands in the directory")
    elif proven is not None:
        output.fail(
            f"version {number} of {label} was taken, but version {proven.version} has replaced it already; "
            f"see who signed that: kt history {label}"
        )


def _proposal_lines(
    proposed: Proposal, profile: Sequence[ProfileKey], stored: dict[bytes, str]
) -> Iterator[str]:
    """What is to be signed, for people: ``+`` is added, ``-`` is removed, ``=`` is kept."""
    entry = proposed.submission.mutation.entry
    signers = ", ".join(_key_name(key_id, stored) for key_id in proposed.signers)
    yield f"  version {entry.version} of {proposed.before.label}, signed by {signers}:"
    if proposed.profile is None:
        yield "    keys: the profile of the present version was erased; all are new"
        for key in profile:
            yield f"    + key {described(key)}"
    else:
        for mark, keys in _marked(proposed.profile):
            for key in keys:
                yield f"    {mark} key {described(key)}"
    for mark, authorized in _marked(proposed.authorized):
        for public in authorized:
            yield f"    {mark} authorized to sign the next version: {_key_name(public.id, stored)}"


def _marked(difference: Difference[Any]) -> Iterable[tuple[str, tuple[Any, ...]]]:
    return (("+", difference.added), ("=", difference.kept), ("-", difference.removed))


def _key_name(key_id: bytes, stored: dict[bytes, str]) -> str:
    return f"{key_id.hex()} ({stored[key_id]})" if key_id in stored else key_id.hex()


def _proposal_document(proposed: Proposal, profile: Sequence[ProfileKey]) -> dict[str, Any]:
    return {
        "published": [
            {
                "name": key.name,
                "type": key.type,
                "bytes": len(key.data),
                "fingerprint": fingerprint_of(key.type, key.data),
            }
            for key in profile
        ],
        "version": proposed.submission.mutation.entry.version,
        "signed_by": [key_id.hex() for key_id in proposed.signers],
        "keys": None
        if proposed.profile is None
        else _difference_document(proposed.profile, lambda key: key.name),
        "authorized_keys": _difference_document(proposed.authorized, lambda key: key.id.hex()),
    }


def _difference_document(difference: Difference[Any], name: Callable[[Any], str]) -> dict[str, list[str]]:
    return {
        "added": [name(one) for one in difference.added],
        "kept": [name(one) for one in difference.kept],
        "removed": [name(one) for one in difference.removed],
    }
