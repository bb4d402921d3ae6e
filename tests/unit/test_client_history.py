"""The history of a label: every version, since when, and no tale about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.history import ToldVersion, epochs_to_look_up, verify_history
from kt_es.client.state import MemoryStateStore
from kt_es.client.trust import Lookup
from kt_es.errors import VerificationError
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


def test_erased_profiles_are_said_to_be_erased(client: Client, directory: Directory) -> None:
    directory.erase("alice", NEW_KEY)
    directory.advance()
    history = client.history(ALICE, profiles=True)
    assert [version.erased for version in history.versions] == [False, False, True]


def test_nobody_has_no_history(client: Client) -> None:
    history = client.history("nobody@example.org")
    assert history.versions == ()
    assert history.current.absent


Told = list[ToldVersion]


@pytest.fixture
def parts(client: Client, directory: Directory) -> tuple[Lookup, Told, list[Lookup]]:
    """The current lookup, an honest tale, and verified lookups of all epochs."""
    told = [
        ToldVersion(
            epoch, directory.mutations[entry_hash], b.opening("alice", number), b.profile("alice", number)
        )
        for number, (epoch, entry_hash) in enumerate(directory.versions[b.index("alice")], start=1)
    ]
    lookups = [client.lookup(ALICE, epoch, profile=False) for epoch in range(1, 8)]
    return client.lookup(ALICE), told, lookups


def test_the_honest_tale_is_accepted(parts: tuple[Lookup, Told, list[Lookup]]) -> None:
    current, told, lookups = parts
    assert epochs_to_look_up(told) == (1, 2, 3, 5, 6)
    assert len(verify_history(current, told, lookups).versions) == 3


def first_version_left_out(told: Told) -> Told:
    return told[1:]


def middle_version_left_out(told: Told) -> Told:
    return [told[0], told[2]]


def last_version_left_out(told: Told) -> Told:
    return told[:-1]


def nothing_told(told: Told) -> Told:
    return []


def told_twice(told: Told) -> Told:
    return [told[0], *told]


def since_too_early(told: Told) -> Told:
    return [told[0], told[1], replace(told[2], epoch=5)]


def since_too_late(told: Told) -> Told:
    return [told[0], replace(told[1], epoch=4), told[2]]


def other_first_version(told: Told) -> Told:
    return [replace(told[0], mutation=b.mutation("alice", keys=[NEW_KEY])), *told[1:]]


@pytest.mark.parametrize(
    "lie",
    [
        first_version_left_out,
        middle_version_left_out,
        last_version_left_out,
        nothing_told,
        told_twice,
        since_too_early,
        since_too_late,
        other_first_version,
    ],
)
def test_a_tale_with_one_lie_is_refused(
    parts: tuple[Lookup, Told, list[Lookup]], lie: Callable[[Told], Told]
) -> None:
    current, told, lookups = parts
    with pytest.raises(VerificationError, match=r"^history:"):
        verify_history(current, lie(told), lookups)


def test_lookups_of_another_label_prove_nothing(
    parts: tuple[Lookup, Told, list[Lookup]], client: Client
) -> None:
    current, told, _ = parts
    others = [client.lookup(b.label_of("bob"), epoch) for epoch in range(1, 8)]
    with pytest.raises(VerificationError, match="no proof since when"):
        verify_history(current, told, others)


def test_a_version_that_its_predecessor_did_not_authorize_is_refused(
    parts: tuple[Lookup, Told, list[Lookup]],
) -> None:
    """A directory that put a stranger's key into the map itself: the map proves it, the keys do not."""
    current, told, lookups = parts
    stranger = b.private_key("stranger")
    entry = told[2].mutation.entry
    forged = b.mutation("alice", 3, entry.previous, keys=[stranger])
    versions = [*told[:2], replace(told[2], mutation=forged, opening=None, profile=None)]
    seen = [
        replace(lookup, mutation=forged) if lookup.epoch >= 6 else lookup for lookup in (*lookups, current)
    ]
    with pytest.raises(VerificationError, match=r"^signatures: version 3"):
        verify_history(seen[-1], versions, seen[:-1])


@pytest.mark.parametrize("change", [{"opening": b"\1" * 16}, {"opening": None}, {"profile": b"\x80"}])
def test_a_profile_that_was_not_committed_to_is_refused(
    parts: tuple[Lookup, Told, list[Lookup]], change: dict[str, bytes | None]
) -> None:
    current, told, lookups = parts
    told[0] = replace(told[0], **change)  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match=r"^commitment:"):
        verify_history(current, told, lookups)
