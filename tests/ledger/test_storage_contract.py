"""The promises of ``Store``, tested on the store on disk, on the one in memory and on the shared one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.rocks import SCAN_ROWS, RocksStore
from kt_es.ledger.store import Store, after_prefix

FAMILIES = ("pages", "entries")

PART = bytes(range(32))
"""A partition of ``entries`` in the shared store, which keeps the order of the keys that begin with it."""

local = pytest.mark.parametrize("storage", ["memory", "rocks"], indirect=True)
"""For promises that a shared store does not make."""


@pytest.fixture(params=["memory", "rocks", "cassandra"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    make: dict[str, Callable[[], Store]] = {
        "memory": lambda: MemoryStore(FAMILIES),
        "rocks": lambda: RocksStore.open(tmp_path / "data", FAMILIES),
        "cassandra": lambda: request.getfixturevalue("shared_store"),
    }
    opened = make[request.param]()
    yield opened
    opened.close()


def entry(key: bytes) -> bytes:
    return PART + key


def test_reads_what_was_written_family_by_family(storage: Store) -> None:
    k, e, absent = entry(b"k"), entry(b"e"), entry(b"absent")
    storage.write([("pages", k, b"1"), ("entries", k, b"2"), ("entries", PART, b"all"), ("pages", e, b"")])
    assert storage.get("pages", k) == b"1"
    assert storage.get("entries", k) == b"2"
    assert storage.get("entries", PART) == b"all"
    assert storage.get("pages", e) == b""
    assert storage.get("entries", absent) is None
    for family, values in (("pages", [None, b"1", b"", b"1"]), ("entries", [None, b"2", None, b"2"])):
        assert storage.get_many(family, [absent, k, e, k]) == values
        assert storage.get_many(family, [absent, k, e, k], again=True) == values
        assert storage.get_many(family, []) == []


@local
def test_a_key_may_be_empty(storage: Store) -> None:
    storage.write([("pages", b"", b"empty key")])
    assert storage.get("pages", b"") == b"empty key"
    assert list(storage.scan("pages")) == [(b"", b"empty key")]


@pytest.mark.parametrize("sync", [True, False])
def test_the_last_change_of_a_key_counts(storage: Store, sync: bool) -> None:
    a, b = entry(b"a"), entry(b"b")
    storage.write(
        [("entries", a, b"1"), ("entries", b, b"1"), ("entries", a, b"2"), ("entries", b, None)], sync
    )
    assert list(storage.scan("entries")) == [(a, b"2")]
    storage.write([("entries", a, None), ("entries", entry(b"absent"), None)], sync)
    assert list(storage.scan("entries")) == []


@local
def test_a_later_write_replaces_an_earlier_one(storage: Store) -> None:
    for value in (b"2", b"1", None, b"3"):
        storage.write([("entries", PART, value)])
        assert storage.get("entries", PART) == value


def test_an_empty_write_is_fine(storage: Store) -> None:
    storage.write([])


def test_every_row_of_a_large_write_is_there(storage: Store) -> None:
    rows = [(family, n.to_bytes(40), bytes(100 * (n % 90))) for n in range(300) for family in FAMILIES]
    rows.append(("pages", b"large", bytes(100_000)))
    storage.write(rows)
    for family in FAMILIES:
        mine = [(key, value) for name, key, value in rows if name == family]
        assert storage.get_many(family, [key for key, _ in mine]) == [value for _, value in mine]


def test_scans_a_prefix_in_both_directions(storage: Store) -> None:
    keys = [b"a", b"b", b"b\x00", b"b\xff", b"b\xff\xff", b"c", b"\xff", b"\xff\xff"]
    others = [PART[:-1] + b"\x1e" + b"b", PART[:-1] + b"\x20" + b"b"]
    storage.write([("entries", key, key) for key in (*map(entry, keys), *others)])

    def scan(prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False) -> list[bytes]:
        first = None if start is None else entry(start)
        rows = storage.scan("entries", entry(prefix), start=first, reverse=reverse)
        return [key.removeprefix(PART) for key, value in rows if key == value]

    assert scan() == sorted(keys)
    assert scan(reverse=True) == sorted(keys, reverse=True)
    assert scan(b"b") == [b"b", b"b\x00", b"b\xff", b"b\xff\xff"]
    assert scan(b"b", reverse=True) == [b"b\xff\xff", b"b\xff", b"b\x00", b"b"]
    assert scan(b"b", start=b"b\x01") == [b"b\xff", b"b\xff\xff"]
    assert scan(b"b", start=b"b\x01", reverse=True) == [b"b\x00", b"b"]
    assert scan(b"b", start=b"b\xff") == [b"b\xff", b"b\xff\xff"]
    assert scan(b"b", start=b"b\xff", reverse=True) == [b"b\xff", b"b\x00", b"b"]
    assert scan(b"b", start=b"a") == scan(b"b")
    assert scan(b"b", start=b"d", reverse=True) == scan(b"b", reverse=True)
    assert scan(b"b", start=b"c") == []
    assert scan(b"b", start=b"a", reverse=True) == []
    assert scan(start=b"c") == [b"c", b"\xff", b"\xff\xff"]
    assert scan(start=b"b", reverse=True) == [b"b", b"a"]
    assert scan(b"\xff") == [b"\xff", b"\xff\xff"]
    assert scan(b"\xff", reverse=True) == [b"\xff\xff", b"\xff"]
    assert scan(b"d") == scan(b"d", reverse=True) == []
    # Starts outside of the partition, before it and behind it.
    for start, reverse in ((PART[:-1], False), (others[0], False), (others[1], True), (b"\xff", True)):
        found = [key for key, _ in storage.scan("entries", PART, start=start, reverse=reverse)]
        assert found == sorted(map(entry, keys), reverse=reverse)
        assert list(storage.scan("entries", PART, start=start, reverse=not reverse)) == []


def test_a_scan_of_everything_yields_each_key_once(storage: Store) -> None:
    keys = [bytes((n % 7,)) * 32 + n.to_bytes(3) for n in range(2 * SCAN_ROWS + 3)]
    for family in FAMILIES:
        storage.write([(family, key, key) for key in keys])
        rows = list(storage.scan(family))
        assert sorted(rows) == sorted(zip(keys, keys, strict=True))
        assert storage.is_shared or rows == sorted(rows)


@local
def test_a_scan_of_everything_has_an_order_and_a_start(storage: Store) -> None:
    storage.write([("pages", key, key) for key in (b"b", b"a", b"c")])
    assert [key for key, _ in storage.scan("pages", reverse=True)] == [b"c", b"b", b"a"]
    assert [key for key, _ in storage.scan("pages", start=b"aa")] == [b"b", b"c"]


def test_a_scan_longer_than_one_step_misses_and_repeats_nothing(storage: Store) -> None:
    keys = [entry(n.to_bytes(3)) for n in range(2 * SCAN_ROWS + 3)]
    storage.write([("entries", key, key) for key in keys])
    assert [key for key, _ in storage.scan("entries", PART)] == keys
    assert [key for key, _ in storage.scan("entries", PART, reverse=True)] == keys[::-1]
    assert [key for key, _ in storage.scan("entries", entry(b"\x00\x01"))] == keys[256:512]
    assert [key for key, _ in storage.scan("entries", entry(b"\x00\x01"), reverse=True)] == keys[511:255:-1]


def test_a_family_that_was_not_opened_is_refused_and_nothing_written(storage: Store) -> None:
    with pytest.raises(ValueError, match="other"):
        storage.get("other", PART)
    with pytest.raises(ValueError, match="other"):
        list(storage.scan("other"))
    with pytest.raises(ValueError, match="other"):
        storage.write([("entries", PART, b"1"), ("other", PART, b"1")])
    assert storage.get("entries", PART) is None


def test_after_close_every_call_is_refused(storage: Store) -> None:
    storage.close()
    storage.close()
    with pytest.raises(ValueError, match="closed"):
        storage.get("entries", PART)
    with pytest.raises(ValueError, match="closed"):
        list(storage.scan("entries", PART))
    with pytest.raises(ValueError, match="closed"):
        storage.write([("entries", PART, b"1")])


@pytest.mark.parametrize(
    ("prefix", "after"),
    [(b"", None), (b"\xff\xff", None), (b"a", b"b"), (b"a\xff", b"b"), (b"a\x00", b"a\x01")],
)
def test_the_key_after_a_prefix(prefix: bytes, after: bytes | None) -> None:
    assert after_prefix(prefix) == after
