"""Publishing vouches for nothing unasked: what the library proposes and refuses."""

from __future__ import annotations

import httpx
import pytest

from kt_es.cli.owners.importing import MERGING
from kt_es.client.bulk import BulkProgress, publish_all
from kt_es.client.changes import OWN, Difference, Mine, OwnVersion
from kt_es.client.planning import Wanted
from kt_es.client.state import MemoryStateStore
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError, RefusedError, VerificationError
from tests import builders as b
from tests.cli.owners.people import (
    ALICE,
    KEY,
    LAPTOP,
    PHONE,
    PROFILE,
    STRANGER,
    client_of,
    follow,
    ids,
    standing,
)
from tests.reference.directory import Directory


class TestPropose:
    """The library's own calls obey the rule, not only the command."""

    def test_what_is_mine_is_signed_on(self, directory: Directory) -> None:
        published = client_of(directory).publish(ALICE, PROFILE, [KEY])
        assert published.stands
        assert standing(directory).entry.version == 2

    def test_keys_that_a_key_of_mine_brought_in_are_known(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        assert client_of(directory).publish(ALICE, PROFILE, [KEY]).stands

    def test_a_key_that_another_key_brought_in_is_not(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        with pytest.raises(RefusedError) as refused:
            client_of(directory).publish(ALICE, PROFILE, [KEY])
        assert refused.value.reason == "unknown-keys"
        assert ids(STRANGER)[0] in str(refused.value)
        assert ids(PHONE)[0] not in str(refused.value)
        assert standing(directory).entry.version == 3

    def test_declared_keys_are_known_and_so_is_what_they_brought_in(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, LAPTOP, signed_by=PHONE)
        client = client_of(directory)
        mine = Mine(frozenset(), frozenset({b.public(PHONE).id}))
        before = client.lookup(ALICE)
        assert client.send(client.propose(before, PROFILE, [KEY], mine=mine)).stands

    def test_a_key_that_the_directory_injected_without_authorization(self, directory: Directory) -> None:
        """The map holds it and proves it; the keys before did not sign it."""
        injected = b.next_mutation("alice", standing(directory), keys=[KEY, STRANGER], signed_by=[STRANGER])
        directory.forced[b.index("alice")] = injected
        directory.private[injected.entry_hash] = (b.opening("alice", 2), b.profile("alice", 2))
        directory.advance()
        directory.versions[b.index("alice")].append((2, injected.entry_hash))
        with pytest.raises(VerificationError, match="version 2 is not authorized"):
            client_of(directory).publish(ALICE, PROFILE, [KEY])

    def test_keys_that_the_caller_names_are_the_callers_word(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        published = client_of(directory).publish(ALICE, PROFILE, [KEY], [b.public(KEY)])
        assert published.stands
        assert standing(directory).entry.authorized_keys == (b.public(KEY),)

    def test_what_was_signed_last_has_to_stand_in_the_history(self, directory: Directory) -> None:
        store = MemoryStateStore()
        client = client_of(directory, store)
        client.publish(ALICE, PROFILE, [KEY])
        data = store.recall(OWN, ALICE.encode())
        assert data is not None
        assert OwnVersion.decode(data) == OwnVersion(2, standing(directory).entry_hash)
        store.remember(OWN, ALICE.encode(), OwnVersion(2, bytes(32)).encode())
        with pytest.raises(VerificationError, match="does not have the version 2 that was signed here"):
            client.publish(ALICE, PROFILE, [KEY])
        store.remember(OWN, ALICE.encode(), b"\x80")
        with pytest.raises(ConfigError, match="is damaged"):
            client.publish(ALICE, PROFILE, [KEY])

    def test_a_lost_race_is_judged_anew(self, directory: Directory) -> None:
        """Between the lookup and the submission another key of the account adds a stranger's."""
        follow(directory, KEY, PHONE)
        raced = False

        def handle(request: httpx.Request) -> httpx.Response:
            nonlocal raced
            if request.url.path == "/v1/mutations" and not raced:
                raced = True
                follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
            return directory.handle(request)

        with pytest.raises(RefusedError) as refused:
            client_of(directory, handler=handle).publish(ALICE, PROFILE, [KEY], retries=3)
        assert refused.value.reason == "unknown-keys"

    def test_a_difference_shows_what_is_added_kept_and_removed(self) -> None:
        assert Difference.between("ab", "bc") == Difference(("c",), ("b",), ("a",))


class TestBulk:
    def publish(self, directory: Directory, *keys: PrivateKey) -> tuple[int, list[tuple[str, str]]]:
        quiet = BulkProgress(lambda: None, lambda: None)
        accounts = [Wanted(ALICE, tuple(PROFILE)), Wanted(b.label_of("bob"), tuple(PROFILE))]
        report = publish_all(
            client_of(directory), accounts, keys, quiet, merging=MERGING, jobs=1, patience=2.0
        )
        return report.published, report.refused

    def test_accounts_of_my_own_are_published(self, directory: Directory) -> None:
        assert self.publish(directory, KEY) == (2, [])

    def test_keys_that_a_key_of_mine_brought_in_are_known(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        assert self.publish(directory, KEY) == (2, [])

    def test_unknown_keys_of_an_account_are_refused_with_the_reason(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        published, refused = self.publish(directory, KEY)
        assert published == 1
        ((label, problem),) = refused
        assert label == ALICE
        assert problem.startswith("unknown-keys: ")
        assert ids(STRANGER)[0] in problem
        assert standing(directory).entry.version == 3
