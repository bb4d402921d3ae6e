"""Tokens: long random secrets that the operator hands out, and the file that has their hashes.

A token has 256 random bits, so its SHA-256 is enough: nobody finds it from the hash by trying. A slow hash
such as scrypt protects short passwords, and here it would only let strangers cost the front end time.

The file is JSON: ``{"tokens": [{"sha256": ..., "labels": ..., "until": ..., "note": ...}]}``. ``until`` is in
seconds since 1970. Uses are not counted: a count that holds across several front ends and restarts would need
a place that they all write. A token for one label, without ``*``, works once anyway, because afterwards the
label has an owner.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kt_es.api.codec import Json, decode_json
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, LabelError, MalformedError
from kt_es.formats import labels
from kt_es.process.files import read_private, replace_file
from kt_es.server.registration.claims import Claim, refuse

MAX_FILE = 8 << 20
MAX_PATTERN = 512
MAX_NOTE = 200
ID_LENGTH = 8
"""Hexadecimal digits of a token's hash by which people name it."""

_WHAT = "the file of registration tokens"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret.

    Attributes:
        digest: SHA-256 of the token's text, in hexadecimal.
        labels: A label, or a pattern in which each ``*`` stands for any characters.
        until: When the token expires, in seconds since 1970; None for never.
        note: The operator's note, for instance to whom the token was given.
    """

    digest: str
    labels: str
    until: int | None
    note: str = field(default="", repr=False)

    @property
    def id(self) -> str:
        return self.digest[:ID_LENGTH]


def digest_of(token: str) -> str:
    return sha256(token.encode()).hex()


def check_pattern(pattern: str) -> str:
    """Return ``pattern`` if a token may have it. Raises ``ConfigError``."""
    if not pattern or len(pattern) > MAX_PATTERN or not pattern.isprintable():
        raise ConfigError(
            f"a pattern of labels must have 1 to {MAX_PATTERN} printable characters, such as *@example.org"
        )
    return pattern


def matches(pattern: str, label: str, policy: str) -> bool:
    """Return whether the normalized ``label`` is one of ``pattern``. Takes linear time in both."""
    first, *others = _normalized(pattern, policy).split("*")
    if not others:
        return first == label
    last = others.pop()
    if not label.startswith(first) or not label.endswith(last) or len(label) < len(first) + len(last):
        return False
    at, end = len(first), len(label) - len(last)
    for part in others:
        # The leftmost place leaves the most to the parts after it.
        found = label.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


@functools.lru_cache(1024)
def _normalized(pattern: str, policy: str) -> str:
    """Return ``pattern`` in the form of labels; a part with ``*`` is lower-cased for addresses alone."""
    if "*" not in pattern:
        try:
            return labels.normalize_label(pattern, policy)
        except LabelError:
            return pattern  # matches no label
    if policy != labels.EMAIL:
        return unicodedata.normalize("NFC", pattern)
    pattern = unicodedata.normalize("NFC", pattern.lower())
    local, at, domain = pattern.rpartition("@")
    if not at or "*" in domain:
        return pattern
    try:
        return local + labels.normalize_label(f"x@{domain}", policy)[1:]
    except LabelError:
        return pattern


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read the file of tokens, which nobody else may read, because it names labels.

    Raises ``ConfigError``.
    """
    if not path.exists():
        raise ConfigError(f"{_WHAT} {path} is missing: make a token with `kt registration token`")
    data = read_private(path, _WHAT, MAX_FILE)
    try:
        read = tuple(map(_token, _entries(decode_json(data, "it"))))
    except (MalformedError, ConfigError) as error:
        raise ConfigError(f"{_WHAT} {path} cannot be used: {error}; mend it there") from None
    if len({token.digest for token in read}) < len(read):
        raise ConfigError(f"{_WHAT} {path} has a token twice: remove one of its two entries")
    return read


def write_tokens(path: Path, tokens: tuple[Token, ...]) -> None:
    """Write the file durably, readable by its owner alone."""
    found = [
        {"sha256": token.digest, "labels": token.labels, "until": token.until, "note": token.note}
        for token in tokens
    ]
    replace_file(path, json.dumps({"tokens": found}, indent=1, ensure_ascii=False).encode() + b"\n")


def _entries(found: Mapping[str, Json]) -> list[Json]:
    tokens = found.get("tokens")
    if set(found) != {"tokens"} or not isinstance(tokens, list):
        raise MalformedError("it", "must have the one member tokens, a list")
    return tokens


def _token(value: Json) -> Token:
    if not isinstance(value, Mapping) or set(value) != {"sha256", "labels", "until", "note"}:
        raise MalformedError("each token", "must have the members sha256, labels, until and note")
    digest, pattern, until, note = (value[name] for name in ("sha256", "labels", "until", "note"))
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise MalformedError("sha256", "must have 64 hexadecimal digits in lower case")
    if not isinstance(pattern, str) or not isinstance(note, str):
        raise MalformedError("labels and note", "must be texts")
    if until is not None and (type(until) is not int or until < 0):
        raise MalformedError("until", "must be seconds since 1970, or null")
    return Token(digest, check_pattern(pattern), until, note)


class TokenWay:
    """Lets in who has a token for the label. ``now`` gives seconds since 1970."""

    hint = "a token from its operator"

    def __init__(self, tokens: tuple[Token, ...], now: Callable[[], float]) -> None:
        self._tokens = {token.digest: token for token in tokens}
        self._now = now

    def check(self, claim: Claim, evidence: str) -> None:
        """See ``Way``. The lookup by hash takes the same time for every token that does not exist."""
        token = self._tokens.get(digest_of(evidence))
        if token is None:
            refuse("the token is not known here, or it was revoked: ask the operator for another one")
        if token.until is not None and self._now() >= token.until:
            refuse("the token has expired: ask the operator for another one")
        if not matches(token.labels, claim.label, claim.policy):
            refuse("the token is for other labels: ask the operator for one for this label")
