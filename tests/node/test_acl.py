"""Who may do what with a stream, decided without a server."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.eventstore.rights import taken, taken_defaults
from kt_es.node.access.acl import ADMIN, ANONYMOUS, Caller, Permission, allows, asked_of, user

ALICE = user("alice", frozenset({"writers"}))
BOB = user("bob", frozenset({"writers"}))
OPERATOR = user("olga", frozenset({"$ops"}))
ROOT = user("root", frozenset({"$admins"}))
READ, WRITE, DELETE = Permission.READ, Permission.WRITE, Permission.DELETE
READ_META, WRITE_META = Permission.READ_METADATA, Permission.WRITE_METADATA


def may(
    caller: Caller, stream: str, permission: Permission, acl: object = None, settings: object = None
) -> bool:
    """With ``acl`` as that of stream "s" alone, and ``settings`` as the last event of ``$settings``."""

    def metadata(name: str) -> Mapping[str, object]:
        return taken({"$acl": acl, "$maxCount": 3}) if name == "s" and acl is not None else {}

    def last(name: str) -> Mapping[str, object]:
        return taken_defaults(settings) if name == "$settings" and isinstance(settings, dict) else {}

    return allows(caller, stream, permission, metadata, last)


@pytest.mark.parametrize("permission", Permission)
def test_without_an_acl_users_have_users_streams_and_admins_the_systems(permission: Permission) -> None:
    assert may(ALICE, "s", permission)
    assert may(OPERATOR, "s", permission)
    assert not may(ANONYMOUS, "s", permission)
    assert not may(ALICE, "$s", permission)
    assert not may(OPERATOR, "$all", permission)
    assert may(ROOT, "$s", permission)
    assert may(ADMIN, "$all", permission)


@pytest.mark.parametrize("granted", ["alice", ["alice"], ["nobody", "alice"]])
def test_a_user_is_named_alone_or_in_a_list(granted: object) -> None:
    assert may(ALICE, "s", WRITE, {"$w": granted})
    assert not may(BOB, "s", WRITE, {"$w": granted})
    assert may(ROOT, "s", WRITE, {"$w": granted})


def test_a_group_is_named_like_a_user() -> None:
    acl = {"$r": "writers", "$w": ["$ops"]}
    assert may(ALICE, "s", READ, acl)
    assert not may(OPERATOR, "s", READ, acl)
    assert may(OPERATOR, "s", WRITE, acl)
    assert not may(ALICE, "s", WRITE, acl)


def test_all_is_everybody_who_logged_in() -> None:
    acl = {"$r": ["$all"]}
    assert may(BOB, "s", READ, acl)
    assert not may(ANONYMOUS, "s", READ, acl)
    assert may(Caller(frozenset({"$all"})), "s", READ, acl)


def test_what_an_acl_leaves_out_stays_as_it_was() -> None:
    acl = {"$w": ["alice"]}
    assert may(BOB, "s", READ, acl)
    assert may(BOB, "s", WRITE_META, acl)
    assert not may(BOB, "s", WRITE, acl)


def test_nobody_but_admins_where_nobody_is_named() -> None:
    assert not may(ALICE, "s", READ, {"$r": []})
    assert may(ROOT, "s", READ, {"$r": []})


WRONG = [[], "alice", 1, False, {"$x": "bob"}]
WRONG += [
    {"$r": granted, "$w": "bob"} for granted in (7, None, {"alice": 1}, [["alice"]], ["alice", 1], True)
]


@pytest.mark.parametrize("acl", WRONG)
def test_an_acl_of_a_wrong_kind_does_not_stand(acl: object) -> None:
    assert may(ALICE, "s", READ, acl)
    assert may(ALICE, "s", WRITE, acl)
    settings = {"$userStreamAcl": {"$r": "bob"}}
    assert not may(ALICE, "s", READ, acl, settings)
    assert may(ALICE, "s", READ, settings={**settings, "$systemStreamAcl": acl})


def test_the_settings_are_the_default() -> None:
    settings = {"$userStreamAcl": {"$w": ["alice"]}, "$systemStreamAcl": {"$r": ["bob"]}}
    assert may(ALICE, "t", WRITE, settings=settings)
    assert not may(BOB, "t", WRITE, settings=settings)
    assert may(BOB, "t", READ, settings=settings)
    assert may(BOB, "$all", READ, settings=settings)
    assert not may(ALICE, "$all", READ, settings=settings)
    assert not may(BOB, "$all", WRITE, settings=settings)


def test_a_streams_own_acl_goes_before_the_settings() -> None:
    settings = {"$userStreamAcl": {"$w": ["alice"], "$r": []}}
    assert may(BOB, "s", WRITE, {"$w": ["bob"]}, settings)
    assert not may(ALICE, "s", WRITE, {"$w": ["bob"]}, settings)
    assert not may(BOB, "s", READ, {"$w": ["bob"]}, settings)


def test_a_metadata_stream_is_its_streams_metadata() -> None:
    acl = {"$r": ["alice"], "$w": ["alice"], "$mr": ["bob"], "$mw": ["root"]}
    assert may(BOB, "$$s", READ, acl)
    assert not may(ALICE, "$$s", READ, acl)
    for permission in (WRITE, DELETE, WRITE_META):
        assert not may(ALICE, "$$s", permission, acl)
        assert not may(BOB, "$$s", permission, acl)
    assert not may(ALICE, "$$$settings", WRITE)
    assert not may(ALICE, "$$$$s", WRITE)


def test_what_is_asked_of_which_stream() -> None:
    assert asked_of("s", READ) == ("s", READ)
    assert asked_of("$s", DELETE) == ("$s", DELETE)
    assert asked_of("$$s", READ) == ("s", READ_META)
    assert asked_of("$$s", DELETE) == ("s", WRITE_META)
    assert asked_of("$$$all", READ) == ("$all", READ_META)
    assert asked_of("$$", WRITE) == ("$$", WRITE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["alice", "writers", "$all", "$admins", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([p.value for p in Permission] + ["x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(acl=JSON, settings=st.dictionaries(st.sampled_from(["$userStreamAcl", "$systemStreamAcl"]), JSON))
def test_whatever_stands_there_admins_may_and_the_anonymous_may_not(
    acl: object, settings: dict[str, object]
) -> None:
    for permission in Permission:
        assert may(ROOT, "s", permission, acl, settings)
        assert not may(ANONYMOUS, "s", permission, acl, settings)
        stands = taken({"$acl": acl}).get("$acl")
        granted = stands.get(permission.value) if isinstance(stands, dict) else None
        if granted is not None and "alice" not in str(granted) and not {"writers", "$all"} & _texts(granted):
            assert not may(ALICE, "s", permission, acl, settings)


def _texts(value: object) -> set[str]:
    if isinstance(value, str):
        return {value}
    return set().union(*map(_texts, value)) if isinstance(value, list) else set()
