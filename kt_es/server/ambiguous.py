"""Requests that two readers may read differently: a proxy, a log and this front end must see the same one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.types import Scope

# RFC 3986, reg-name and IP literals, with a port; nothing that a proxy may take for a path or a user.
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%-]+(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")


class Head(Protocol):
    """The head of a request as it arrived."""

    version: str
    target: bytes
    raw_path: bytes

    def values(self, name: bytes) -> list[str]:
        """Every value of a header."""


def ambiguous_head(head: Head) -> str | None:
    """What is ambiguous in the head of a request, None if nothing is."""
    hosts = head.values(b"host")
    if head.version not in ("1.0", "1.1"):
        return "the version of the request is neither HTTP/1.1 nor HTTP/1.0"
    if len(hosts) > 1 or (head.version == "1.1" and not hosts):
        return "a request needs one Host header"
    if hosts and not _HOST.fullmatch(hosts[0]):
        return "the Host header is no host"
    # Nothing here has a name that needs them, and some proxies look at a path before they are undone.
    if b"%" in head.raw_path or b"#" in head.target:
        return "the path has percent-encodings or a fragment"
    if not head.target.startswith(b"/") and not _is_absolute(head.target):
        return "the target of the request is not a path"
    lengths = head.values(b"content-length")
    if any(length != str(int(length)) for length in lengths if length.isdecimal()):
        return "Content-Length has leading zeros"
    if any(value.lower() != "100-continue" for value in head.values(b"expect")):
        return "the only expectation is 100-continue"
    return None


def _is_absolute(target: bytes) -> bool:
    scheme, _, rest = target.partition(b"://")
    return scheme.lower() in (b"http", b"https") and b"@" not in rest.partition(b"/")[0]


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
