"""Access to a node: the addresses where it may listen, its certificate, and the logins of its users.

Logins are Basic credentials, compared with the file of users, which is read again whenever it changes.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import os
import time
from base64 import b64decode
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

import structlog

from kt_es.errors import ConfigError
from kt_es.node.access.acl import ALL, ANONYMOUS, Caller, user
from kt_es.node.access.users import FILE_NAME, Secret, User, check_password, load, stamp
from kt_es.node.refusals import unauthenticated
from kt_es.process.grpc_tls import Credentials
from kt_es.process.tls import both_or_none

_LOG = structlog.get_logger("kt_es.node")
REMEMBERED = 300.0  # seconds for which a correct password is not hashed again
_AT_ONCE = 2  # passwords hashed at a time; more would slow down clients that have logged in
_MAX_HEADER = 4096


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches ``host``. Names other than localhost are other machines."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tls: bool, users: bool, anonymous: bool) -> None:
    """Check that a node with this configuration may be exposed on ``host``. Raises ``ConfigError``."""
    if is_loopback(host):
        return
    if anonymous:
        raise ConfigError(f"anonymous access is for loopback only, not for {host}: listen on 127.0.0.1")
    if not tls:
        raise ConfigError(f"{host} is not loopback: listen there with --tls-cert and --tls-key only")
    if not users:
        raise ConfigError(f"{host} is not loopback: add a user first, with kt node user add")


def server_credentials(certificate: Path | None, key: Path | None) -> Credentials | None:
    """Return the node's credentials, None if neither file is given. Raises as ``Credentials``."""
    files = both_or_none(certificate, key)
    return None if files is None else Credentials(*files)


def credentials(header: str) -> tuple[str, str]:
    """Name and password from the value of ``authorization`` (RFC 7617)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(header) > _MAX_HEADER:
        raise unauthenticated()
    try:
        name, colon, password = b64decode(encoded, validate=True).decode().partition(":")
        check_password(password)
    except (binascii.Error, UnicodeDecodeError, ConfigError):
        raise unauthenticated() from None
    if not colon:
        raise unauthenticated()
    return name, password


class Logins:
    """The users of a data directory, and the passwords that were found correct recently.

    ``anonymous``: callers without credentials count as ``$all``. ``clock`` gives seconds, never backwards.
    """

    def __init__(self, data: Path, anonymous: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._data = data
        self._nobody = Caller(frozenset({ALL})) if anonymous else ANONYMOUS
        self._clock = clock
        self._path = str(data / FILE_NAME)
        self._stamp = stamp(self._path)
        found = load(data)
        self._users = found or {}
        self._exist = found is not None
        self._key = os.urandom(32)
        self._verified: dict[str, tuple[bytes, float]] = {}  # mark of the header, and how long it counts
        self._hashing = asyncio.Semaphore(_AT_ONCE)
        # The time of an answer must not reveal whether the name or the password is wrong.
        self._decoy = User(frozenset(), Secret.of("decoy", os.urandom(16)))

    @property
    def exist(self) -> bool:
        """Whether there is a file of users, or was one since this node was started."""
        self._refresh()
        return self._exist

    def _refresh(self) -> None:
        now = stamp(self._path)
        if now == self._stamp:
            return
        self._stamp = now
        try:
            self._users = load(self._data) or {}
        except ConfigError as error:
            _LOG.error("the users cannot be read; nobody can log in", problem=str(error))
            self._users = {}
        self._exist = True
        self._verified.clear()

    async def caller(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        header = next((value for key, value in metadata if key == "authorization"), None)
        if header is None:
            return self._nobody
        name, password = credentials(header if isinstance(header, str) else header.decode("latin-1"))
        self._refresh()
        mark = hmac.digest(self._key, header.encode() if isinstance(header, str) else header, hashlib.sha256)
        if not self._remembered(name, mark):
            await self._verify(name, password, mark)
        found = self._users.get(name)
        if found is None:
            raise unauthenticated()
        return user(name, found.groups)

    def _remembered(self, name: str, mark: bytes) -> bool:
        known, until = self._verified.get(name, (b"", 0.0))
        return until > self._clock() and hmac.compare_digest(known, mark)

    async def _verify(self, name: str, password: str, mark: bytes) -> None:
        async with self._hashing:
            # Simultaneous calls share the hash of the first.
            if self._remembered(name, mark):
                return
            tried = self._users.get(name)
            right = await asyncio.to_thread((tried or self._decoy).secret.matches, password)
            if not right or tried is None or self._users.get(name) != tried:
                _LOG.warning("a login was refused", user=name if tried is not None else "unknown")
                raise unauthenticated()
            self._verified[name] = mark, self._clock() + REMEMBERED
