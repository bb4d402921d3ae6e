"""Key files as users have them: which kind of public key a file holds, recognized by its content."""

from __future__ import annotations

import re
from pathlib import Path

from kt_es.errors import ConfigError
from kt_es.formats.profiles import MAX_PROFILE, ProfileKey

_SSH = re.compile(rb"(ssh-|ecdsa-|sk-)[a-z0-9@.\-]+ [A-Za-z0-9+/=]+")
_AGE = re.compile(rb"age1[0-9a-z]{58}\s*")
_PRIVATE = re.compile(rb"PRIVATE KEY|AGE-SECRET-KEY-")


def read_profile_keys(path: Path) -> list[ProfileKey]:
    """The keys of one file, named by it; ``ConfigError`` for what must not or cannot be published."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROFILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_PROFILE:
        raise ConfigError(f"{path}: larger than a profile may be ({MAX_PROFILE} bytes)")
    if not data:
        raise ConfigError(f"{path}: is empty")
    if _PRIVATE.search(data):
        raise ConfigError(f"{path}: holds a private key; publish the public one")
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path}: the file's name is published, and it is not UTF-8; rename it") from None
    return [ProfileKey(path.name[:255], _kind(data), data)]


def _kind(data: bytes) -> str:
    if data.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----") or data[0] in (0x98, 0x99, 0xC6):
        return "openpgp"
    if data.startswith(b"-----BEGIN "):
        return "pem"
    if _SSH.match(data):
        return "ssh"
    if _AGE.fullmatch(data):
        return "age"
    return "x25519" if len(data) == 32 else "raw"
