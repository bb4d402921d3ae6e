"""What messages and log lines leave out: passwords in addresses, and lines that repeat.

There are two methods. The first removes the password from any text of the form ``scheme://user:password@``.
The second remembers each password that this process got in an address, and removes it wherever it occurs:
libraries quote parts of an address in their errors, and a password may contain any character.

The same warning or error is written again only after ``WINDOW`` seconds. At the end of that time, or of the
process, one more line with the member ``repeated`` gives the number of repetitions. Two lines are the same
if all their members are equal, so no error hides a different one. Lines of lower levels are all written,
because they record what a process did.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote

import structlog
from structlog.typing import EventDict

WINDOW = 60.0
KEPT = 256
"""Number of different lines that are remembered. Beyond it, the count of the oldest line is written early."""

_COUNTED = ("warning", "error", "critical")

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
    if password is not None:
        hide(password)
        hide(unquote(password))


def hide(password: str) -> None:
    """Remember ``password``, so that it is removed from every message from now on."""
    _secrets.update(secret for secret in (password, quote(password, safe="")) if len(secret) >= _MIN_SECRET)


def password_of(address: str) -> str | None:
    """Return the password in a whole address, not decoded; None if there is none."""
    _, mark, rest = address.partition("://")
    userinfo, at, _ = rest.rpartition("@")
    _, colon, password = userinfo.partition(":")
    return password if mark and at and colon else None


def without_password(text: str) -> str:
    """Return ``text`` with ``***`` in place of each password. User names stay."""
    text = _USERINFO.sub(rf"\g<scheme>\g<user>:{_HIDDEN}@", text)
    # A password may be a part of a longer one, of which a rest would be left.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def without_credentials(address: str) -> str:
    """Return a whole address without its user and password."""
    scheme, mark, rest = address.partition("://")
    # The user information may contain an unencoded "@", so it ends at the last "@" before the query.
    authority, question, query = rest.partition("?")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{question}{query}" if mark else address


@dataclass(slots=True)
class _Line:
    event: EventDict
    until: float
    repeated: int = 0


class Repeats:
    """A structlog processor. It comes after the processors that add members, and before the timestamp.

    Safe for threads. The owner calls ``tick`` regularly, and ``end`` when the process ends.

    Args:
        write: Called with each line that gives a number of repetitions. It must not log.
    """

    def __init__(self, write: Callable[[EventDict], None], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        # Reentrant, because a finalizer may run and log wherever memory is allocated.
        self._lock = threading.RLock()
        # Oldest first.
        self._lines: dict[str, _Line] = {}

    def __call__(self, _: object, __: str, event: EventDict) -> EventDict:
        if event.get("level") not in _COUNTED:
            self.tick()
            return event
        key = json.dumps(event, sort_keys=True, default=repr)
        with self._lock:
            over = self._pop_due(self._clock())
            line = self._lines.get(key)
            if line is not None:
                line.repeated += 1
            else:
                self._lines[key] = _Line(dict(event), self._clock() + WINDOW)
                if len(self._lines) > KEPT:
                    over.append(self._lines.pop(next(iter(self._lines))))
        self._write_counts(over)
        if line is not None:
            raise structlog.DropEvent
        return event

    def tick(self) -> None:
        """Write the counts that are due."""
        with self._lock:
            over = self._pop_due(self._clock())
        self._write_counts(over)

    def end(self) -> None:
        """Write all counts, because the process ends."""
        with self._lock:
            over = list(self._lines.values())
            self._lines.clear()
        self._write_counts(over)

    def _pop_due(self, now: float) -> list[_Line]:
        due = [key for key, line in list(self._lines.items()) if line.until <= now]
        return [self._lines.pop(key) for key in due]

    def _write_counts(self, lines: list[_Line]) -> None:
        for line in lines:
            if line.repeated:
                self._write({**line.event, "repeated": line.repeated})
