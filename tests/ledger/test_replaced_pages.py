"""Lists of replaced pages in a shared store: whatever they say, no needed page is deleted, and it is told."""

from __future__ import annotations

import pytest

from kt_es.crypto.hashes import sha256
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.pages import split_keys
from kt_es.ledger.replay import Replay
from kt_es.ledger.retention import check_epoch, prune
from kt_es.ledger.store import Change
from kt_es.merkle.pages import describe
from tests import builders as b
from tests.ledger.test_lying_store import following
from tests.reference.lies import Lie
from tests.reference.sharing import Replicas, SharedStreams, store_of
from tests.reference.true_answers import NEWEST, ORIGINAL, USERS, copied


def live_pages() -> list[bytes]:
    """Keys of pages that the newest epoch needs."""
    root = ORIGINAL.ledger.committed.root
    return sorted(ORIGINAL.ledger.map.pages_of(root, list(ORIGINAL.replicas.rows("pages"))))


def named(row: bytes, keys: bytes) -> bytes:
    """The key of a list of the same head with other keys of pages."""
    return row[:40] + sha256(keys)


@pytest.mark.parametrize("at", [0, -1])
def test_nothing_of_a_list_of_replaced_pages_that_names_live_ones_is_deleted(at: int) -> None:
    _, replicas = copied()
    lists = replicas.rows("replaced")
    row = max(lists)
    live = live_pages()
    assert len(live) > 5
    assert not {*live} & {key for value in lists.values() for key in split_keys(value)}
    forged = lists[row] + live[at]
    replicas.write([("replaced", row, None), ("replaced", named(row, forged), forged)])
    ledger = following(replicas)
    problems: list[str] = []
    prune(ledger, 1, problems.append)
    (problem,) = (one for one in problems if "which kept epochs need: nothing of the list" in one)
    assert "replaced names map page" in problem
    # All other lists were obeyed.
    assert set(replicas.rows("pages")) == {*live, *split_keys(lists[row])}
    assert replicas.rows("replaced") == {named(row, forged): forged}
    assert check_epoch(ledger, NEWEST, pytest.fail) == ledger.committed.root.size


def test_a_check_names_live_pages_in_a_list_of_its_epoch() -> None:
    _, replicas = copied()
    row, _ = last_list(replicas)
    for key in live_pages():
        replicas.write([("replaced", named(row, key), key)])
        problems: list[str] = []
        check_epoch(following(replicas), NEWEST, problems.append)
        (problem,) = problems
        assert f"a list of pages that epoch {NEWEST} has replaced names {describe(key)}, which" in problem
        replicas.write([("replaced", named(row, key), None)])


def last_list(replicas: Replicas) -> tuple[bytes, bytes]:
    return max(replicas.rows("replaced").items())


def list_of_another_epoch(replicas: Replicas) -> list[Change]:
    (row, _), keys = last_list(replicas), min(replicas.rows("replaced").items())[1]
    return [("replaced", row, None), ("replaced", named(row, keys), keys)]


def cut_list(replicas: Replicas) -> list[Change]:
    row, keys = last_list(replicas)
    return [("replaced", row, keys[: len(keys) // 2])]


def shorter_list(replicas: Replicas) -> list[Change]:
    """Without the topmost page, which comes last, and named by what it has."""
    row, keys = last_list(replicas)
    short = b"".join(list(split_keys(keys))[:-1])
    return [("replaced", row, None), ("replaced", named(row, short), short)]


@pytest.mark.parametrize(
    ("lie", "found", "checked"),
    [
        (lambda replicas: [("replaced", last_list(replicas)[0], None)], "no list of", "lack"),
        (list_of_another_epoch, "no list of", "lack"),
        (cut_list, "is cut, or is another one", "is cut, or is another one"),
        (shorter_list, "no list of", "lack 1 page"),
    ],
    ids=["missing", "of another epoch", "cut", "shorter"],
)
def test_a_list_that_is_not_whole_is_reported_and_no_needed_page_is_deleted(
    lie: Lie, found: str, checked: str
) -> None:
    _, replicas = copied()
    replicas.write(lie(replicas))
    ledger, told, problems = following(replicas), list[str](), list[str]()
    assert check_epoch(ledger, NEWEST, told.append) == ledger.committed.root.size
    assert f"that epoch {NEWEST} has replaced" in told[0]
    assert checked in told[0]
    prune(ledger, 1, problems.append)
    assert f"that epoch {NEWEST} has replaced" in problems[0]
    assert found in problems[0]
    live, left = live_pages(), replicas.rows("pages")
    assert set(live) < set(left)
    assert check_epoch(ledger, NEWEST, pytest.fail) == ledger.committed.root.size
    # It says so once, and goes on with the next epochs.
    prune(ledger, 1)


def test_lists_of_a_rebuild_stand_beside_those_of_the_signer() -> None:
    """Slices of another size write and replace other pages within the epoch, under the same head."""
    streams = SharedStreams()
    streams.ledger.slice_size = 8
    for user in USERS:
        streams.put(b.mutation(user))
    streams.epoch()
    streams.put(*(b.next_mutation(user, b.mutation(user)) for user in USERS))
    streams.epoch()
    pages = streams.replicas.rows("pages")
    ledger = Ledger(store_of(streams.replicas), b.ORIGIN, b.SIGNER_KEY)
    list(Replay(streams.log, streams.names, ledger).catch_up())
    assert streams.replicas.rows("pages") == pages
    prune(ledger, 1)
    must = ledger.map.pages_of(ledger.committed.root, list(pages))
    assert set(streams.replicas.rows("pages")) == must
