"""``kt registration``: tokens for people who may register an account, and the key of registration mails."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kt_es.cli.options import NEW_FILE, Number, options
from kt_es.cli.output import at, output_of, settings_of
from kt_es.cli.saving import write_private
from kt_es.config.registration import KEY_LENGTH, EmailTable
from kt_es.errors import ConfigError, counted
from kt_es.formats.registration import TOKENS, new_token
from kt_es.process.space import unwritable
from kt_es.server.registration.tokens import (
    ID_LENGTH,
    MAX_NOTE,
    Token,
    check_pattern,
    digest_of,
    read_tokens,
    write_tokens,
)

DAY = 24 * 3600

_file_option = options(
    click.option(
        "--file", "path", type=NEW_FILE, help="The file of tokens; default `registration.tokens` of kt.toml."
    ),
)


@click.group("registration")
def registration_command() -> None:
    """Hand out and revoke tokens with which people may register an account.

    `kt frontend` reads the file of tokens at its start and after SIGHUP.
    """


@registration_command.command("token")
@click.option(
    "--labels",
    required=True,
    metavar="PATTERN",
    help="The labels that it is for: a label, or a pattern such as '*@example.org'.",
)
@click.option("--days", type=Number(0.001), default=30.0, show_default=True, help="How long it is valid.")
@click.option("--note", default="", help="To whom it is given, for instance. Shown by `tokens` alone.")
@_file_option
@click.pass_context
def registration_token(
    context: click.Context, labels: str, days: float, note: str, path: Path | None
) -> None:
    """Make a token, and print it. It is not kept: the file has its hash.

    A token for one label works once, since the label then has an owner. One for a pattern works until it
    expires or is revoked.
    """
    if len(note) > MAX_NOTE or not (note or " ").isprintable():
        raise ConfigError(f"--note must have at most {MAX_NOTE} printable characters")
    check_pattern(labels)
    output, path = output_of(context), _path(context, path)
    text = new_token(secrets.token_bytes(32))
    token = Token(digest_of(text), labels, round(time.time() + days * DAY), note)
    with _changing(path) as tokens:
        tokens.append(token)
    output.ok(f"made the token {token.id} for {labels}, valid until {_end(token)}")
    output.note("  send SIGHUP to the front ends, and copy the file to those on other machines")
    output.data({"id": token.id, "token": text, "labels": labels, "until": token.until}, [text])


@registration_command.command("tokens")
@_file_option
@click.pass_context
def registration_tokens(context: click.Context, path: Path | None) -> None:
    """List the tokens by their ids, without the tokens themselves."""
    tokens = read_tokens(_path(context, path))
    output_of(context).data(
        {
            "tokens": [
                {"id": token.id, "labels": token.labels, "until": token.until, "note": token.note}
                for token in tokens
            ]
        },
        [f"{token.id}  {_end(token)}  {token.labels}  {token.note}".rstrip() for token in tokens],
    )


@registration_command.command("revoke")
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--expired", is_flag=True, help="Remove the tokens that have expired.")
@_file_option
@click.pass_context
def registration_revoke(
    context: click.Context, ids: tuple[str, ...], expired: bool, path: Path | None
) -> None:
    """Remove tokens from the file. Accounts that were registered with them stay."""
    if not ids and not expired:
        raise click.UsageError(
            "no token is named: give ids as `kt registration tokens` lists them, or --expired"
        )
    output, path, now = output_of(context), _path(context, path), time.time()
    with _changing(path) as tokens:
        for named in ids:
            if named not in {token.id for token in tokens}:
                raise ConfigError(
                    f"{path} has no token {named!r}: give the {ID_LENGTH} digits that "
                    "`kt registration tokens` lists"
                )
        gone = [
            token
            for token in tokens
            if token.id in ids or (expired and token.until is not None and token.until <= now)
        ]
        tokens[:] = [token for token in tokens if token not in gone]
    output.ok(f"removed {counted(len(gone), 'tokens')}; send SIGHUP to the front ends")
    output.data({"removed": [token.id for token in gone]}, [])


@registration_command.command("key")
@click.option(
    "--file", "path", type=NEW_FILE, help="Where to make it; default `registration.email.key` of kt.toml."
)
@click.pass_context
def registration_key(context: click.Context, path: Path | None) -> None:
    """Make the key with which registration mails are signed. All front ends need the same one."""
    if path is None:
        settings = settings_of(context)
        table = settings.registration.email
        path = settings.path(EmailTable.model_fields["key"].default if table is None else table.key)
    if path.exists():
        raise ConfigError(f"{path} exists already; to make another key, remove it first")
    write_private(path, f"{os.urandom(KEY_LENGTH).hex()}\n".encode())
    output_of(context).ok(f"made {path}: copy it to every front end of the directory")
    output_of(context).data({"path": str(path)}, [])


def _path(context: click.Context, path: Path | None) -> Path:
    if path is not None:
        return path
    settings = settings_of(context)
    if TOKENS not in settings.registration.ways:
        output_of(context).note('  no token is asked for yet: add "tokens" to registration.ways in kt.toml')
    return settings.path(settings.registration.tokens)


@contextmanager
def _changing(path: Path) -> Iterator[list[Token]]:
    """Yield the tokens of the file to be changed, and write them afterwards; one process at a time."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    # The file itself is replaced, so the lock is on its folder.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        tokens = list(read_tokens(path)) if path.exists() else []
        yield tokens
        write_tokens(path, tuple(tokens))
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        os.close(folder)


def _end(token: Token) -> str:
    return "for ever" if token.until is None else at(1000 * token.until)
