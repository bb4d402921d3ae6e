"""The promises of ``Store``, tested on the store on disk and on the one in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.rocks import SCAN_ROWS, RocksStore
from kt_es.ledger.store import Store, after_prefix

FAMILIES = ("pages", "meta")


@pytest.fixture(params=["memory", "rocks"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    make: dict[str, Callable[[], Store]] = {
        "memory": lambda: MemoryStore(FAMILIES),
        "rocks": lambda: RocksStore.open(tmp_path / "data", FAMILIES),
    }
    opened = make[request.param]()
    yield opened
    opened.close()


def test_reads_what_was_written_family_by_family(storage: Store) -> None:
    storage.write(
        [("pages", b"k", b"1"), ("meta", b"k", b"2"), ("pages", b"", b"empty key"), ("meta", b"e", b"")]
    )
    assert storage.get("pages", b"k") == b"1"
    assert storage.get("meta", b"k") == b"2"
    assert storage.get("meta", b"e") == b""
    assert storage.get("meta", b"absent") is None
    assert storage.get_many("pages", [b"absent", b"k", b"", b"k"]) == [None, b"1", b"empty key", b"1"]
    assert storage.get_many("pages", []) == []


@pytest.mark.parametrize("sync", [True, False])
def test_the_last_change_of_a_key_counts(storage: Store, sync: bool) -> None:
    storage.write(
        [("meta", b"a", b"1"), ("meta", b"b", b"1"), ("meta", b"a", b"2"), ("meta", b"b", None)], sync
    )
    assert list(storage.scan("meta")) == [(b"a", b"2")]
    storage.write([("meta", b"a", None), ("meta", b"absent", None)], sync)
    assert list(storage.scan("meta")) == []


def test_an_empty_write_is_fine(storage: Store) -> None:
    storage.write([])


def test_scans_a_prefix_in_both_directions(storage: Store) -> None:
    keys = [b"a", b"b", b"b\x00", b"b\xff", b"b\xff\xff", b"c", b"\xff", b"\xff\xff"]
    storage.write([("pages", key, key) for key in keys])

    def scan(*args: bytes, start: bytes | None = None, reverse: bool = False) -> list[bytes]:
        return [key for key, _ in storage.scan("pages", *args, start=start, reverse=reverse)]

    assert scan() == sorted(keys)
    assert scan(reverse=True) == sorted(keys, reverse=True)
    assert scan(b"b") == [b"b", b"b\x00", b"b\xff", b"b\xff\xff"]
    assert scan(b"b", reverse=True) == [b"b\xff\xff", b"b\xff", b"b\x00", b"b"]
    assert scan(b"b", start=b"b\x01") == [b"b\xff", b"b\xff\xff"]
    assert scan(b"b", start=b"b\x01", reverse=True) == [b"b\x00", b"b"]
    assert scan(b"b", start=b"a") == scan(b"b")
    assert scan(b"b", start=b"d", reverse=True) == scan(b"b", reverse=True)
    assert scan(b"b", start=b"c") == []
    assert scan(b"b", start=b"a", reverse=True) == []
    assert scan(b"\xff") == [b"\xff", b"\xff\xff"]
    assert scan(b"\xff", reverse=True) == [b"\xff\xff", b"\xff"]
    assert scan(b"d") == scan(b"d", reverse=True) == []


def test_a_scan_longer_than_one_step_misses_and_repeats_nothing(storage: Store) -> None:
    keys = [n.to_bytes(3) for n in range(2 * SCAN_ROWS + 3)]
    storage.write([("pages", key, key) for key in keys])
    assert [key for key, _ in storage.scan("pages")] == keys
    assert [key for key, _ in storage.scan("pages", reverse=True)] == keys[::-1]
    assert [key for key, _ in storage.scan("pages", b"\x00\x01")] == keys[256:512]


def test_a_family_that_was_not_opened_is_refused_and_nothing_written(storage: Store) -> None:
    with pytest.raises(ValueError, match="other"):
        storage.get("other", b"k")
    with pytest.raises(ValueError, match="other"):
        storage.write([("meta", b"k", b"1"), ("other", b"k", b"1")])
    assert storage.get("meta", b"k") is None


def test_after_close_every_call_is_refused(storage: Store) -> None:
    storage.close()
    storage.close()
    with pytest.raises(ValueError, match="closed"):
        storage.get("meta", b"k")
    with pytest.raises(ValueError, match="closed"):
        storage.write([("meta", b"k", b"1")])


@pytest.mark.parametrize(
    ("prefix", "after"),
    [(b"", None), (b"\xff\xff", None), (b"a", b"b"), (b"a\xff", b"b"), (b"a\x00", b"a\x01")],
)
def test_the_key_after_a_prefix(prefix: bytes, after: bytes | None) -> None:
    assert after_prefix(prefix) == after
