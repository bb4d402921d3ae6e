"""The history of a label: every version, since when, and no tale about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.history import (
    BLOCK,
    KIND,
    ClaimedVersion,
    History,
    Version,
    epochs_to_look_up,
    keep_versions,
    kept_versions,
    verify_history,
    verify_versions,
)
from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
from kt_es.client.trust import Lookup
from kt_es.errors import ConfigError, UnavailableError, VerificationError
from tests import builders as b
from tests.reference.directory import Directory

ALICE = b.label_of("alice")
NEW_KEY = b.private_key("alice's new key")


def built() -> Directory:
    """alice: version 1 in epoch 2, a key more in epoch 3, the old key gone in epoch 6."""
    directory = Directory()
    directory.put_user("bob")
    directory.advance()
    old = b.private_key("alice")
    first = b.mutation("alice")
    second = b.next_mutation("alice", first, keys=[old, NEW_KEY], signed_by=[old])
    third = b.next_mutation("alice", second, keys=[NEW_KEY])
    for version, mutation in enumerate((first, second, third), start=1):
        assert directory.put(mutation, b.opening("alice", version), b.profile("alice", version)).succeeded
        directory.advance()
        if version == 2:
            directory.advance()
            directory.advance()
    directory.advance()
    return directory


@pytest.fixture
def directory() -> Directory:
    return built()


@pytest.fixture
def client(directory: Directory) -> Client:
    return Client(
        "http://kt.test",
        MemoryStateStore(),
        transport=httpx.MockTransport(directory.handle),
        now=lambda: directory.now,
    )


def test_every_version_since_when_and_by_whom(client: Client) -> None:
    history = client.history("Alice@example.org", profiles=True)
    assert [(version.number, version.epoch) for version in history.versions] == [(1, 2), (2, 3), (3, 6)]
    assert history.versions[1].timestamp == b.START + 30_000
    old, new = b.public(b.private_key("alice")), b.public(NEW_KEY)
    assert [version.signers for version in history.versions] == [(old,), (old,), (new,)]
    assert [version.profile and version.profile[0].data for version in history.versions] == [
        b"alice 1",
        b"alice 2",
        b"alice 3",
    ]


def test_without_profiles(client: Client) -> None:
    history = client.history(ALICE)
    assert [(version.profile, version.erased) for version in history.versions] == [(None, False)] * 3


def test_erased_profiles_are_reported_as_erased(client: Client, directory: Directory) -> None:
    directory.erase("alice", NEW_KEY)
    directory.advance()
    history = client.history(ALICE, profiles=True)
    assert [version.erased for version in history.versions] == [False, False, True]


def test_nobody_has_no_history(client: Client) -> None:
    history = client.history("nobody@example.org")
    assert history.versions == ()
    assert history.current.absent


Claims = list[ClaimedVersion]


@pytest.fixture
def parts(client: Client, directory: Directory) -> tuple[Lookup, Claims, list[Lookup]]:
    """The current lookup, an honest tale, and verified lookups of all epochs."""
    claims = [
        ClaimedVersion(epoch, directory.mutations[entry_hash])
        for epoch, entry_hash in directory.versions[b.index("alice")]
    ]
    lookups = [client.lookup(ALICE, epoch, profile=False) for epoch in range(1, 8)]
    return client.lookup(ALICE), claims, lookups


def judged(current: Lookup, claims: Claims, lookups: list[Lookup], last: Version | None = None) -> History:
    return verify_history(current, verify_versions(current, last, claims, lookups))


def test_the_honest_tale_is_accepted(parts: tuple[Lookup, Claims, list[Lookup]]) -> None:
    current, claims, lookups = parts
    assert epochs_to_look_up(claims) == (1, 2, 3, 5, 6)
    assert len(judged(current, claims, lookups).versions) == 3


def first_version_left_out(claims: Claims) -> Claims:
    return claims[1:]


def middle_version_left_out(claims: Claims) -> Claims:
    return [claims[0], claims[2]]


def last_version_left_out(claims: Claims) -> Claims:
    return claims[:-1]


def no_versions(claims: Claims) -> Claims:
    return []


def first_version_twice(claims: Claims) -> Claims:
    return [claims[0], *claims]


def since_too_early(claims: Claims) -> Claims:
    return [claims[0], claims[1], replace(claims[2], epoch=5)]


def since_too_late(claims: Claims) -> Claims:
    return [claims[0], replace(claims[1], epoch=4), claims[2]]


def other_first_version(claims: Claims) -> Claims:
    return [replace(claims[0], mutation=b.mutation("alice", keys=[NEW_KEY])), *claims[1:]]


@pytest.mark.parametrize(
    "lie",
    [
        first_version_left_out,
        middle_version_left_out,
        last_version_left_out,
        no_versions,
        first_version_twice,
        since_too_early,
        since_too_late,
        other_first_version,
    ],
)
def test_a_tale_with_one_lie_is_refused(
    parts: tuple[Lookup, Claims, list[Lookup]], lie: Callable[[Claims], Claims]
) -> None:
    current, claims, lookups = parts
    with pytest.raises(VerificationError, match=r"^history:"):
        judged(current, lie(claims), lookups)


def test_lookups_of_another_label_prove_nothing(
    parts: tuple[Lookup, Claims, list[Lookup]], client: Client
) -> None:
    current, claims, _ = parts
    others = [client.lookup(b.label_of("bob"), epoch) for epoch in range(1, 8)]
    with pytest.raises(VerificationError, match="no proof since when"):
        judged(current, claims, others)


def test_a_version_that_its_predecessor_did_not_authorize_is_refused(
    parts: tuple[Lookup, Claims, list[Lookup]],
) -> None:
    """A directory that put a stranger's key into the map itself: the map proves it, the keys do not."""
    current, claims, lookups = parts
    stranger = b.private_key("stranger")
    entry = claims[2].mutation.entry
    forged = b.mutation("alice", 3, entry.previous, keys=[stranger])
    versions = [*claims[:2], replace(claims[2], mutation=forged)]
    seen = [
        replace(lookup, mutation=forged) if lookup.epoch >= 6 else lookup for lookup in (*lookups, current)
    ]
    with pytest.raises(VerificationError, match=r"^signatures: version 3"):
        judged(seen[-1], versions, seen[:-1])


def test_a_history_goes_on_from_a_verified_version(parts: tuple[Lookup, Claims, list[Lookup]]) -> None:
    current, claims, lookups = parts
    versions = verify_versions(current, None, claims[:2], lookups)
    later = verify_versions(current, versions[-1], claims[2:], lookups)
    assert verify_history(current, (*versions, *later)) == judged(current, claims, lookups)


def test_what_does_not_follow_the_verified_version_is_refused(
    parts: tuple[Lookup, Claims, list[Lookup]],
) -> None:
    current, claims, lookups = parts
    first = verify_versions(current, None, claims[:1], lookups)[-1]
    other = replace(first, entry_hash=bytes(32))
    with pytest.raises(VerificationError, match="version 2 does not follow the one before"):
        verify_versions(current, other, claims[1:], lookups)


def asked(directory: Directory, client: Client) -> list[tuple[str, dict[str, object]]]:
    """The requests of one more history."""
    sent: list[tuple[str, dict[str, object]]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, json.loads(request.content or b"{}")))
        return directory.handle(request)

    client._transport._http._transport = httpx.MockTransport(handle)
    client.history(ALICE)
    return sent


def many(directory: Directory, count: int) -> None:
    """``count`` more versions of alice, one in each epoch."""
    for _ in range(count):
        held = directory.mutations[directory.entries[b.index("alice")]]
        made = b.next_mutation("alice", held, keys=[NEW_KEY])
        number = held.entry.version + 1
        assert directory.put(made, b.opening("alice", number), b.profile("alice", number)).succeeded
        directory.advance()


class TestKept:
    """What was verified is kept: the next history reads the new versions only."""

    def test_only_new_versions_are_asked_for(self, client: Client, directory: Directory) -> None:
        first = client.history(ALICE)
        many(directory, 1)
        sent = asked(directory, client)
        assert [body["after"] for path, body in sent if path == "/v1/history"] == [3]
        assert [body["epoch"] for path, body in sent if path == "/v1/lookup"] == [None, 7, 8]
        again = client.history(ALICE)
        assert again.versions[:3] == tuple(replace(version, erased=None) for version in first.versions)
        assert [version.number for version in again.versions] == [1, 2, 3, 4]

    def test_nothing_new_asks_for_the_latest_lookup_alone(self, client: Client, directory: Directory) -> None:
        client.history(ALICE)
        assert [path for path, _ in asked(directory, client)] == ["/v1/lookup"]

    def test_it_is_kept_on_disk_in_blocks(self, directory: Directory, tmp_path: Path) -> None:
        many(directory, 2 * BLOCK)
        directory.page = 100
        store = FileStateStore(tmp_path / "state")
        reader = client_of(directory, store)
        assert len(reader.history(ALICE).versions) == 2 * BLOCK + 3
        many(directory, 1)
        other = client_of(directory, FileStateStore(tmp_path / "state"))
        assert [body["after"] for path, body in asked(directory, other) if path == "/v1/history"] == [259]
        assert len(kept_versions(store, ALICE)) == 2 * BLOCK + 4

    def test_what_was_verified_before_an_outage_is_kept(self, directory: Directory) -> None:
        many(directory, BLOCK + 10)
        store, lookups = MemoryStateStore(), 0

        def handle(request: httpx.Request) -> httpx.Response:
            nonlocal lookups
            lookups += request.url.path == "/v1/lookup"
            return httpx.Response(500) if lookups > BLOCK + 10 else directory.handle(request)

        with pytest.raises(UnavailableError):
            client_of(directory, store, handle).history(ALICE)
        assert len(kept_versions(store, ALICE)) == BLOCK
        assert len(client_of(directory, store).history(ALICE).versions) == BLOCK + 13

    def test_an_account_that_ends_before_what_is_kept_is_refused(self, directory: Directory) -> None:
        store = MemoryStateStore()
        client_of(directory, store).history(ALICE)
        fork = built()
        fork.forced[b.index("alice")] = fork.mutations[fork.versions[b.index("alice")][0][1]]
        fork.advance()
        store._memory = {key: data for key, data in store._memory.items() if key[0] == KIND}
        with pytest.raises(VerificationError, match=r"holds version 1, though version 3 was verified before"):
            client_of(fork, store).history(ALICE)

    def test_a_kept_version_that_the_new_ones_do_not_name_is_refused(self, directory: Directory) -> None:
        store = MemoryStateStore()
        reader = client_of(directory, store)
        reader.history(ALICE)
        versions = list(kept_versions(store, ALICE))
        entry = replace(versions[-1].entry, commitment=bytes(32))
        versions[-1] = replace(versions[-1], entry=entry)
        keep_versions(store, ALICE, versions, 1)
        with pytest.raises(VerificationError, match=r"^history: does not end with"):
            reader.history(ALICE)
        many(directory, 1)
        with pytest.raises(VerificationError, match=r"^history: version 4 does not follow"):
            reader.history(ALICE)

    @pytest.mark.parametrize("damage", [b"", b"\x80", b"\x82\x60\x80"])
    def test_damage_is_named_and_nothing_begins_anew_in_silence(
        self, directory: Directory, damage: bytes
    ) -> None:
        store = MemoryStateStore()
        reader = client_of(directory, store)
        reader.history(ALICE)
        (key,) = [key for kind, key in store._memory if kind == KIND]
        store.remember(KIND, key, damage)
        with pytest.raises(ConfigError, match="is damaged"):
            reader.history(ALICE)

    def test_what_is_kept_follows_its_chain(self, directory: Directory) -> None:
        store = MemoryStateStore()
        reader = client_of(directory, store)
        reader.history(ALICE)
        first, second, third = kept_versions(store, ALICE)
        changed = replace(second, entry=replace(second.entry, commitment=bytes(32)))
        keep_versions(store, ALICE, (first, changed, third), 3)
        with pytest.raises(ConfigError, match="version 3 does not follow"):
            reader.history(ALICE)

    def test_all_is_verified_anew_when_asked(self, client: Client, directory: Directory) -> None:
        client.history(ALICE)
        assert [version.erased for version in client.history(ALICE).versions] == [None] * 3
        assert [version.erased for version in client.history(ALICE, afresh=True).versions] == [False] * 3


def test_a_server_that_sends_fewer_versions_than_the_map_holds(directory: Directory) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/history":
            return httpx.Response(200, content=b'{"versions": [], "more": true}')
        return directory.handle(request)

    with pytest.raises(VerificationError, match=r"^history: ends with version 0"):
        client_of(directory, MemoryStateStore(), handle).history(ALICE)


def client_of(
    directory: Directory, store: StateStore, handler: Callable[[httpx.Request], httpx.Response] | None = None
) -> Client:
    return Client(
        "http://kt.test",
        store,
        transport=httpx.MockTransport(handler or directory.handle),
        now=lambda: directory.now,
    )
