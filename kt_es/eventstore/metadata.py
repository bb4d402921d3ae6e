"""What a server takes of a stream's metadata.

EventStoreDB reads the fields below. Where one of them is of a wrong kind, it takes none of the metadata: no
limit holds, and the ACL does not stand. The node does the same, and what kt-es makes private it makes private
by metadata that are taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

JSON = "application/json"
MAX_COUNT, MAX_AGE, TRUNCATE_BEFORE, ACL = "$maxCount", "$maxAge", "$tb", "$acl"
USER_ACL, SYSTEM_ACL = "$userStreamAcl", "$systemStreamAcl"
_CACHE_CONTROL, _TEMPORARY = "$cacheControl", "$tmp"
RIGHTS = ("$r", "$w", "$d", "$mr", "$mw")
_INT64 = 2**63
_SECONDS = _INT64 // 10_000_000  # a span of time is kept in units of 100 ns


def json_object(data: bytes) -> dict[str, object]:
    """The JSON object in ``data``; anything else counts as empty."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        # RecursionError: brackets in brackets. Anybody may write it, and nobody may stop a process with it.
        return {}
    return values if isinstance(values, dict) else {}


def taken_of(content_type: str, data: bytes) -> Mapping[str, object]:
    """What a server takes of the metadata in an event: nothing if the event is not marked as JSON."""
    return taken(json_object(data)) if content_type == JSON else {}


def taken(values: Mapping[str, object]) -> Mapping[str, object]:
    """``values`` as a server takes them: all, or none if one of its own fields is of a wrong kind."""
    return values if all(_is_of_its_kind(name, value) for name, value in values.items()) else {}


def taken_defaults(values: Mapping[str, object]) -> Mapping[str, object]:
    """The server's default rights, the content of ``$settings``, as a server takes them: all or nothing."""
    return values if all(_is_acl(values.get(name, {})) for name in (USER_ACL, SYSTEM_ACL)) else {}


def _is_of_its_kind(name: str, value: object) -> bool:
    if name in {MAX_COUNT, TRUNCATE_BEFORE}:
        return _is_integer(value, _INT64)
    if name in {MAX_AGE, _CACHE_CONTROL}:
        return _is_integer(value, _SECONDS)
    if name == _TEMPORARY:
        return isinstance(value, bool)
    return name != ACL or _is_acl(value)


def _is_integer(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit


def _is_acl(value: object) -> bool:
    """Whether ``value`` is an object of rights, each granted to a name or to a list of names."""
    return isinstance(value, Mapping) and all(
        right in RIGHTS and _is_names(names) for right, names in value.items()
    )


def _is_names(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(name, str) for name in value)
    return isinstance(value, str)
