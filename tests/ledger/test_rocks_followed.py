"""A store that another process writes, as its followers see it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.errors import ConfigError, DiskFullError, KtError
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.rocks_followed import FollowedStore

FAMILIES = ("first", "second")


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[RocksStore]:
    store = RocksStore.open(tmp_path / "data", FAMILIES)
    yield store
    store.close()


@pytest.fixture
def followed(tmp_path: Path, primary: RocksStore) -> Iterator[FollowedStore]:
    store = FollowedStore(tmp_path / "data", FAMILIES, tmp_path / "scratch", lambda: False)
    yield store
    store.close()


def _flush(store: RocksStore) -> None:
    for family in store._opened().families.values():
        family.flush()


def test_nothing_is_seen_before_reading_on(primary: RocksStore, followed: FollowedStore) -> None:
    primary.write([("first", b"key", b"1"), ("second", b"key", b"2")], sync=False)
    assert followed.get("first", b"key") is None
    assert followed.read_on()
    assert followed.get("first", b"key") == b"1"
    assert followed.get_many("second", [b"key", b"none"]) == [b"2", None]
    assert list(followed.scan("second")) == [(b"key", b"2")]


def test_reading_on_in_a_journal_opens_nothing(primary: RocksStore, followed: FollowedStore) -> None:
    for number in range(10):
        primary.write([("first", b"key", b"%d" % number)])
        assert followed.read_on()
        assert followed.get("first", b"key") == b"%d" % number
    assert followed.opened == 1


def test_a_value_that_was_overwritten_before_a_table_was_written_is_never_seen_again(
    primary: RocksStore, followed: FollowedStore
) -> None:
    # A secondary instance of RocksDB answers b"before" here.
    for number in range(5):
        primary.write([("first", b"key", b"before"), ("second", b"key", b"kept")])
        assert followed.read_on()
        primary.write([("first", b"key", b"%d" % number), ("second", b"key", None)])
        _flush(primary)
        assert followed.read_on()
        assert followed.get("first", b"key") == b"%d" % number
        assert followed.get("second", b"key") is None
    assert followed.opened > 1


def test_a_primary_that_was_opened_again_is_followed(tmp_path: Path) -> None:
    primary = RocksStore.open(tmp_path / "data", FAMILIES)
    primary.write([("first", b"key", b"0")])
    followed = FollowedStore(tmp_path / "data", FAMILIES, tmp_path / "scratch", lambda: False)
    for number in range(5):
        primary.write([("first", b"key", b"a%d" % number)])
        primary.close()
        assert followed.read_on()
        assert followed.get("first", b"key") == b"a%d" % number
        primary = RocksStore.open(tmp_path / "data", FAMILIES)
        primary.write([("second", b"key", b"b%d" % number)])
        assert followed.read_on()
        assert followed.get("first", b"key") == b"a%d" % number
        assert followed.get("second", b"key") == b"b%d" % number
    primary.close()
    followed.close()


@pytest.mark.parametrize("seed", range(3))
def test_both_families_are_as_old_as_each_other_while_the_primary_writes_and_compacts(
    primary: RocksStore, followed: FollowedStore, seed: int
) -> None:
    """Each write puts one number into both families, and deletes the rows of the number before it."""
    choose = random.Random(seed)
    written, failed = [0], list[BaseException]()
    over = threading.Event()

    def write() -> None:
        try:
            for number in range(1, 400):
                rows = [(family, b"row %d" % number, b"x" * 500) for family in FAMILIES]
                heads = [(family, b"head", b"%d" % number) for family in FAMILIES]
                gone = [(family, b"row %d" % (number - 1), None) for family in FAMILIES]
                primary.write([*rows, *heads, *gone], sync=False)
                written[0] = number
                if choose.random() < 0.1:
                    _flush(primary)
                if choose.random() < 0.02:
                    primary.compact()
        except BaseException as error:
            failed.append(error)
        finally:
            over.set()

    writer = threading.Thread(target=write)
    writer.start()
    before = -1
    while not over.is_set() or before < written[0]:
        least = written[0]
        if not followed.read_on():
            continue
        heads = [int(followed.get(family, b"head") or b"0") for family in FAMILIES]
        assert heads[0] == heads[1] >= max(before, least)
        before = heads[0]
        for family in FAMILIES:
            rows = [key for key, _ in followed.scan(family, b"row ")]
            assert rows == ([b"row %d" % before] if before else [])
    writer.join()
    assert not failed


def test_a_follower_does_not_write(tmp_path: Path, primary: RocksStore, followed: FollowedStore) -> None:
    with pytest.raises(KtError, match="belongs to another process"):
        followed.write([("first", b"key", b"value")])
    full = FollowedStore(tmp_path / "data", FAMILIES, tmp_path / "other", lambda: True)
    assert full.is_full
    with pytest.raises(DiskFullError):
        full.write([("first", b"key", b"value")])
    full.close()


def test_without_a_store_there_is_nothing_to_follow(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no data directory"):
        FollowedStore(tmp_path / "none", FAMILIES, tmp_path / "scratch", lambda: False)
