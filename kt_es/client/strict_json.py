"""JSON as from an enemy: one meaning for each document, and bounded memory while it is read.

The standard library's reader accepts documents that two readers understand differently (a member that
stands twice, NaN, numbers of any length), and a few megabytes of empty lists become hundreds in memory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TypeAlias

from kt_es.errors import MalformedError

Json: TypeAlias = "Mapping[str, Json] | list[Json] | str | int | float | bool | None"

MAX_VALUES = 100_000
"""Values in one document. The largest answer, a page of a history, has some 20,000."""

_MAX_DIGITS = 20  # of 2^64 - 1
_MAX_FLOAT = 40


def decode_json(data: bytes, what: str) -> Mapping[str, Json]:
    """The JSON object that ``data`` is, UTF-8 without a byte order mark.

    The caller bounds the size of ``data``; the values in it are bounded here before they are made. Raises
    ``MalformedError`` naming ``what``.
    """
    # Each value but the first stands behind one of these; those inside of texts are counted as well.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise MalformedError(what, f"has more than {MAX_VALUES} values")
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, _RefusedValueError) else "is not JSON"
        raise MalformedError(what, problem) from None
    if not isinstance(value, dict):
        raise MalformedError(what, "is not a JSON object")
    if _SURROGATE.search(data):
        _refuse_surrogates(value, what)
    return value


def _refuse_surrogates(value: Json, what: str) -> None:
    """Half of a character cannot be written anywhere: neither to a terminal nor to a file."""
    pending: list[Json] = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, Mapping):
            pending += [*one, *one.values()]
        elif isinstance(one, list):
            pending += one
        elif isinstance(one, str) and any("\ud800" <= character <= "\udfff" for character in one):
            raise MalformedError(what, "has half of a surrogate pair in a text")


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _RefusedValueError(ValueError):
    """Valid JSON that is not taken."""


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedValueError("has a member twice in one object")
    return members


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise _RefusedValueError("has an integer of more than 20 digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits) if len(digits) <= _MAX_FLOAT else math.inf
    if not math.isfinite(value):
        raise _RefusedValueError("has a number that is too large or too long")
    return value


def _constant(name: str) -> float:
    raise _RefusedValueError(f"has {name}, which is no JSON number")
