"""What the codec refuses, one fault per case, and what its field helpers say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kt_es.errors import MalformedError
from kt_es.formats.codec import (
    UINT_MAX,
    Value,
    decode,
    encode,
    take_array,
    take_bytes,
    take_text,
    take_uint,
)

ACCEPTED: dict[str, tuple[str, Value]] = {
    "zero": ("00", 0),
    "largest short integer": ("17", 23),
    "one-byte integer": ("1818", 24),
    "two-byte integer": ("190100", 256),
    "four-byte integer": ("1a00010000", 65536),
    "eight-byte integer": ("1b0000000100000000", 2**32),
    "largest integer": ("1bffffffffffffffff", UINT_MAX),
    "empty bytes": ("40", b""),
    "bytes": ("43010203", b"\x01\x02\x03"),
    "24 bytes": ("5818" + "ab" * 24, b"\xab" * 24),
    "empty text": ("60", ""),
    "text": ("63e282ac", "€"),
    "text of four-byte characters": ("64f09f9491", "\U0001f511"),
    "null": ("f6", None),
    "empty array": ("80", []),
    "array": ("8301f682414060", [1, None, [b"\x40", ""]]),
    "eight arrays deep": ("81" * 7 + "80", [[[[[[[[]]]]]]]]),
}

REFUSED: dict[str, str] = {
    "no bytes": "",
    "trailing byte": "0000",
    "trailing break": "00ff",
    "truncated integer": "19ff",
    "truncated bytes": "430102",
    "truncated text": "636162",
    "truncated array": "8200",
    "long-form integer in one byte": "1817",
    "long-form integer in two bytes": "1900ff",
    "long-form integer in four bytes": "1a0000ffff",
    "long-form integer in eight bytes": "1b00000000ffffffff",
    "long-form length of bytes": "580161",
    "long-form length of text": "780161",
    "long-form length of an array": "980100",
    "long-form length inside an array": "81580161",
    "indefinite bytes": "5f4101ff",
    "indefinite text": "7f6161ff",
    "indefinite array": "9f00ff",
    "indefinite map": "bf0000ff",
    "break alone": "ff",
    "reserved head": "1c",
    "negative integer": "20",
    "negative integer in an array": "8120",
    "lowest negative integer": "3bffffffffffffffff",
    "map": "a0",
    "map with an entry": "a10000",
    "map with an array as key": "a18000",
    "map with a map as key": "a1a000",
    "map with a key twice": "a200000001",
    "false": "f4",
    "true": "f5",
    "true in an array": "81f5",
    "undefined": "f7",
    "simple value": "e0",
    "simple value in two bytes": "f8ff",
    "null in two bytes": "f816",
    "half float": "f93c00",
    "single float": "fa3f800000",
    "double float": "fb3ff0000000000000",
    "infinity": "f97c00",
    "not a number": "f97e00",
    "text that is not UTF-8": "61ff",
    "text with an overlong character": "62c080",
    "text with a surrogate": "63eda080",
    "text cut in a character": "62e282",
    "tag: date as text": "c074323031332d30332d32315432303a30343a30305a",
    "tag: date as text, not a date": "c0617a",
    "tag: time": "c11a514b67b0",
    "tag: time out of range": "c11bffffffffffffffff",
    "tag: large integer": "c249010000000000000000",
    "tag: small integer as a large one": "c24101",
    "tag: negative large integer": "c349010000000000000000",
    "tag: decimal fraction": "c48221196ab3",
    "tag: decimal fraction of enormous exponent": "c4821a05ffffff01",
    "tag: bigfloat": "c5822003",
    "tag: bigfloat of enormous exponent": "c5821a3fffffff01",
    "tag: encoded CBOR": "d8184100",
    "tag: string reference": "d81900",
    "tag: string reference namespace": "d901008261616161",
    "tag: rational by zero": "d81e820100",
    "tag: regular expression": "d8236161",
    "tag: invalid regular expression": "d8236128",
    "tag: MIME message": "d8246161",
    "tag: UUID of wrong length": "d8254100",
    "tag: set": "d9010280",
    "tag: IP address": "d9010444c0000201",
    "tag: IP address of wrong length": "d9010441c0",
    "tag: complex number": "d9a7f8820102",
    "tag: self-described CBOR": "d9d9f700",
    "tag: unknown to everybody": "db7fffffffffffffff00",
    "tag: nothing tagged": "c0",
    "tag: shared value": "d81c80",
    "tag: reference to nothing": "d81d00",
    "tag: value that contains itself": "d81c81d81d00",
    "nine arrays deep": "81" * 9 + "00",
    "nine arrays deep beside shallow ones": "8200" + "81" * 8 + "00",
    "a million arrays deep": "81" * 1_000_000,
    "enormous declared bytes": "5b7fffffffffffffff",
    "largest declared bytes": "5bffffffffffffffff",
    "enormous declared text": "7b0000000100000000",
    "enormous declared array": "9b7fffffffffffffff",
    "largest declared array": "9bffffffffffffffff",
    "large declared array": "9affffffff",
    "enormous declared map": "bbffffffffffffffff",
}


@pytest.mark.parametrize(("encoded", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_known_encodings(encoded: str, value: Value) -> None:
    assert encode(value).hex() == encoded
    assert decode(bytes.fromhex(encoded), "test") == value


@pytest.mark.parametrize("encoded", REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_the_name_of_the_format(encoded: str) -> None:
    with pytest.raises(MalformedError) as caught:
        decode(bytes.fromhex(encoded), "test")
    assert caught.value.what == "test"


def test_a_few_bytes_never_become_billions_of_values() -> None:
    # Six shared arrays of 200 references each to the one before: 200^6 values if they were followed.
    level = "d81c98c8"
    bomb = "86" + level + "00" * 200
    for number in range(5):
        bomb += level + f"d81d{number:02x}" * 200
    with pytest.raises(MalformedError):
        decode(bytes.fromhex(bomb), "test")


TAKEN: dict[str, tuple[Callable[[], object], str]] = {
    "array": (lambda: take_array(b"", "field", 1), "must be an array"),
    "array of one": (lambda: take_array([], "field", 1), "must have 1 items, has 0"),
    "array of up to two": (lambda: take_array([0] * 3, "field", 1, 2), "must have 1 to 2 items, has 3"),
    "bytes": (lambda: take_bytes("x", "field", 1), "must be a byte string"),
    "bytes of one": (lambda: take_bytes(b"xx", "field", 1), "must have 1 bytes, has 2"),
    "bytes of up to two": (lambda: take_bytes(b"", "field", 1, 2), "must have 1 to 2 bytes, has 0"),
    "text": (lambda: take_text(b"x", "field", 1, 2), "must be a text string"),
    "text by bytes, not characters": (
        lambda: take_text("€", "field", 1, 2),
        "must have 1 to 2 bytes of UTF-8, has 3",
    ),
    "integer": (lambda: take_uint(None, "field"), "must be an unsigned integer"),
    "integer in range": (lambda: take_uint(3, "field", 1, 2), "must be in 1 to 2, is 3"),
}


@pytest.mark.parametrize(("take", "problem"), TAKEN.values(), ids=TAKEN.keys())
def test_fields_are_named_when_refused(take: Callable[[], object], problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        take()
    assert str(caught.value) == f"field: {problem}"


def test_fields_at_their_limits_are_taken() -> None:
    assert take_array([0, 1], "field", 2) == [0, 1]
    assert take_bytes(b"ab", "field", 1, 2) == b"ab"
    assert take_text("€", "field", 1, 3) == "€"
    assert take_uint(UINT_MAX, "field") == UINT_MAX
