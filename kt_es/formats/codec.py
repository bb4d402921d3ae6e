"""Strict deterministic CBOR (RFC 8949 section 4.2.1), one encoding per value.

Only arrays, unsigned integers up to 2^64-1, byte strings, text strings and null exist here. Bytes
are accepted only if encoding what was read gives the same bytes again: a decoder alone is too
tolerant (long-form lengths, tags, indefinite lengths). FORMATS, "Encoding".

The small ``take_*`` helpers check one decoded field each and name it in their error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import cbor2

from kt_es.errors import MalformedError

Value: TypeAlias = "int | bytes | str | Sequence[Value] | None"

UINT_MAX = 2**64 - 1

MAX_TIME = 253402300799999
"""The last millisecond of the year 9999: no sum of a time and a few intervals leaves 64 bits."""

MAX_INTERVAL = 30 * 24 * 60 * 60 * 1000
"""Thirty days in milliseconds: the longest interval and the longest merge delay of a directory."""

# Deepest format: a proof file holds arrays of arrays of pairs.
_MAX_DEPTH = 8


def _refuse_tag(*_: Any) -> NoReturn:
    raise ValueError("tags are not allowed")


class _NoTags(Mapping[int, Callable[..., NoReturn]]):
    """A decoder for every tag, which refuses it.

    Left to itself the library acts on tags while it reads: shared references make a few bytes a value
    that contains itself or has billions of items, and walking it would never end.
    """

    def __getitem__(self, tag: int) -> Callable[..., NoReturn]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1


_NO_TAGS = _NoTags()


def encode(value: Value) -> bytes:
    """The one encoding of ``value``; tuples and lists are both arrays."""
    return cbor2.dumps(value)


def decode(data: bytes, what: str) -> Value:
    """The value that ``data`` encodes, arrays as lists.

    Raises ``MalformedError`` naming ``what`` for anything but the one encoding of an allowed value.
    """
    try:
        value = cbor2.loads(data, max_depth=_MAX_DEPTH, allow_indefinite=False, semantic_decoders=_NO_TAGS)
    except (cbor2.CBORError, ValueError) as error:
        raise MalformedError(what, f"not CBOR of the allowed kinds ({type(error).__name__})") from None
    if not _allowed(value):
        raise MalformedError(
            what, "only arrays, unsigned integers, byte and text strings and null are allowed"
        )
    if cbor2.dumps(value) != data:
        raise MalformedError(what, "not in its one deterministic encoding")
    return value  # type: ignore[no-any-return]


def _allowed(value: object) -> bool:
    kind = type(value)
    if kind is bytes or kind is str or value is None:
        return True
    if kind is int:
        return 0 <= value <= UINT_MAX  # type: ignore[operator]
    if kind is list:
        for item in value:  # type: ignore[attr-defined]  # noqa: SIM110  a generator is slower
            if type(item) is not bytes and not _allowed(item):
                return False
        return True
    return False


def take_array(value: Value, what: str, low: int, high: int | None = None) -> Sequence[Value]:
    """``value`` as an array of ``low`` to ``high`` items (exactly ``low`` if ``high`` is None)."""
    high = low if high is None else high
    if not isinstance(value, list):
        raise MalformedError(what, "must be an array")
    if not low <= len(value) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        raise MalformedError(what, f"must have {wanted} items, has {len(value)}")
    return value


def take_bytes(value: Value, what: str, low: int, high: int | None = None) -> bytes:
    """``value`` as a byte string of ``low`` to ``high`` bytes (exactly ``low`` if ``high`` is None)."""
    high = low if high is None else high
    if not isinstance(value, bytes):
        raise MalformedError(what, "must be a byte string")
    if not low <= len(value) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        raise MalformedError(what, f"must have {wanted} bytes, has {len(value)}")
    return value


def take_text(value: Value, what: str, low: int, high: int) -> str:
    """``value`` as a text string of ``low`` to ``high`` UTF-8 bytes."""
    if not isinstance(value, str):
        raise MalformedError(what, "must be a text string")
    if not low <= len(value.encode()) <= high:
        raise MalformedError(what, f"must have {low} to {high} bytes of UTF-8")
    return value


def take_uint(value: Value, what: str, low: int = 0, high: int = UINT_MAX) -> int:
    """``value`` as an unsigned integer in ``low`` to ``high``."""
    if not isinstance(value, int):
        raise MalformedError(what, "must be an unsigned integer")
    if not low <= value <= high:
        raise MalformedError(what, f"must be in {low} to {high}, is {value}")
    return value
