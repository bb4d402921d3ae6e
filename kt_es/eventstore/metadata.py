"""The rules by which a server accepts the metadata of a stream.

EventStoreDB reads the fields below. If one of them has a wrong type, it ignores all metadata of the stream:
no limit applies, and the ACL has no effect. The node does the same. kt-es protects private streams with
metadata that a server accepts.
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
    """Return the JSON object in ``data``, or an empty one if ``data`` is anything else."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        # Deeply nested brackets cause RecursionError. Anybody can write them, and they must not stop a
        # process.
        return {}
    return values if isinstance(values, dict) else {}


def taken_of(content_type: str, data: bytes) -> Mapping[str, object]:
    """Return the metadata that a server accepts from an event. They are empty unless it is marked as JSON."""
    return taken(json_object(data)) if content_type == JSON else {}


def taken(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return ``values``, or no values if a field that the server reads has a wrong type."""
    return values if all(_is_of_its_kind(name, value) for name, value in values.items()) else {}


def taken_defaults(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return ``values``, the default rights in ``$settings``, or no values if one of the ACLs is invalid."""
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
    """Return whether ``value`` is an object of rights, each granted to a name or to a list of names."""
    return isinstance(value, Mapping) and all(
        right in RIGHTS and _is_names(names) for right, names in value.items()
    )


def _is_names(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(name, str) for name in value)
    return isinstance(value, str)
