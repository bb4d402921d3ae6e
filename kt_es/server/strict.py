"""What a front end refuses before it looks at the members of a request.

A request that two readers may read differently is refused: a proxy, a log and this front end must see the
same one. So are bodies larger than any request, unknown parameters and other content types than JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Scope

from kt_es.api.operations import HEALTH, JSON_MEDIA, METRICS, READY, ProblemReason
from kt_es.errors import RefusedError
from kt_es.server.limits import MAX_DEPTH, MAX_MEMBERS

# Monitoring tools add parameters of their own, and no answer depends on them.
_LENIENT = (HEALTH.path, METRICS.path, READY.path)

# A string, closed or not, or what opens or separates members. Possessive, so that time is linear.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)


class UnsupportedMediaError(Exception):
    """The body is not said to be JSON in UTF-8."""


def check_request(request: Request) -> None:
    """Raise ``RefusedError`` for a parameter that the operation does not have.

    ``UnsupportedMediaError`` for a body of another type.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or route.path in _LENIENT:
        return
    if route.body_field is not None:
        check_media(request)
    known = sorted(parameter.alias for parameter in route.dependant.query_params)
    given = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if any(name not in known for name, _ in given):
        # The message does not repeat the parameter, which may be a label.
        only = "no parameters" if not known else f"only the parameters {', '.join(known)}"
        raise RefusedError(ProblemReason.MALFORMED, f"this address takes {only}")


def check_media(request: Request) -> None:
    """Raise ``UnsupportedMediaError`` unless there is one content type, which is that of JSON in UTF-8."""
    values = request.headers.getlist("content-type")
    media, _, parameters = values[0].partition(";") if len(values) == 1 else ("", "", "")
    charset = parameters.strip().lower().replace('"', "")
    if media.strip().lower() != JSON_MEDIA or charset not in ("", "charset=utf-8"):
        raise UnsupportedMediaError
    # This front end decodes no content coding, so a reader that does would see another body.
    if any(value.strip().lower() != "identity" for value in request.headers.getlist("content-encoding")):
        raise UnsupportedMediaError


def oversized_shape(body: bytes) -> str | None:
    """The problem of a body with more members or levels than any request has; None without one.

    The body is read up to the first excess. Later steps find out whether it is JSON.
    """
    strings = members = levels = 0
    for found in _TOKEN.finditer(body):
        match body[found.start()]:
            case 0x22:
                strings += 1
            case 0x2C:
                members += 1
            case _:
                levels += 1
        if members >= MAX_MEMBERS or strings > 2 * MAX_MEMBERS:
            return f"the body has more than {MAX_MEMBERS} members"
        if levels > MAX_DEPTH:
            return f"the body has more than {MAX_DEPTH} objects and arrays"
    return None


class _AmbiguousError(ValueError):
    """The message says what is ambiguous."""


def ambiguity(scope: Scope, body: bytes) -> str | None:
    """The ambiguity in the query or the body of a request; None without one. Other faults are found later."""
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
