"""Strict deterministic CBOR (RFC 8949 section 4.2.1), one encoding per value.

Only arrays, unsigned integers up to 2^64-1, byte strings, text strings and null are allowed. The decoder of
the library also accepts other encodings of the same value, such as long-form lengths. Therefore ``decode``
encodes the value again and refuses the input if the bytes differ. FORMATS, "Encoding".

Each ``take_*`` function checks one decoded field and names the field in its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import cbor2

from kt_es.errors import MalformedError

Value: TypeAlias = "int | bytes | str | Sequence[Value] | None"

UINT_MAX = 2**64 - 1

MAX_TIME = 253402300799999
"""The last millisecond of the year 9999. The sum of such a time and a few intervals fits into 64 bits."""

MAX_INTERVAL = 30 * 24 * 60 * 60 * 1000
"""The longest interval and the longest merge delay of a directory: 30 days, in milliseconds."""

# The deepest formats hold arrays of arrays of pairs.
_MAX_DEPTH = 8


def _refuse_tag(*_: Any) -> NoReturn:
    raise ValueError("tags are not allowed")


class _NoTags(Mapping[int, Callable[..., NoReturn]]):
    """The semantic decoders for cbor2: every tag has one, and it raises an error.

    Without them the library interprets tags while it reads. With shared references, a few bytes can then
    decode to a value that contains itself or has billions of items, and a walk over it would never end.
    """

    def __getitem__(self, tag: int) -> Callable[..., NoReturn]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1


_NO_TAGS = _NoTags()


def encode(value: Value) -> bytes:
    """Return the only encoding of ``value``. Tuples and lists are both encoded as arrays."""
    return cbor2.dumps(value)


def decode(data: bytes, what: str) -> Value:
    """Return the value that ``data`` encodes. Arrays are returned as lists.

    Raises:
        MalformedError: ``data`` is not the only encoding of an allowed value. The error names ``what``.
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


def decode_array(data: bytes, what: str, length: int, *, most: int | None = None) -> Sequence[Value]:
    """Decode ``data``, the encoding of an array of ``length`` items in at most ``most`` bytes."""
    if most is not None:
        check_size(data, what, most)
    return take_array(decode(data, what), what, length)


def check_size(data: bytes, what: str, most: int) -> None:
    """Refuse ``data`` of more than ``most`` bytes before it is decoded."""
    if len(data) > most:
        raise MalformedError(what, f"must have at most {most} bytes, has {len(data)}")


def take_array(value: Value, what: str, low: int, high: int | None = None) -> Sequence[Value]:
    """Return ``value`` if it is an array of ``low`` to ``high`` items, or of exactly ``low``."""
    high = low if high is None else high
    if not isinstance(value, list):
        raise MalformedError(what, "must be an array")
    if not low <= len(value) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        raise MalformedError(what, f"must have {wanted} items, has {len(value)}")
    return value


def take_bytes(value: Value, what: str, low: int, high: int | None = None) -> bytes:
    """Return ``value`` if it is a string of ``low`` to ``high`` bytes, or of exactly ``low``."""
    high = low if high is None else high
    if not isinstance(value, bytes):
        raise MalformedError(what, "must be a byte string")
    if not low <= len(value) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        raise MalformedError(what, f"must have {wanted} bytes, has {len(value)}")
    return value


def take_text(value: Value, what: str, low: int, high: int) -> str:
    """Return ``value`` if it is a text string of ``low`` to ``high`` UTF-8 bytes."""
    if not isinstance(value, str):
        raise MalformedError(what, "must be a text string")
    if not low <= len(value.encode()) <= high:
        raise MalformedError(what, f"must have {low} to {high} bytes of UTF-8, has {len(value.encode())}")
    return value


def take_uint(value: Value, what: str, low: int = 0, high: int = UINT_MAX) -> int:
    """Return ``value`` if it is an unsigned integer from ``low`` to ``high``."""
    if not isinstance(value, int):
        raise MalformedError(what, "must be an unsigned integer")
    if not low <= value <= high:
        raise MalformedError(what, f"must be in {low} to {high}, is {value}")
    return value
