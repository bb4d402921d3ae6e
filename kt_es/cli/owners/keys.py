"""The signing keys of an owner: ``kt keys``, which of them sign, and which keys are the owner's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import platformdirs

from kt_es.cli.context import output_of
from kt_es.client.keystore import KeyStore, StoredKey
from kt_es.client.trust import Lookup
from kt_es.client.vouching import Mine
from kt_es.crypto.signatures import ECDSA_P256, ED25519, PrivateKey
from kt_es.errors import ConfigError, RefusedError
from kt_es.formats.keys import PublicKey
from kt_es.formats.notes import encode_base64

DEFAULT_KEY = "default"
ALGORITHMS = {"ed25519": ED25519, "p256": ECDSA_P256}
_KEY_ID = re.compile(r"[0-9a-fA-F]{16}")

keys_option = click.option(
    "--keys",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: platformdirs.user_data_path("kt-es") / "keys",
    help="Where your signing keys are; default the XDG data directory.",
)
mine_option = click.option(
    "--mine",
    multiple=True,
    metavar="NAME|KEYID",
    help="A signing key of yours, may be repeated. A NAME restricts yours to the named keys of --keys. "
    "A KEYID (16 hex digits) declares a key whose private half is elsewhere.",
)


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
    output.data(_document(stored), [stored.public.id.hex()])


@keys_command.command("list")
@keys_option
@click.pass_context
def keys_list(context: click.Context, keys: Path) -> None:
    """List your signing keys."""
    stored = KeyStore(keys).list()
    output_of(context).data(
        {"keys": [_document(key) for key in stored]},
        [f"{key.name}  {_algorithm(key.public)}  {key.public.id.hex()}" for key in stored],
    )


def _document(key: StoredKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "algorithm": _algorithm(key.public),
        "id": key.public.id.hex(),
        "public": encode_base64(key.public.raw),
    }


def _algorithm(key: PublicKey) -> str:
    return next(name for name, number in ALGORITHMS.items() if number == key.algorithm)


def signing_keys(keys: Path, names: tuple[str, ...]) -> list[StoredKey]:
    """Return the named keys; without names the one called ``default``, or the only one that is stored."""
    store = KeyStore(keys)
    if names:
        return [store.get(name) for name in names]
    stored = store.list()
    if not stored:
        raise ConfigError(f"there is no signing key in {keys}: run `kt keys generate`")
    chosen = [key for key in stored if key.name == DEFAULT_KEY] or list(stored)
    if len(chosen) > 1:
        raise ConfigError(f"several signing keys in {keys}: choose with --sign-with NAME")
    return chosen


def choose_signers(
    keys: Path, names: tuple[str, ...], before: Lookup, without: Sequence[PublicKey] = ()
) -> list[StoredKey]:
    """Return the keys to sign with: the named ones, or a stored one that the present version authorizes.

    A key of ``without`` is chosen only if there is no other.
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


def read_mine(keys: Path, values: Iterable[str], accepted: Iterable[str] = ()) -> Mine:
    """Return the owner's keys by ``--mine``, without names all stored ones, and those of ``--accept``."""
    store = KeyStore(keys)
    names = [value for value in values if not _KEY_ID.fullmatch(value)]
    stored = [store.get(name) for name in names] if names else store.list()
    declared = key_ids(set(values).difference(names)) | key_ids(accepted)
    return Mine(frozenset(key.public for key in stored), declared)


def key_ids(values: Iterable[str]) -> frozenset[bytes]:
    """Parse key ids that an option gives in hexadecimal."""
    for value in values:
        if not _KEY_ID.fullmatch(value):
            raise ConfigError(f"{value!r} is no key id: a key id has 16 hex digits")
    return frozenset(bytes.fromhex(value) for value in values)
