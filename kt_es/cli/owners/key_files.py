"""Key files of users: which public keys a file holds, found by parsing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kt_es.errors import ConfigError
from kt_es.formats.profiles import MAX_PROFILE, PROFILE_TYPES, ProfileKey
from kt_es.importers.private import bare_key, is_x25519, private_key_in
from kt_es.importers.recognize import PublicPart, Recognized, fingerprint_of, recognize

_RAW = "raw"
_X25519 = "x25519"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The keys of one file, as they are published. ``left_out`` is True if the file has other text."""

    path: Path
    keys: tuple[ProfileKey, ...]
    left_out: bool


def read_key_file(path: Path, kind: str | None = None) -> KeyFile:
    """Read the keys of one file. They are named after the file.

    Args:
        path: the file.
        kind: the type that the user gives for it, if any.

    Raises:
        ConfigError: the file cannot be read; it holds a private key; or it holds something else than public
            keys of a known type, and ``kind`` is not ``raw``.
    """
    data = _read(path)
    recognized = _checked(path, data, kind)
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path}: the file's name is published, and it is not UTF-8; rename it") from None
    parts = recognized.parts
    return KeyFile(
        path,
        tuple(
            ProfileKey(_name(path, number, len(parts)), part.type, part.data)
            for number, part in enumerate(parts, 1)
        ),
        recognized.left_out,
    )


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
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_PROFILE:
        raise ConfigError(f"{path}: larger than a profile may be ({MAX_PROFILE} bytes)")
    if not data:
        raise ConfigError(f"{path}: is empty")
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
        raise ConfigError(f"{path}: is {' and '.join(sorted(types))}, not {kind} as --type says")
    return recognized


def _name(path: Path, number: int, count: int) -> str:
    """Return the file's name, with a number if the file holds several keys, in at most 255 bytes."""
    suffix = f"#{number}" if count > 1 else ""
    return path.name.encode()[: 255 - len(suffix)].decode("utf-8", "ignore") + suffix
