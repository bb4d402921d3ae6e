"""Entries of a shared store that are answered: signatures and epochs, verified once for each row."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kt_es import epochs
from kt_es.errors import UnverifiedRowError
from kt_es.formats.entries import Mutation
from kt_es.ledger import authorized
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.authorized import accepted_in, entries_at, entry_at, history
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.retention import prune
from kt_es.merkle.map import LeafRef
from kt_es.merkle.pages import decode_page, encode_page
from tests import builders as b
from tests.reference.lies import (
    Lie,
    bad_signatures,
    entries,
    mend_of,
    other_key_ids,
    rows,
    stranger_signed,
    stranger_signed_too,
    without,
)
from tests.reference.sharing import Replicas, ledger_of
from tests.reference.signed_streams import SignedStreams
from tests.reference.true_answers import NEWEST, ORIGINAL, copied

VERSIONS = {"alice": [(1, 1), (2, 2), (3, 3)], "dora": [(1, 1), (2, 2)], "user0": [(1, 1), (5, 2)]}


def adopted(replicas: Replicas) -> Ledger:
    ledger = ledger_of(replicas)
    list(Adoption(ORIGINAL.log, ORIGINAL.names, ledger).jump())
    assert ledger.committed.epoch == NEWEST
    return ledger


def leaf_of(ledger: Ledger, user: str) -> LeafRef:
    leaf = ledger.map.lookup(ledger.committed.root, b.index(user))
    assert leaf is not None
    return leaf


def versions_of(ledger: Ledger, user: str, after: int = 0) -> list[tuple[int, int]]:
    found = history(ledger, ledger.committed, b.index(user), after)
    return [(epoch, mutation.entry.version) for epoch, mutation in found]


@pytest.mark.parametrize(
    "change", [bad_signatures, other_key_ids, stranger_signed, stranger_signed_too, without(-1), without(0)]
)
def test_an_entry_whose_signatures_do_not_authorize_it_is_asked_for_again_and_refused(
    change: Callable[[Mutation], Mutation],
) -> None:
    _, replicas = copied()
    true = entry_at(adopted(replicas), ORIGINAL.ledger.committed.root, leaf_of(ORIGINAL.ledger, "dora"))
    for family, key, value in entries(change)(replicas):
        replicas.first[family, key] = value
    ledger = adopted(replicas)
    leaf = leaf_of(ledger, "dora")
    key = ledger.tables.entries.key(leaf)
    replicas.asked.clear()
    assert entry_at(ledger, ledger.committed.root, leaf) == true
    assert [again for family, asked, again in replicas.asked if asked == key] == [False, True]
    replicas.write(entries(change)(replicas))
    ledger = adopted(replicas)
    with pytest.raises(UnverifiedRowError, match=f"version 2 .* index {b.index('dora').hex()} do not auth"):
        entry_at(ledger, ledger.committed.root, leaf)
    with pytest.raises(UnverifiedRowError, match="do not authorize it"):
        versions_of(ledger, "dora", after=1)


def test_an_entry_of_another_label_is_refused() -> None:
    _, replicas = copied()
    ledger = adopted(replicas)
    leaf, other = leaf_of(ledger, "alice"), leaf_of(ledger, "dora")
    key, value = (ledger.tables.entries.key(one) for one in (leaf, other))
    replicas.write([("entries", key, replicas.rows("entries")[value])])
    with pytest.raises(UnverifiedRowError, match="is not the one in the map"):
        entry_at(ledger, ledger.committed.root, leaf)


def test_nothing_is_verified_twice_and_another_row_is_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[int] = []

    def counting(mutation: Mutation, *rest: object) -> bool:
        verified.append(mutation.entry.version)
        return is_authorized(mutation, *rest)  # type: ignore[arg-type]

    is_authorized = epochs.is_authorized
    monkeypatch.setattr(authorized, "is_authorized", counting)
    _, replicas = copied()
    ledger = adopted(replicas)
    leaf = leaf_of(ledger, "dora")
    for _ in range(3):
        entry_at(ledger, ledger.committed.root, leaf)
    assert verified == [2]
    assert versions_of(ledger, "dora") == versions_of(ledger, "dora") == VERSIONS["dora"]
    assert verified == [2, 1]
    asked = len(replicas.asked)
    assert versions_of(ledger, "dora") == VERSIONS["dora"]
    assert len(replicas.asked) == asked
    # The row left the memory, and another one with wrong signatures came.
    key = ledger.tables.entries.key(leaf)
    lie = {one[1]: one[2] for one in entries(bad_signatures)(replicas)}[key]
    assert lie is not None
    ledger.store._rows.put(("entries", key), lie)  # type: ignore[attr-defined]
    entry_at(ledger, ledger.committed.root, leaf)
    assert verified == [2, 1, 2]


def test_a_replica_of_ones_own_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorized, "is_authorized", pytest.fail)
    streams = SignedStreams()
    made = streams.put_user("alice")
    streams.epoch()
    ledger = streams.ledger
    assert entry_at(ledger, ledger.committed.root, leaf_of(ledger, "alice")) == made
    assert versions_of(ledger, "alice") == [(1, 1)]
    assert entry_at(ledger, ledger.committed.root, None) is None


@pytest.mark.parametrize("user", VERSIONS)
@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("keep", range(1, NEWEST + 1))
def test_a_true_history_is_authorized_whatever_is_pruned(user: str, after: int, keep: int) -> None:
    _, replicas = copied()
    prune(adopted(replicas), keep)
    ledger = adopted(replicas)
    assert versions_of(ledger, user, after) == [one for one in VERSIONS[user] if one[1] > after]


def moved(user: str, version: int, epoch: int) -> Lie:
    """The row of one version under another epoch."""

    def lie(replicas: Replicas) -> list[tuple[str, bytes, bytes | None]]:
        for key, value in replicas.rows("entries").items():
            entry = Mutation.decode(value[8:]).entry
            if entry.index == b.index(user) and entry.version == version:
                return [
                    ("entries", key, None),
                    ("entries", key[:32] + epoch.to_bytes(8) + key[40:], value),
                ]
        raise AssertionError(user)

    return lie


@pytest.mark.parametrize(
    ("user", "version", "epoch", "keep"),
    [
        ("dora", 1, 0, 5),
        ("user0", 1, 2, 5),
        ("user0", 1, 4, 5),
        ("user0", 1, 4, 3),
        ("alice", 2, 1, 5),
    ],
)
def test_an_entry_under_another_epoch_is_refused(user: str, version: int, epoch: int, keep: int) -> None:
    _, replicas = copied()
    prune(adopted(replicas), keep)
    ledger = adopted(replicas)
    replicas.write(moved(user, version, epoch)(replicas))
    with pytest.raises(UnverifiedRowError, match=f"not accepted in epoch {epoch}, as its row says"):
        versions_of(ledger, user)


def claiming(leaf: LeafRef, epoch: int) -> Lie:
    """Pages that name another epoch for the entry of ``leaf``, which changes no hash."""

    def claim(slot: bytes | None) -> bytes | None:
        is_it = slot is not None and slot[:64] == leaf.index + leaf.entry_hash
        return slot[:64] + epoch.to_bytes(5) if slot is not None and is_it else slot

    return rows(
        "pages", lambda key, value, _: encode_page(key, [claim(slot) for slot in decode_page(key, value)])
    )


def test_the_epoch_that_accepted_the_newest_entry_is_the_true_one_or_none() -> None:
    _, replicas = copied()
    prune(adopted(replicas), 3)
    ledger = adopted(replicas)
    for user, claims in (("user0", (0, 2, 4, 6)), ("alice", (1, 2, 4, 5))):
        leaf = leaf_of(ledger, user)
        mutation = entry_at(ledger, ledger.committed.root, leaf)
        assert mutation is not None
        assert accepted_in(ledger, ledger.committed, leaf, mutation) == leaf.version
        for epoch in claims:
            claimed = LeafRef(leaf.index, leaf.entry_hash, epoch)
            if user == "user0" or epoch > 3:
                lie = claiming(leaf, epoch)(replicas)
                mend = mend_of(replicas, lie)
                replicas.write(lie)
                with pytest.raises(UnverifiedRowError, match=f"not accepted in epoch {epoch}"):
                    accepted_in(ledger, ledger.committed, claimed, mutation)
                replicas.write(mend)
                # Only a page in memory says so now.
                assert accepted_in(ledger, ledger.committed, claimed, mutation) == leaf.version


def test_entries_of_many_leaves_come_with_the_rows_that_were_verified() -> None:
    _, replicas = copied()
    ledger = adopted(replicas)
    leaves = [leaf_of(ledger, user) for user in VERSIONS]
    found = entries_at(ledger, ledger.committed.root, leaves)
    assert [stored.data for _, stored, _ in found] == [mutation.encode() for *_, mutation in found]
    assert [mutation.entry_hash for *_, mutation in found] == [leaf.entry_hash for leaf in leaves]
