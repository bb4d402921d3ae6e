"""What a server takes of a stream's metadata: all of them, or none."""

from __future__ import annotations

from typing import Any

import pytest

from kt_es.eventstore.rights import (
    EVERYBODY,
    JSON,
    default_grants,
    has_acl,
    openings_acl,
    taken,
    taken_defaults,
    taken_of,
)

ACL = openings_acl()
GOOD: list[dict[str, Any]] = [
    {},
    {"$acl": ACL},
    {"$acl": {}},
    {"$acl": {"$r": "x"}},
    {"$maxCount": 0, "$maxAge": -5, "$tb": 2**63 - 1, "$cacheControl": 7, "$tmp": True},
    {"$maxcount": "x", "note": None, "other": {"$tb": "x"}},
]
NO_COUNTS: list[object] = ["1", None, 1.0, True, [], {}, 2**63]
NO_SECONDS: list[object] = ["1", None, 1.5, False, 2**60]
NO_ACLS: list[object] = [[], "x", None, 1, {"$x": "y"}, {"r": "y"}]
NO_ROLES: list[object] = [None, 1, {}, ["x", 1], [["x"]], True]
BAD: list[dict[str, Any]] = [
    *({name: value} for name in ("$maxCount", "$tb") for value in NO_COUNTS),
    *({name: value} for name in ("$maxAge", "$cacheControl") for value in NO_SECONDS),
    {"$tmp": 1},
    *({"$acl": value} for value in NO_ACLS),
    *({"$acl": {**ACL, "$r": value}} for value in NO_ROLES),
]


@pytest.mark.parametrize("values", GOOD)
def test_metadata_are_taken_as_they_are(values: dict[str, Any]) -> None:
    assert taken(values) == values


@pytest.mark.parametrize("values", BAD)
def test_one_field_of_a_wrong_kind_makes_all_void(values: dict[str, Any]) -> None:
    assert taken(values) == {}
    assert not has_acl(taken({"$acl": ACL, "note": 1} | values), ACL)


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_nothing(data: bytes) -> None:
    assert taken_of(JSON, data) == {}


def test_metadata_are_marked_as_json() -> None:
    assert taken_of(JSON, b'{"$tb": 4}') == {"$tb": 4}
    assert taken_of("application/octet-stream", b'{"$tb": 4}') == {}


@pytest.mark.parametrize("name", ["$userStreamAcl", "$systemStreamAcl"])
def test_default_rights_are_all_void_or_none(name: str) -> None:
    good = {"$userStreamAcl": {"$r": ["tenant"]}, "$systemStreamAcl": {}, "other": 1}
    assert taken_defaults(good) == good
    assert default_grants(good)["$r"] == {"tenant"}
    assert taken_defaults({**good, name: {"$r": 7}}) == {}
    assert default_grants({**good, name: {"$r": 7}})["$r"] == {EVERYBODY}
