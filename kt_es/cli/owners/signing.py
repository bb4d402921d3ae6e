"""A change of an account: its options, its difference to the present version, the question, the signature."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from kt_es.cli.options import NEW_FILE, options, reach_options
from kt_es.cli.output import Output
from kt_es.cli.owners.keys import described, key_document, keys_option, mine_option
from kt_es.cli.people.get import lookup_document, show_checks
from kt_es.cli.policies import show_vouched
from kt_es.cli.saving import write_private
from kt_es.client.changes import UNKNOWN_KEYS, Difference, Mine, Proposal
from kt_es.client.client import Client
from kt_es.client.states import StoredKey
from kt_es.client.trust import Lookup
from kt_es.errors import ConfigError, KtError, MalformedError, RefusedError
from kt_es.formats.entries import ProfileKey, PublicKey
from kt_es.formats.receipts import MAX_RECEIPT_FILE, ReceiptFile

_F = TypeVar("_F", bound=Callable[..., Any])

yes_option = click.option("--yes", is_flag=True, help="Sign without asking. Only a terminal is asked.")


def signing_options(default: str) -> Callable[[_F], _F]:
    """Add the options of commands that sign a change; ``default`` names who signs without ``--sign-with``."""
    return options(
        click.option(
            "--sign-with", "names", multiple=True, metavar="NAME", help=f"Signing keys; default: {default}."
        ),
        click.option(
            "--accept",
            multiple=True,
            metavar="KEYID",
            help="An authorized key that you know, though it is not yours; may be repeated.",
        ),
        yes_option,
        click.option(
            "--receipt",
            type=NEW_FILE,
            help="Keep the change in this private file, before it is sent: see kt receipt.",
        ),
        click.option("--no-wait", is_flag=True, help="Do not wait for the decision; needs --receipt."),
        mine_option,
        keys_option,
        reach_options,
    )


def confirm(yes: bool) -> None:
    """Ask before signing at a terminal. Without a terminal nobody can answer, and the change was shown."""
    if not yes and sys.stdin.isatty() and not click.confirm("Sign and publish this?", err=True):
        raise KtError("nothing was signed or published: answer y to do so, or give --yes")


@dataclass(frozen=True, slots=True)
class Signing:
    """How a change is signed: by keys of the present version, and by ``new`` ones for the next.

    ``without`` are authorized keys of the present version that the next one does not have. ``receipt`` is the
    file that keeps the change, None for none.
    """

    signers: Sequence[StoredKey]
    new: Sequence[StoredKey]
    known: Mine
    yes: bool
    without: Sequence[PublicKey] = ()
    receipt: Path | None = None
    waits: bool = True


def publish_change(
    output: Output, client: Client, before: Lookup, profile: Sequence[ProfileKey], signing: Signing
) -> None:
    """Show the next version, sign and submit it, and print the version that is proven in the map."""
    stored = {key.public.id: key.name for key in (*signing.signers, *signing.new)}
    proposed = _proposed(client, before, profile, signing)
    for line in _proposal_lines(proposed, profile, stored):
        output.note(line)
    confirm(signing.yes)
    if signing.receipt is not None:
        save_receipt(signing.receipt, proposed)
    if not signing.waits:
        _submit(output, client, proposed, profile)
        return
    published = client.send(proposed)
    show_checks(output, published.lookup)
    number, proven = proposed.submission.mutation.entry.version, published.lookup.entry
    if published.stands:
        output.ok(f"version {number} of {before.label} stands in the directory")
    elif proven is not None:
        output.fail(
            f"version {number} of {before.label} was taken, but version {proven.version} has replaced it "
            f"already; see who signed that: kt history {before.label}"
        )
    document = {**lookup_document(published.lookup), **show_vouched(output, client)}
    output.data({**document, "stands": published.stands, "signed": _proposal_document(proposed, profile)}, [])


def check_receipt(receipt: Path | None, *, no_wait: bool) -> None:
    """Raise ``click.UsageError`` if nobody waits for a decision that nothing can be asked about later."""
    if no_wait and receipt is None:
        raise click.UsageError("--no-wait needs --receipt FILE, with which you ask later what became of it")


def save_receipt(path: Path, proposed: Proposal) -> None:
    """Write a change to the private file ``path``, which must be new or an earlier receipt."""
    submission = proposed.submission
    made = (submission.label, submission.mutation, submission.opening, submission.profile)
    if os.path.lexists(path):
        read_receipt_file(path)
    write_private(path, ReceiptFile(proposed.before.head.origin, *made).encode())


def read_receipt_file(path: Path) -> ReceiptFile:
    """Read a receipt file. Raises ``ConfigError``."""
    try:
        with path.open("rb") as file:
            return ReceiptFile.decode(file.read(MAX_RECEIPT_FILE + 1))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name another file") from None
    except MalformedError as error:
        raise ConfigError(f"{path} is no receipt ({error}): name another file") from None


def _submit(output: Output, client: Client, proposed: Proposal, profile: Sequence[ProfileKey]) -> None:
    """Submit a change without waiting for its decision."""
    receipt, number = client.submit(proposed.submission), proposed.submission.mutation.entry.version
    output.ok(f"version {number} of {proposed.before.label} is submitted; kt receipt says what became of it")
    document = {"label": proposed.before.label, "mutation": receipt.mutation, "verdict": receipt.verdict}
    vouched = show_vouched(output, client)
    output.data({**document, **vouched, "signed": _proposal_document(proposed, profile)}, [])


def say_unchanged(output: Output, client: Client, before: Lookup) -> None:
    """Print that the present version is already the wanted one, so that nothing needs a signature."""
    number = None if before.entry is None else before.entry.version
    show_checks(output, before)
    output.ok(f"version {number} of {before.label} is like that already; nothing was signed")
    document = {**lookup_document(before), **show_vouched(output, client)}
    output.data({**document, "stands": True, "signed": None}, [])


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


def _proposal_lines(
    proposed: Proposal, profile: Sequence[ProfileKey], stored: dict[bytes, str]
) -> Iterator[str]:
    """Describe what is to be signed: ``+`` is added, ``-`` is removed, ``=`` is kept."""
    entry = proposed.submission.mutation.entry
    signers = ", ".join(_key_name(key_id, stored) for key_id in proposed.signers)
    yield f"  version {entry.version} of {proposed.before.label}, signed by {signers}:"
    if proposed.profile is None:
        yield "    keys: the profile of the present version was erased; all are new"
        for key in profile:
            yield f"    + key {described(key)}"
    else:
        for _, mark, keys in _parts(proposed.profile):
            for key in keys:
                yield f"    {mark} key {described(key)}"
    for _, mark, authorized in _parts(proposed.authorized):
        for public in authorized:
            yield f"    {mark} authorized to sign the next version: {_key_name(public.id, stored)}"


def _parts(difference: Difference[Any]) -> Iterable[tuple[str, str, tuple[Any, ...]]]:
    """Return the parts of a difference, each with its name in a document and its mark in a line."""
    return (
        ("added", "+", difference.added),
        ("kept", "=", difference.kept),
        ("removed", "-", difference.removed),
    )


def _key_name(key_id: bytes, stored: dict[bytes, str]) -> str:
    return f"{key_id.hex()} ({stored[key_id]})" if key_id in stored else key_id.hex()


def _proposal_document(proposed: Proposal, profile: Sequence[ProfileKey]) -> dict[str, Any]:
    return {
        "published": [key_document(key) for key in profile],
        "version": proposed.submission.mutation.entry.version,
        "signed_by": [key_id.hex() for key_id in proposed.signers],
        "keys": None
        if proposed.profile is None
        else {kind: [key.name for key in keys] for kind, _, keys in _parts(proposed.profile)},
        "authorized_keys": {
            kind: [key.id.hex() for key in keys] for kind, _, keys in _parts(proposed.authorized)
        },
    }
