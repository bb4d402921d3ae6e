"""Requests that two readers may read differently: a proxy, a log and this front end must see the same one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope


class _AmbiguousError(ValueError):
    """The sentence says what is ambiguous."""


def ambiguity(scope: Scope, body: bytes) -> str | None:
    """What is ambiguous in a request, None if nothing is. What is no JSON at all is found later."""
    query = scope.get("query_string", b"").decode("latin-1")
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    if len(set(names)) < len(names):
        return "a parameter stands in the address twice"
    if not body or not _is_json(scope):
        return None
    try:
        json.loads(
            _text(body), object_pairs_hook=_check_once, parse_int=_integer, parse_constant=_refuse_constant
        )
    except _AmbiguousError as error:
        return str(error)
    except (ValueError, RecursionError):
        return None
    return None


def _is_json(scope: Scope) -> bool:
    return any(name == b"content-type" and b"json" in value.lower() for name, value in scope["headers"])


def _text(body: bytes) -> str:
    """The body as UTF-8 (RFC 8259, 8.1)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _AmbiguousError("the body is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise _AmbiguousError("the body begins with a byte order mark; leave it out")
    return text


def _check_once(members: Sequence[tuple[str, object]]) -> None:
    if len({name for name, _ in members}) < len(members):
        raise _AmbiguousError("a member stands in the body twice")


def _integer(digits: str) -> int:
    if digits == "-0":
        raise _AmbiguousError("-0 is written 0")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise _AmbiguousError(f"{name} is no JSON")
