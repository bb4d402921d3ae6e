"""Passwords out of addresses, before an address stands in a message, a log line or a name.

Two nets. Whatever looks like ``scheme://user:password@`` loses its password. And a password that this
process was given in an address is kept in mind: libraries quote parts of an address in their errors, and a
password may hold any character.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

# The user ends at the first colon, the password at the last "@" before a space: too much rather than too
# little.
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>[^\s/?#@:]*):(?P<password>\S*)@")
_HIDDEN = "***"

_MIN_SECRET = 3  # shorter ones would spoil every message, and protect nothing

_secrets: set[str] = set()
"""Passwords of this process, as given, decoded and encoded. Only added to; reading and adding are atomic."""


def keep_secret(address: str) -> None:
    """Take the password in ``address`` out of every message from now on, however it is quoted.

    ``address`` is a whole address such as ``esdb://user:password@host:2113?Tls=true``.
    """
    password = password_of(address)
    if password is None:
        return
    decoded = unquote(password)
    _secrets.update(
        secret for secret in (password, decoded, quote(decoded, safe="")) if len(secret) >= _MIN_SECRET
    )


def password_of(address: str) -> str | None:
    """The password in a whole address, as it stands there; None if there is none."""
    _, mark, rest = address.partition("://")
    userinfo, at, _ = rest.rpartition("@")
    _, colon, password = userinfo.partition(":")
    return password if mark and at and colon else None


def without_password(text: str) -> str:
    """``text`` with ``***`` in the place of every password of an address; the user stays."""
    text = _USERINFO.sub(rf"\g<scheme>\g<user>:{_HIDDEN}@", text)
    for secret in tuple(_secrets):
        text = text.replace(secret, _HIDDEN)
    return text


def without_credentials(address: str) -> str:
    """A whole address without the user and the password in it."""
    scheme, mark, rest = address.partition("://")
    # The user information may hold an "@" that is not encoded: the last one before the query ends it.
    authority, question, query = rest.partition("?")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{question}{query}" if mark else address
