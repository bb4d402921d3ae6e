"""Contract: who may do what, over TLS. See ``secure`` for how to ask another server the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kt_es.eventstore.driver import NewEvent, StreamState
from tests.contracts.nodes import event, events
from tests.contracts.secure import ANYONE, Secure, answer, secure_server

ANY, NO_STREAM = StreamState.ANY, StreamState.NO_STREAM
DENIED, UNKNOWN = "PERMISSION_DENIED", "UNAUTHENTICATED"
EVERY = "read append batch subscribe mread mwrite delete"


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    with secure_server(tmp_path_factory.mktemp("secure")) as secure:
        yield secure


def restricted(users: Secure, name: str, **acl: object) -> str:
    """A stream of two events with this ACL, keys without the $."""
    metadata = {"$acl": {f"${key}": value for key, value in acl.items()}}
    users["admin"].set_stream_metadata(name, metadata=metadata, current_version=NO_STREAM)
    users["admin"].append_to_stream(name, current_version=NO_STREAM, events=events(2))
    return name


def attempt(users: Secure, who: str, what: str, stream: str) -> str:
    client = users[who]
    # A wrong revision is told to those only who may do it, and leaves the stream as it is.
    wrong = 99
    calls: dict[str, Any] = {
        "read": lambda: list(client.read_stream(stream)),
        "append": lambda: client.append_to_stream(stream, current_version=ANY, events=event(9)),
        "batch": lambda: client.append_to_stream(stream, current_version=ANY, events=events(2)),
        "subscribe": lambda: client.subscribe_to_stream(stream),
        "mread": lambda: client.get_stream_metadata(stream),
        "mwrite": lambda: client.set_stream_metadata(stream, metadata={"n": 1}, current_version=wrong),
        "delete": lambda: client.delete_stream(stream, current_version=wrong),
        "tombstone": lambda: client.tombstone_stream(stream, current_version=wrong),
    }
    said = answer(calls[what])
    return "" if said == "WrongCurrentVersion" else said


def may(users: Secure, who: str, stream: str) -> str:
    """All that somebody may do with a stream, in the order of ``EVERY``."""
    answers = {what: attempt(users, who, what, stream) for what in EVERY.split()}
    assert set(answers.values()) <= {"", DENIED}, answers
    return " ".join(what for what, said in answers.items() if not said)


@pytest.mark.parametrize("what", [*EVERY.split(), "tombstone"])
@pytest.mark.parametrize("login", [("alice", "guess"), ("nobody", "pw-alice"), ("Alice", "pw-alice")])
def test_who_is_not_a_user_gets_nothing(users: Secure, login: tuple[str, str], what: str, name: str) -> None:
    with users.client(*login) as client:
        assert attempt({"x": client}, "x", what, name) == UNKNOWN  # type: ignore[arg-type]


def test_without_an_acl_who_has_logged_in_may_do_everything(users: Secure, name: str) -> None:
    users["alice"].append_to_stream(name, current_version=NO_STREAM, events=events(2))
    assert may(users, "bob", name) == EVERY
    assert may(users, "ops", name) == EVERY
    assert may(users, "admin", name) == EVERY
    assert may(users, ANYONE, name) == ""


def test_what_is_refused_changes_nothing(users: Secure, name: str) -> None:
    restricted(users, name, w=["alice"], d=["alice"], mw=["alice"])
    may(users, "bob", name)
    may(users, ANYONE, name)
    assert len(users["admin"].get_stream(name)) == 2
    assert users["admin"].get_stream_metadata(name)[1] == 0


def test_a_stream_that_one_user_writes_and_all_read(users: Secure, name: str) -> None:
    restricted(users, name, w=["alice"], r=["$all"], d=["$admins"], mw=["$admins"], mr=["$all"])
    assert may(users, "alice", name) == "read append batch subscribe mread"
    assert may(users, "bob", name) == "read subscribe mread"
    assert may(users, "ops", name) == "read subscribe mread"
    assert may(users, "admin", name) == EVERY
    assert may(users, ANYONE, name) == ""


def test_a_stream_that_a_group_reads(users: Secure, name: str) -> None:
    restricted(users, name, r="writers", w=[], d=[], mr="alice", mw="bob")
    assert may(users, "alice", name) == "read subscribe mread"
    assert may(users, "bob", name) == "read subscribe mwrite"
    assert may(users, "ops", name) == ""
    assert may(users, "admin", name) == EVERY


def test_what_an_acl_leaves_out_is_everybodys(users: Secure, name: str) -> None:
    restricted(users, name, w="alice")
    assert may(users, "bob", name) == "read subscribe mread mwrite delete"


def test_an_acl_can_be_set_and_taken_back_by_who_may_write_metadata(users: Secure, name: str) -> None:
    users["alice"].append_to_stream(name, current_version=NO_STREAM, events=events(2))
    acl = {"$acl": {"$r": ["alice"], "$w": ["alice"], "$mw": ["alice"]}}
    users["alice"].set_stream_metadata(name, metadata=acl, current_version=NO_STREAM)
    assert may(users, "bob", name) == "mread delete"
    users["alice"].set_stream_metadata(name, metadata={}, current_version=0)
    assert may(users, "bob", name) == EVERY


def test_deleting_drops_the_acl(users: Secure, name: str) -> None:
    restricted(users, name, r=["alice"], w=["alice"])
    users["admin"].delete_stream(name, current_version=ANY)
    for who in ("alice", "bob"):
        assert attempt(users, who, "read", name) == "NotFound"
    assert attempt(users, "bob", "append", name) == ""
    assert may(users, "bob", name) == EVERY
    assert may(users, ANYONE, name) == ""


WRONG: list[dict[str, object]] = [{"$maxCount": "2"}, {"$maxAge": None}, {"$acl": {"$r": 7, "$w": "alice"}}]


@pytest.mark.parametrize("wrong", WRONG)
def test_an_acl_in_metadata_of_a_wrong_kind_does_not_stand(
    users: Secure, name: str, wrong: dict[str, object]
) -> None:
    restricted(users, name, r=["alice"], w=["alice"])
    assert attempt(users, "bob", "append", name) == DENIED
    acl = {"$acl": {"$r": ["alice"], "$w": ["alice"]}}
    users["admin"].set_stream_metadata(name, metadata={**acl, **wrong}, current_version=0)
    assert may(users, "bob", name) == EVERY


def test_an_acl_that_is_not_marked_as_json_does_not_stand(users: Secure, name: str) -> None:
    data = json.dumps({"$acl": {"$r": ["alice"], "$w": ["alice"]}}).encode()
    unmarked = NewEvent("$metadata", data, content_type="application/octet-stream")
    users["admin"].append_to_stream(f"$${name}", current_version=NO_STREAM, events=unmarked)
    users["admin"].append_to_stream(name, current_version=NO_STREAM, events=events(2))
    assert may(users, "bob", name) == EVERY


def test_a_tombstone_needs_the_right_to_delete(users: Secure, name: str) -> None:
    restricted(users, name, d=["alice"])
    assert attempt(users, "bob", "tombstone", name) == DENIED
    assert attempt(users, "alice", "tombstone", name) == ""


def test_a_missing_stream_is_denied_and_not_missing(users: Secure, name: str) -> None:
    assert attempt(users, "bob", "read", name) == "NotFound"
    assert attempt(users, ANYONE, "read", name) == DENIED
    assert attempt(users, "bob", "read", f"${name}") == DENIED


def test_the_metadata_stream_is_guarded_like_the_metadata(users: Secure, name: str) -> None:
    restricted(users, name, r=["bob"], w=["bob"], mr=["alice"], mw=["$admins"])
    meta = f"$${name}"
    assert attempt(users, "alice", "read", meta) == ""
    assert attempt(users, "bob", "read", meta) == DENIED
    for who in ("alice", "bob"):
        forged = NewEvent(type="$metadata", data=b"{}")
        append = users[who].append_to_stream
        assert answer(append, meta, current_version=ANY, events=forged) == DENIED
        assert answer(append, meta, current_version=ANY, events=[forged]) == DENIED


def test_system_streams_are_the_admins(users: Secure, name: str) -> None:
    for who in ("alice", "ops", ANYONE):
        for what in EVERY.split():
            assert attempt(users, who, what, f"${name}") == DENIED
        assert attempt(users, who, "append", f"$$${name}") == DENIED
        assert attempt(users, who, "append", "$settings") == DENIED
        assert answer(users[who].set_stream_metadata, "$all", metadata={}, current_version=ANY) == DENIED
    assert attempt(users, "admin", "append", f"${name}") == ""


def test_all_is_the_admins_to_read(users: Secure, name: str) -> None:
    users["alice"].append_to_stream(name, current_version=NO_STREAM, events=events(1))
    for who in ("alice", "ops", ANYONE):
        client = users[who]
        assert answer(client.read_all, limit=1) == DENIED
        assert answer(client.read_all, limit=1, backwards=True) == DENIED
        assert answer(client.subscribe_to_all) == DENIED
        found = client.subscribe_to_all
        assert answer(found, filter_include=[name], filter_by_stream_name=True) == DENIED
    assert answer(users["admin"].read_all, limit=1) == ""
    assert answer(users["admin"].subscribe_to_all) == ""


def test_the_acl_of_all_lets_others_read_it(users: Secure, name: str) -> None:
    admin = users["admin"]
    # A subscription shows that it is allowed by its first event: there has to be one.
    admin.append_to_stream(name, current_version=NO_STREAM, events=events(1))
    admin.set_stream_metadata("$all", metadata={"$acl": {"$r": ["alice"]}}, current_version=ANY)
    try:
        assert answer(users["alice"].read_all, limit=1) == ""
        assert answer(users["alice"].subscribe_to_all) == ""
        assert answer(users["bob"].read_all, limit=1) == DENIED
    finally:
        admin.set_stream_metadata("$all", metadata={}, current_version=ANY)
    assert answer(users["alice"].read_all, limit=1) == DENIED


def test_the_settings_are_the_default_of_all_streams(users: Secure, name: str) -> None:
    admin = users["admin"]
    admin.append_to_stream(name, current_version=NO_STREAM, events=events(2))
    own = restricted(users, f"{name}-own", r=["bob"])

    def settings(values: dict[str, object]) -> None:
        data = json.dumps(values).encode()
        admin.append_to_stream("$settings", current_version=ANY, events=NewEvent("settings", data))

    everybody = dict.fromkeys(("$r", "$w", "$d", "$mr", "$mw"), "$all")
    admins = dict.fromkeys(everybody, "$admins")
    settings({"$userStreamAcl": {**everybody, "$w": ["alice"], "$r": ["alice"]}, "$systemStreamAcl": admins})
    try:
        assert may(users, "bob", name) == "mread mwrite delete"
        assert may(users, "alice", name) == EVERY
        assert may(users, "bob", own) == "read subscribe mread mwrite delete"
    finally:
        settings({"$userStreamAcl": everybody, "$systemStreamAcl": admins})
    assert may(users, "bob", name) == EVERY


def test_groups_are_administrated_by_admins_and_operators(users: Secure, name: str) -> None:
    users["admin"].append_to_stream(name, current_version=NO_STREAM, events=events(1))
    for who in ("alice", ANYONE):
        assert answer(users[who].create_subscription_to_stream, "g", name) == DENIED
        assert answer(users[who].create_subscription_to_all, name) == DENIED
    for who in ("ops", "admin"):
        assert answer(users[who].create_subscription_to_stream, who, name) == ""
    for who in ("alice", ANYONE):
        assert answer(users[who].update_subscription_to_stream, "ops", name) == DENIED
        assert answer(users[who].replay_parked_events, "ops", name) == DENIED
        assert answer(users[who].delete_subscription, "ops", name) == DENIED
    for who, group in (("ops", "admin"), ("admin", "ops")):
        assert answer(users[who].update_subscription_to_stream, group, name) == ""
        assert answer(users[who].replay_parked_events, group, name) == ""
        assert answer(users[who].delete_subscription, group, name) == ""


def test_users_may_look_at_groups(users: Secure, name: str) -> None:
    users["admin"].create_subscription_to_stream("g", name)
    for who in ("alice", "ops", "admin"):
        assert answer(users[who].get_subscription_info, "g", name) == ""
        assert answer(users[who].list_subscriptions_to_stream, name) == ""
    assert answer(users[ANYONE].get_subscription_info, "g", name) == DENIED
    assert answer(users[ANYONE].list_subscriptions_to_stream, name) == DENIED


def test_a_group_is_read_by_who_may_read_its_stream(users: Secure, name: str) -> None:
    restricted(users, name, r=["alice"], w=["bob"])
    users["ops"].create_subscription_to_stream("g", name)
    for who, said in (("alice", ""), ("admin", ""), ("bob", DENIED), ("ops", DENIED), (ANYONE, DENIED)):
        assert answer(users[who].read_subscription_to_stream, "g", name) == said


def test_a_group_of_all_is_read_by_who_may_read_all(users: Secure, name: str) -> None:
    users["alice"].append_to_stream(name, current_version=NO_STREAM, events=events(1))
    users["ops"].create_subscription_to_all(name, filter_include=[name], filter_by_stream_name=True)
    try:
        for who, said in (("alice", DENIED), ("ops", DENIED), (ANYONE, DENIED), ("admin", "")):
            assert answer(users[who].read_subscription_to_all, name) == said
    finally:
        users["ops"].delete_subscription(name)
