"""A shared store as one process sees it, and the tables over it: routes, pins, caches, aborted epochs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kt_es.errors import DivergenceError, StoreAwayError
from kt_es.formats.configs import SignedConfig
from kt_es.ledger.ledger import config_chain
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.openings import Missing, OpeningCache
from kt_es.ledger.shared_store import LOCAL, PINNED_EPOCHS, SHARED, SharedStore
from kt_es.ledger.tables import FAMILIES, StoredEntry
from kt_es.merkle.map import LeafRef
from tests import builders as b
from tests.reference.sharing import Replicas, SharedStreams, ledger_of, store_of


def test_each_family_has_one_place() -> None:
    assert not set(LOCAL) & set(SHARED)
    assert set(FAMILIES) <= {*LOCAL, *SHARED}
    replicas, local = Replicas(), MemoryStore(LOCAL)
    store = store_of(replicas, local)
    store.write([(family, b"key", family.encode()) for family in (*LOCAL, *SHARED)])
    assert {family: dict(local.scan(family)) for family in LOCAL} == {
        family: {b"key": family.encode()} for family in LOCAL
    }
    assert {family: replicas.rows(family) for family in SHARED} == {
        family: {b"key": family.encode()} for family in SHARED
    }
    for family in (*LOCAL, *SHARED):
        assert store.get(family, b"key") == family.encode()
        assert store.get_many(family, [b"absent", b"key"]) == [None, family.encode()]
        assert list(store.scan(family)) == [(b"key", family.encode())]


def test_the_local_rows_are_written_last_and_only_if_the_shared_ones_were() -> None:
    replicas, local = Replicas(), MemoryStore(LOCAL)
    store = store_of(replicas, local)
    replicas.away = True
    with pytest.raises(StoreAwayError, match="no node of the shared store answers"):
        store.write([("meta", b"committed", b"1"), ("pages", b"key", b"page")])
    assert not list(local.scan("meta"))
    store.write([("meta", b"own", b"1")])
    assert store.get("meta", b"own") == b"1"


@pytest.mark.parametrize("call", ["get", "get_many", "scan", "write"])
def test_an_outage_is_one_of_the_shared_store_and_not_of_the_log(call: str) -> None:
    replicas = Replicas()
    store = store_of(replicas)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("pages", b"key"),
        "get_many": lambda: store.get_many("nodes", [b"key"]),
        "scan": lambda: list(store.scan("configs")),
        "write": lambda: store.write([("pages", b"key", b"page")]),
    }
    replicas.away = True
    with pytest.raises(StoreAwayError, match="no node of the shared store answers"):
        calls[call]()
    assert store.get("meta", b"own") is None
    replicas.away = False
    calls[call]()


def test_pinned_rows_need_no_store_until_later_ones_replace_them() -> None:
    replicas = Replicas()
    store = store_of(replicas)
    for epoch in range(PINNED_EPOCHS + 1):
        store.pin([("heads", bytes([epoch]), b"head"), ("nodes", bytes([epoch]), None)])
    replicas.away = True
    pinned = [bytes([epoch]) for epoch in range(1, PINNED_EPOCHS + 1)]
    assert store.get_many("heads", pinned, again=True) == [b"head"] * PINNED_EPOCHS
    for family in ("heads", "nodes"):
        with pytest.raises(StoreAwayError):
            store.get(family, bytes([0]))


def test_entries_and_nodes_are_read_once_and_again_asks_the_store_again() -> None:
    replicas = Replicas()
    store = store_of(replicas)
    for family in ("entries", "nodes", "heads", "states"):
        replicas.majority.write([(family, b"key", b"right")])
        replicas.first[family, b"key"] = b"wrong"
        assert store.get(family, b"key") == store.get(family, b"key") == b"wrong"
        cached = family in ("entries", "nodes")
        assert replicas.asked == [(family, b"key", False)] * (1 if cached else 2)
        assert store.get_many(family, [b"key"], again=True) == [b"right"]
        # The row that was right in the end is kept.
        assert store.get(family, b"key") == (b"right" if cached else b"wrong")
        replicas.asked.clear()


def test_a_missing_row_is_not_remembered_as_missing() -> None:
    replicas = Replicas()
    store = store_of(replicas)
    assert store.get("nodes", b"key") is None
    replicas.majority.write([("nodes", b"key", b"hash")])
    assert store.get_many("nodes", [b"key", b"key"]) == [b"hash", b"hash"]


def test_a_cache_of_openings_is_bounded_and_forgets_what_was_erased() -> None:
    first, second = b.opening_event("alice"), b.opening_event("bob")
    at, other = b.index("alice"), b.index("bob")
    cache = OpeningCache(1_500)
    cache.keep(at, first)
    cache.keep(other, second)
    assert cache.get(at, first.entry_hash) == first
    assert cache.get(other, first.entry_hash) is Missing.UNKNOWN
    cache.erase(at, first.entry_hash)
    cache.erase(at, first.entry_hash)
    assert cache.get(at, first.entry_hash) is Missing.UNKNOWN
    small = OpeningCache(500)
    small.keep(at, first)
    small.keep(at, first)
    small.keep(other, second)
    assert small.get(at, first.entry_hash) is Missing.UNKNOWN
    assert small.get(other, second.entry_hash) == second


def three_versions() -> SharedStreams:
    streams, made = SharedStreams(), None
    for _ in range(3):
        made = streams.put_user("alice", made)
        streams.epoch()
    return streams


def leaf_of(streams: SharedStreams) -> LeafRef:
    leaf = streams.ledger.map.lookup(streams.ledger.committed.root, b.index("alice"))
    assert leaf is not None
    return leaf


def history(streams: SharedStreams, after: int = 0) -> list[tuple[int, int]]:
    ledger = ledger_of(streams.replicas)
    found = ledger.tables.entries.history(leaf_of(streams), after)
    return [(epoch, mutation.entry.version) for epoch, mutation in found]


def test_a_history_follows_the_hashes_and_passes_over_entries_of_aborted_epochs() -> None:
    streams = three_versions()
    entries = streams.ledger.tables.entries
    for number, epoch in enumerate((1, 2, 3, 4)):
        other = b.mutation("alice", commits_to=bytes([number]) * 32)
        leaf = LeafRef(b.index("alice"), other.entry_hash, epoch)
        streams.replicas.majority.write([entries.put(leaf, StoredEntry(99, other.encode()))])
    assert history(streams) == [(1, 1), (2, 2), (3, 3)]
    assert history(streams, 1) == [(2, 2), (3, 3)]
    assert history(streams, 3) == []


@pytest.mark.parametrize("what", ["missing", "damaged", "another's"])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_history_whose_link_is_missing_or_wrong_is_refused(what: str, epoch: int) -> None:
    streams = three_versions()
    (key,) = (key for key in streams.replicas.rows("entries") if int.from_bytes(key[32:40]) == epoch)
    other = bytes(8) + b.mutation("bob").encode()
    value = {"missing": None, "damaged": bytes(20), "another's": other}[what]
    streams.replicas.majority.write([("entries", key, value)])
    with pytest.raises(DivergenceError, match=f"index {b.index('alice').hex()}"):
        history(streams)


def successor(of: SignedConfig, min_interval: int) -> SignedConfig:
    return b.signed_config(b.config(min_interval=min_interval, previous=of.config.hash))


def test_the_chain_of_configs_is_followed_back_and_those_of_aborted_epochs_are_passed_over() -> None:
    streams = SharedStreams()
    streams.put_user("alice")
    streams.epoch()
    first = b.signed_config()
    second = successor(first, 2_000)
    streams.queue("Config", second.encode())
    streams.epoch()
    third = successor(second, 3_000)
    streams.queue("Config", third.encode())
    streams.epoch()
    assert config_chain(streams.ledger, streams.ledger.committed) == (first, second, third)
    configs = streams.ledger.tables.configs
    streams.replicas.majority.write(
        [
            configs.put(2, 90, successor(first, 4_000).encode()),
            configs.put(3, 91, successor(third, 5_000).encode()),
            configs.put(3, 92, b.signed_config(b.config(min_interval=6_000)).encode()),
        ]
    )
    ledger = ledger_of(streams.replicas)
    assert config_chain(ledger, streams.ledger.committed) == (first, second, third)
    (key,) = (key for key, value in streams.replicas.rows("configs").items() if value == second.encode())
    streams.replicas.majority.write([("configs", key, None)])
    assert len(configs.chain(streams.ledger.committed)) == 1


def test_a_process_closes_its_own_store_too() -> None:
    local = MemoryStore(LOCAL)
    SharedStore(local, Replicas(), 1 << 20).close()
    with pytest.raises(ValueError, match="closed"):
        local.get("meta", b"committed")
