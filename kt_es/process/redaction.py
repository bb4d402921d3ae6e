"""Removes passwords from addresses before an address is used in a message, a log line or a name.

There are two methods. The first removes the password from any text of the form ``scheme://user:password@``.
The second remembers each password that this process got in an address, and removes it wherever it occurs:
libraries quote parts of an address in their errors, and a password may contain any character.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

# The user ends at the first colon, and the password at the last "@" before a space. The pattern may remove
# more than the password, but never less.
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>[^\s/?#@:]*):(?P<password>\S*)@")
_HIDDEN = "***"

_MIN_SECRET = 3  # removing a shorter password would damage every message and protect nothing

_secrets: set[str] = set()
"""Passwords of this process, as given, decoded and encoded. It only grows. Reads and additions are atomic."""


def keep_secret(address: str) -> None:
    """Remember the password in ``address``, so that it is removed from every message from now on.

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
    """Return the password in a whole address, not decoded; None if there is none."""
    _, mark, rest = address.partition("://")
    userinfo, at, _ = rest.rpartition("@")
    _, colon, password = userinfo.partition(":")
    return password if mark and at and colon else None


def without_password(text: str) -> str:
    """Return ``text`` with ``***`` in place of each password. User names stay."""
    text = _USERINFO.sub(rf"\g<scheme>\g<user>:{_HIDDEN}@", text)
    for secret in tuple(_secrets):
        text = text.replace(secret, _HIDDEN)
    return text


def without_credentials(address: str) -> str:
    """Return a whole address without its user and password."""
    scheme, mark, rest = address.partition("://")
    # The user information may contain an unencoded "@", so it ends at the last "@" before the query.
    authority, question, query = rest.partition("?")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{question}{query}" if mark else address
