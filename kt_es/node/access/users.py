"""The node's users: the file ``users.json`` in its data directory, and the checking of passwords.

::

    {"version": 1, "users": {NAME: {"groups": [GROUP, ...],
                                    "scrypt": {"n": INT, "r": INT, "p": INT, "salt": HEX, "hash": HEX}}}}

scrypt is that of RFC 7914; ``salt`` has 16 bytes, ``hash`` 32. The file is 0600 and replaced as a whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kt_es.errors import ConfigError, DiskFullError, KtError
from kt_es.node.access.acl import ADMINS, OPS
from kt_es.process.files import read_private, replace_file
from kt_es.process.space import is_full, unwritable

FILE_NAME = "users.json"
_LOCK_NAME = "users.lock"
_VERSION = 1
_N, _R, _P = 1 << 14, 8, 1  # 16 MiB and about 50 ms a password
_MAX_N, _MAX_R, _MAX_P = 1 << 17, 16, 16
_MAX_FILE = 16 * 1024 * 1024
_SALT, _HASH = 16, 32
MAX_NAME = 256
MAX_PASSWORD = 1024  # bytes


@dataclass(frozen=True, slots=True)
class Secret:
    """The stored hash of a password, with its salt and parameters."""

    n: int
    r: int
    p: int
    salt: bytes
    hash: bytes

    @staticmethod
    def of(password: str, salt: bytes) -> Secret:
        """Return the secret of a password with 16 random bytes."""
        return Secret(_N, _R, _P, salt, _scrypt(password, salt, _N, _R, _P))

    def matches(self, password: str) -> bool:
        """Return whether ``password`` is correct; takes the same time either way."""
        return hmac.compare_digest(self.hash, _scrypt(password, self.salt, self.n, self.r, self.p))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    room = 128 * r * (n + p + 2)
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=room + (1 << 20), dklen=_HASH)


@dataclass(frozen=True, slots=True)
class User:
    groups: frozenset[str]
    secret: Secret


def check_name(name: str, what: str = "user") -> str:
    """Return ``name`` if a user or a group (``what``) can have it; raise ``ConfigError`` otherwise."""
    usable = 0 < len(name) <= MAX_NAME and name.isprintable() and ":" not in name
    if usable and name.startswith("$"):
        usable = what == "group" and name in {ADMINS, OPS}
    if not usable:
        raise ConfigError(
            f"{name!r} cannot be a {what}'s name: 1 to {MAX_NAME} printable characters without a colon; "
            f"of names that begin with $ there are only the groups {ADMINS} and {OPS}"
        )
    return name


def check_password(password: str) -> str:
    """Return ``password`` if it is acceptable; raise ``ConfigError`` otherwise."""
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_PASSWORD:
        raise ConfigError(f"a password has 1 to {MAX_PASSWORD} bytes of UTF-8")
    return password


def encode(users: Mapping[str, User]) -> bytes:
    entries = {
        name: {
            "groups": sorted(user.groups),
            "scrypt": asdict(user.secret) | {"salt": user.secret.salt.hex(), "hash": user.secret.hash.hex()},
        }
        for name, user in sorted(users.items())
    }
    return json.dumps({"version": _VERSION, "users": entries}, ensure_ascii=False, indent=1).encode() + b"\n"


def _decode_user(entry: dict[str, object]) -> User:
    groups, kept = entry["groups"], entry["scrypt"]
    if not isinstance(groups, list) or not isinstance(kept, dict):
        raise TypeError
    n, r, p = kept["n"], kept["r"], kept["p"]
    salt, hash_ = bytes.fromhex(kept["salt"]), bytes.fromhex(kept["hash"])
    # Every attempt to log in costs this much.
    usable = 1 < n <= _MAX_N and n & (n - 1) == 0 and 1 <= r <= _MAX_R and 1 <= p <= _MAX_P
    if not usable or len(salt) != _SALT or len(hash_) != _HASH:
        raise ValueError
    return User(frozenset(check_name(group, "group") for group in groups), Secret(n, r, p, salt, hash_))


def decode(data: bytes, path: Path) -> dict[str, User]:
    try:
        document = json.loads(data)
        users = {check_name(name): _decode_user(entry) for name, entry in document["users"].items()}
        known = document["version"] == _VERSION
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError):
        known = False
    if not known:
        raise ConfigError(
            f"{path} is not a file of users of this version: restore it, or delete it and add the users again"
        )
    return users


def load(data: Path) -> dict[str, User] | None:
    """Return the users of a data directory, None if it has no file of users.

    Raises ``ConfigError`` if the file cannot be used.
    """
    path = data / FILE_NAME
    if not os.path.lexists(path):
        return None
    return decode(read_private(path, "the file of users", _MAX_FILE), path)


def stamp(path: str) -> tuple[int, int, int] | None:
    """Return a value that changes when the file of users at ``path`` is replaced; None without a file."""
    try:
        found = os.stat(path)  # noqa: PTH116  called for every call of every client
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Keep other commands from changing the users meanwhile."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if is_full(error):
            raise DiskFullError(data) from None
        raise ConfigError(f"data directory {data} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _save(data: Path, users: Mapping[str, User]) -> None:
    path = data / FILE_NAME
    try:
        replace_file(path, encode(users))
    except OSError as error:
        raise unwritable(path, error) from None


def add(data: Path, name: str, password: str, groups: Iterable[str] = ()) -> bool:
    """Add a user, or replace the password and groups of one; return whether the name is new.

    Raises ``ConfigError``.
    """
    check_name(name)
    secret = Secret.of(check_password(password), os.urandom(_SALT))
    added = User(frozenset(check_name(group, "group") for group in groups), secret)
    with _locked(data):
        users = load(data) or {}
        is_new = name not in users
        _save(data, {**users, name: added})
    return is_new


def remove(data: Path, name: str) -> None:
    """Remove a user. The file stays, so that the node does not become open with its last user.

    Raises ``KtError`` or ``ConfigError``.
    """
    if load(data) is None:
        # The lock would create the directory.
        raise KtError(f"{data} has no users: add them with kt node user add")
    with _locked(data):
        users = load(data) or {}
        if name not in users:
            raise KtError(f"there is no user {name!r} in {data / FILE_NAME}: see kt node user list")
        _save(data, {other: user for other, user in users.items() if other != name})
