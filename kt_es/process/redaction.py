"""Passwords out of addresses, before an address stands in a message, a log line or a name."""

from __future__ import annotations

import re
from urllib.parse import unquote

# user:password@ of an address. A password may hold any character but "@" and "/", or these percent-encoded;
# in the last resort everything up to the last "@" before the path is taken.
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<userinfo>[^/\s?#]*)@")
_HIDDEN = "***"


def without_password(text: str) -> str:
    """``text`` with the password of every address in it replaced by ``***``; the user stays."""

    def hidden(found: re.Match[str]) -> str:
        user, colon, _ = found["userinfo"].partition(":")
        return f"{found['scheme']}{user}{colon and colon + _HIDDEN}@"

    return _USERINFO.sub(hidden, text)


def password_of(address: str) -> str | None:
    """The password in an address such as ``esdb://user:password@host``, decoded; None if there is none."""
    found = _USERINFO.search(address)
    if found is None:
        return None
    _, colon, password = found["userinfo"].partition(":")
    return unquote(password) if colon else None


def without(text: str, address: str) -> str:
    """``text``, which may quote ``address`` or its password, without that password."""
    shown = without_password(text)
    password = password_of(address)
    if password:
        shown = shown.replace(password, _HIDDEN)
    return shown
