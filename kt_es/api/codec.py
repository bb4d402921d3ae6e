"""JSON of the HTTP interface: strict reading, and the models as JSON and back.

The standard library's reader accepts documents that two readers understand differently (a member that
occurs twice, NaN, numbers of any length), and a few megabytes of empty lists become hundreds in memory. So
``decode_json`` gives each document one meaning and bounds the memory that reading takes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from kt_es.api.models import LATER, AtMost
from kt_es.errors import MalformedError
from kt_es.formats.codec import UINT_MAX
from kt_es.formats.notes import decode_base64, encode_base64

Json: TypeAlias = "Mapping[str, Json] | list[Json] | str | int | float | bool | None"
_T = TypeVar("_T")
_Reader: TypeAlias = Callable[[Json, str], Any]

MAX_VALUES = 100_000
"""Values in one document. The largest answer, a page of a history, has some 20,000."""

_MAX_DIGITS = 20  # of 2^64 - 1
_MAX_FLOAT = 40
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def decode_json(data: bytes, what: str) -> Mapping[str, Json]:
    """Decode one JSON object, in UTF-8 without a byte order mark. ``what`` is its name in errors.

    The caller limits the size of ``data``; this function limits the number of values before it makes them.
    Raises ``MalformedError``.
    """
    # One of these characters is before each value except the first. Those inside strings count as well.
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
        # Half of a surrogate pair can be written neither to a terminal nor to a file.
        if _SURROGATE.search(data) and _HALF_PAIR.search(json.dumps(value, ensure_ascii=False)):
            raise _RefusedValueError("has half of a surrogate pair in a text")
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, _RefusedValueError) else "is not JSON"
        raise MalformedError(what, problem) from None
    if not isinstance(value, dict):
        raise MalformedError(what, "is not a JSON object")
    return value


class _RefusedValueError(ValueError):
    """Valid JSON that ``decode_json`` refuses. The message says why."""


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedValueError("has a member twice in one object")
    return members


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise _RefusedValueError(f"has an integer of more than {_MAX_DIGITS} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits) if len(digits) <= _MAX_FLOAT else math.inf
    if not math.isfinite(value):
        raise _RefusedValueError("has a number that is too large or too long")
    return value


def _constant(name: str) -> float:
    raise _RefusedValueError(f"has {name}, which is no JSON number")


# --- Models ---


def encode_model(model: Any) -> dict[str, Any]:
    """Return the JSON object of a request or an answer, with every member that the model declares."""
    return {name: _encoded(getattr(model, name)) for name in _names(type(model))}  # type: ignore[arg-type]


def encode_request(model: Any) -> dict[str, Any]:
    """Return the JSON object of a request, without the ``LATER`` members that are None."""
    later = {member.name for member in dataclasses.fields(model) if member.metadata.get(LATER)}
    return {
        name: value for name, value in encode_model(model).items() if value is not None or name not in later
    }


def present_members(model: Any) -> dict[str, Any]:
    """Return the JSON object of an answer without the members that are None."""
    return {name: value for name, value in encode_model(model).items() if value is not None}


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(member.name for member in dataclasses.fields(kind))


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return encode_base64(value)
    if isinstance(value, tuple):
        return [_encoded(item) for item in value]
    return encode_model(value) if dataclasses.is_dataclass(value) else value


def decode_model(kind: type[_T], body: Mapping[str, Json]) -> _T:
    """Return the answer of type ``kind`` in ``body``; members that ``kind`` does not declare are ignored.

    Raises ``MalformedError``.
    """
    return kind(*(read(body.get(name), name) for name, read in _readers(kind)))  # type: ignore[arg-type]


def decode_member(kind: type, body: Mapping[str, Json], name: str) -> Any:
    """Return one member of an answer of type ``kind``. The others may be missing or malformed."""
    return dict(_readers(kind))[name](body.get(name), name)


@functools.cache
def _readers(kind: type) -> tuple[tuple[str, _Reader], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((name, _reader(hints[name])) for name in _names(kind))


def _reader(hint: Any, most: int | None = None) -> _Reader:
    """Return the reader of values that are annotated with ``hint``; ``most`` bounds bytes and items."""
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        base, mark = arguments
        return _reader(base, mark.size if isinstance(mark, AtMost) else None)
    if NoneType in arguments:
        read_present = _reader(next(argument for argument in arguments if argument is not NoneType), most)
        return lambda value, name: None if value is None else read_present(value, name)
    if get_origin(hint) is tuple:
        return functools.partial(_array, most, _reader(arguments[0]))
    if hint is bytes:
        return functools.partial(_bytes, most)
    if dataclasses.is_dataclass(hint):
        return functools.partial(_object_of, hint)
    return {str: _text, int: _uint, bool: _bool}[hint]


def _text(value: Json, name: str) -> str:
    if not isinstance(value, str):
        raise MalformedError(name, "must be a string")
    return value


def _uint(value: Json, name: str) -> int:
    if type(value) is not int or not 0 <= value <= UINT_MAX:
        raise MalformedError(name, "must be an integer from 0")
    return value


def _bool(value: Json, name: str) -> bool:
    if not isinstance(value, bool):
        raise MalformedError(name, "must be true or false")
    return value


def _bytes(most: int | None, value: Json, name: str) -> bytes:
    data = decode_base64(_text(value, name), name)
    if most is not None and len(data) > most:
        raise MalformedError(name, f"must have at most {most} bytes")
    return data


def _array(most: int | None, read: _Reader, value: Json, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or (most is not None and len(value) > most):
        raise MalformedError(name, f"must be an array of at most {most} items")
    return tuple(read(item, name) for item in value)


def _object_of(kind: Any, value: Json, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise MalformedError(name, "must be an object")
    return decode_model(kind, value)


@dataclass(frozen=True, slots=True)
class ShownProblem:
    """The parts of a problem document (RFC 9457) that people see. All of them are printable."""

    reason: str
    detail: str
    field: str | None


def read_problem(status: int, data: bytes) -> ShownProblem:
    """Read the body of a failure. It never raises: a proxy between server and client has its own format."""
    try:
        body = decode_json(data, "problem")
    except MalformedError:
        body = {}
    return shown_problem(status, body)


def shown_problem(status: int, body: Mapping[str, Json]) -> ShownProblem:
    """Return what people see of a problem document that was decoded. It never raises."""

    def shown(name: str) -> str | None:
        value = body.get(name)
        return printable(value) if isinstance(value, str) and value else None

    reason = shown("verdict") or shown("reason") or f"http-{status}"
    detail = shown("detail") or shown("title") or f"the server answered with status {status}"
    return ShownProblem(reason, detail, shown("field"))


def printable(text: str) -> str:
    """Return ``text`` without characters that control a terminal, cut at 500."""
    return "".join(character if character.isprintable() else "?" for character in text[:500])
