"""Changes inputs: their bytes, and the values encoded in them, so that nested values are changed too.

The random generator that is passed in determines all changes.
"""

from __future__ import annotations

import base64
import binascii
import json
from random import Random
from typing import Any

import cbor2

from kt_es.errors import MalformedError
from kt_es.formats.codec import decode

_BYTES = (0, 1, 0x0A, 0x0D, 0x20, 0x22, 0x2D, 0x7F, 0x80, 0xF6, 0xFF)
_NUMBERS = (0, 1, 2, 23, 24, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
_SIZES = (0, 1, 16, 31, 32, 33, 64, 255, 256, 1024, 16_384, 16_385)
_TEXTS = ("", "x", "\0", "é", "e\u0301", "\u202e", "\U0010ffff", "a@b.c", "+", "— ", "\n\n")


def mutate(data: bytes, random: Random, max_size: int = 65_536) -> bytes:
    """Return ``data`` with one to four changes, cut at ``max_size`` bytes."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = _changed(data, random)
    return data[:max_size]


def _changed(data: bytes, random: Random) -> bytes:
    if random.random() < 0.6:
        value = _read_json(data) if data[:1] == b"{" else _read_cbor(data)
        if isinstance(value, dict):
            return json.dumps(_changed_value(value, random), default=bytes.hex).encode()
        if value is not None:
            return cbor2.dumps(_changed_value(value, random))
    return _changed_bytes(data, random)


def _read_cbor(data: bytes) -> Any:
    try:
        value = decode(data, "input")
    except MalformedError:
        return None
    return value if isinstance(value, list) else None


def _read_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _changed_value(value: Any, random: Random) -> Any:
    if random.random() < 0.05:
        return _any_value(random)
    if isinstance(value, dict) and value:
        key = random.choice(sorted(value))
        if random.random() < 0.1:
            return {name: held for name, held in value.items() if name != key}
        return {**value, key: _changed_value(value[key], random)}
    if isinstance(value, list):
        return _changed_list(value, random)
    if isinstance(value, bytes):
        nested = _read_cbor(value) if random.random() < 0.8 else None
        return cbor2.dumps(_changed_value(nested, random)) if nested else _changed_bytes(value, random)
    if isinstance(value, str):
        return _changed_text(value, random)
    if type(value) is int:
        return random.choice((*_NUMBERS, value + 1, max(value - 1, 0)))
    return _any_value(random)


def _changed_list(value: list[Any], random: Random) -> list[Any]:
    made = list(value)
    at = random.randrange(len(made)) if made else 0
    what = random.random()
    if made and what < 0.75:
        made[at] = _changed_value(made[at], random)
    elif made and what < 0.82:
        del made[at]
    elif made and what < 0.88:
        made.insert(random.randrange(len(made) + 1), made[at])
    elif made and what < 0.94:
        other = random.randrange(len(made))
        made[at], made[other] = made[other], made[at]
    elif made and what < 0.97:
        made *= random.choice((2, 17, 33, 257)) if len(made) < 300 else 1
    else:
        made.insert(at, _any_value(random))
    return made


def _changed_text(value: str, random: Random) -> str:
    try:
        inside = base64.b64decode(value, validate=True) if len(value) > 8 else b""
    except (ValueError, binascii.Error):
        inside = b""
    if inside and random.random() < 0.9:
        return base64.b64encode(_changed(inside, random)).decode()
    if random.random() < 0.2:
        at = random.randrange(len(value) + 1)
        return value[:at] + random.choice(_TEXTS) + value[at:]
    return _changed_bytes(value.encode("utf-8", "surrogatepass"), random).decode("utf-8", "replace")


def _any_value(random: Random) -> Any:
    return random.choice(
        (
            None,
            [],
            b"",
            "",
            random.choice(_NUMBERS),
            bytes(random.choice(_SIZES)),
            random.choice(_TEXTS),
            [[]],
            True,
            -1,
            1.5,
        )
    )


def _changed_bytes(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice((1, 1, 2, 4, 8, 32, 100)))
    what = random.randrange(7)
    if what == 0 and data:
        at = min(at, len(data) - 1)
        return data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]
    if what == 1:
        return data[:at] + bytes((random.choice(_BYTES),)) + data[at + 1 :]
    if what == 2:
        return data[:at] + data[end:]
    if what == 3:
        return data[:at] + random.randbytes(end - at) + data[end:]
    if what == 4:
        return data[:at] + data[at:end] * random.choice((2, 2, 3, 64)) + data[end:]
    if what == 5:
        return data[:at] + bytes((random.choice(_BYTES),)) * random.choice((1, 2, 8)) + data[at:]
    other = random.randrange(len(data) + 1)
    return data[:at] + data[other : other + end - at] + data[end:]
