"""The keys of an owner: ``kt keys``, which keys sign, and the public keys in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import platformdirs

from kt_es.cli.options import NEW_FOLDER
from kt_es.cli.output import output_of
from kt_es.client.changes import Mine
from kt_es.client.states import KeyStore, StoredKey
from kt_es.client.trust import Lookup
from kt_es.crypto.signatures import ECDSA_P256, ED25519, PrivateKey
from kt_es.errors import ConfigError, RefusedError
from kt_es.formats.entries import MAX_PROFILE, PROFILE_TYPES, ProfileKey, PublicKey
from kt_es.formats.notes import encode_base64
from kt_es.importers.private import bare_key, is_x25519, private_key_in
from kt_es.importers.recognize import PublicPart, Recognized, fingerprint_of, recognize

_RAW = "raw"
_X25519 = "x25519"
DEFAULT_KEY = "default"
ALGORITHMS = {"ed25519": ED25519, "p256": ECDSA_P256}
_KEY_ID = re.compile(r"[0-9a-fA-F]{16}")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The keys of one file, as they are published. ``left_out`` is True if the file has other text."""

    path: Path
    keys: tuple[ProfileKey, ...]
    left_out: bool


def read_key_file(path: Path, kind: str | None = None) -> KeyFile:
    """Read the keys of one file, which are named after it. ``kind`` is the type that the user gives, if any.

    Raises:
        ConfigError: The file cannot be read; it holds a private key; or it holds something else than public
            keys of a known type, and ``kind`` is not ``raw``.
    """
    data = _read(path)
    recognized = _checked(path, data, kind)
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path}: the file's name is published, and it is not UTF-8; rename it") from None
    parts = recognized.parts
    keys = (
        ProfileKey(_name(path, number, len(parts)), part.type, part.data)
        for number, part in enumerate(parts, 1)
    )
    return KeyFile(path, tuple(keys), recognized.left_out)


def described(key: ProfileKey) -> str:
    """Describe a key in one line: type, name, size and fingerprint."""
    return f"{key.type} {key.name}, {len(key.data)} bytes, fingerprint {fingerprint_of(key.type, key.data)}"


def key_document(key: ProfileKey) -> dict[str, Any]:
    """Describe a key as ``--json`` shows it, without its bytes."""
    fingerprint = fingerprint_of(key.type, key.data)
    return {"name": key.name, "type": key.type, "bytes": len(key.data), "fingerprint": fingerprint}


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROFILE + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name another file") from None
    if len(data) > MAX_PROFILE:
        problem = f"{path}: larger than a profile may be ({MAX_PROFILE} bytes)"
        raise ConfigError(f"{problem}; publish fewer keys")
    if not data:
        raise ConfigError(f"{path}: is empty; name the file of a public key")
    return data


def _checked(path: Path, data: bytes, kind: str | None) -> Recognized:
    bare = bare_key(data)
    if kind == _X25519 and bare is not None and is_x25519(bare):
        # One public key in 16 has the form of a private one. The user has said which it is.
        return Recognized((PublicPart(_X25519, bare),))
    private = private_key_in(data)
    if private is not None:
        hint = "; if it is a public key, say --type x25519" if bare is not None and is_x25519(bare) else ""
        raise ConfigError(f"{path}: holds {private}; nothing was published. Publish the public key{hint}")
    if kind == _RAW:
        return Recognized((PublicPart(_RAW, data),))
    recognized = recognize(data)
    if recognized is None:
        known = ", ".join(each for each in PROFILE_TYPES if each != _RAW)
        raise ConfigError(
            f"{path}: is not recognized as public keys ({known}) from its first to its last byte; nothing "
            f"was published. Say --type {_RAW} to publish its bytes as they are"
        )
    types = {part.type for part in recognized.parts}
    if kind is not None and types != {kind}:
        found = " and ".join(sorted(types))
        raise ConfigError(f"{path}: is {found}, not {kind} as --type says; leave --type out")
    return recognized


def _name(path: Path, number: int, count: int) -> str:
    """Return the file's name, with a number if the file holds several keys, in at most 255 bytes."""
    suffix = f"#{number}" if count > 1 else ""
    return path.name.encode()[: 255 - len(suffix)].decode("utf-8", "ignore") + suffix


keys_option = click.option(
    "--keys",
    type=NEW_FOLDER,
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
    """Make and list your signing keys, which authorize changes to your account."""


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
            f"{where}; name one with --sign-with, or its folder with --keys",
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
            raise ConfigError(f"{value!r} is no key id: a key id has 16 hex digits, as kt history shows it")
    return frozenset(bytes.fromhex(value) for value in values)
