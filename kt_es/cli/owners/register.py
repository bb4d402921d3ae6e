"""``kt register``: how a directory lets people register a new account, and the proofs that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from kt_es.cli.options import EVIDENCE_VARIABLE, Reach, options, reach_options
from kt_es.cli.output import output_of
from kt_es.cli.owners.keys import keys_option, signing_keys
from kt_es.client.client import Client
from kt_es.client.registering import RegistrationWays
from kt_es.errors import RefusedError, UnavailableError
from kt_es.formats.registration import EMAIL, OIDC, OPEN, TOKENS

_GIVE = f"give it with --proof-file FILE or in {EVIDENCE_VARIABLE}"

_first_keys = options(
    click.option(
        "--sign-with",
        "names",
        multiple=True,
        metavar="NAME",
        help="The signing keys of the first version; may be repeated. Default as for `kt put`.",
    ),
    keys_option,
    reach_options,
)


def next_steps(ways: RegistrationWays, label: str = "LABEL") -> list[str]:
    """Return what a person can do to register a label, one line for each way."""
    steps = {
        OPEN: "anybody may register a free label: just `kt put` it",
        TOKENS: f"ask the operator for a token, and {_GIVE}",
        EMAIL: f"run `kt register mail {label}`, read the proof in the mail, and {_GIVE}",
        OIDC: f"sign in at {ways.issuer} as the client {ways.client_id}, with the nonce that "
        f"`kt register nonce {label}` prints, and take the ID token: {_GIVE}",
    }
    return [steps[name] for name in ways.ways]


@contextmanager
def explained(client: Client) -> Iterator[None]:
    """Add to a refusal to register a label what the person can do next."""
    try:
        yield
    except RefusedError as error:
        if error.reason not in ("registration-required", "registration-refused"):
            raise
        try:
            steps = "; or ".join(next_steps(client.registering.ways()))
        except UnavailableError:
            # The refusal says the ways as well, in fewer words.
            raise error from None
        raise RefusedError(error.reason, f"{error.problem}. What to do: {steps}", error.field) from None


@click.group("register")
def register_command() -> None:
    """Get leave to register a new account, where a directory asks for it.

    `kt put` registers the account. An account that exists needs no leave: its owner signs each change.
    """


@register_command.command("ways")
@reach_options
@click.pass_context
def register_ways(context: click.Context, /, **reach: Any) -> None:
    """Show how the directory lets people register an account."""
    with Reach(**reach).client() as client:
        ways = client.registering.ways()
    document = {"ways": list(ways.ways), "issuer": ways.issuer, "client_id": ways.client_id}
    output_of(context).data(document, next_steps(ways))


@register_command.command("mail")
@click.argument("label")
@_first_keys
@click.pass_context
def register_mail(
    context: click.Context, /, label: str, names: tuple[str, ...], keys: Path, **reach: Any
) -> None:
    """Let the directory send a registration proof to LABEL, which is your address.

    The proof is of use only with the keys that are named here, so `kt put` must sign with the same keys.
    """
    output = output_of(context)
    first = [key.public for key in signing_keys(keys, names)]
    with Reach(**reach).client() as client:
        bound = client.registering.request_mail(label, first)
    output.ok(f"a mail is on its way to {bound.label}, with the check code {bound.check}")
    output.note("  if the mail has another check code, do not use it")
    output.note(f"  then: kt put {bound.label} --key FILE, and {_GIVE}")
    output.data({"label": bound.label, "check": bound.check}, [])


@register_command.command("nonce")
@click.argument("label")
@_first_keys
@click.pass_context
def register_nonce(
    context: click.Context, /, label: str, names: tuple[str, ...], keys: Path, **reach: Any
) -> None:
    """Print the nonce with which to sign in at the OpenID Connect issuer of the directory.

    The ID token is of use only with the keys that are named here, so `kt put` must sign with the same keys.
    """
    first = [key.public for key in signing_keys(keys, names)]
    with Reach(**reach).client() as client:
        bound = client.registering.binding(label, first)
    output_of(context).data({"label": bound.label, "nonce": bound.nonce}, [bound.nonce])
