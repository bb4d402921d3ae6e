"""Step 1: how queue events are taken apart into items, and what an item is before it is judged."""

from __future__ import annotations

import pytest

from kt_es.crypto.hashes import sha256
from kt_es.epochs import decide, parse
from kt_es.errors import MalformedError
from kt_es.formats.codec import encode
from kt_es.formats.entries import Mutation
from kt_es.formats.queue import (
    CONFIG,
    EPOCH_MARKER,
    MAX_EVENT,
    MAX_ITEM,
    MUTATIONS,
    Digest,
    Item,
    ItemKind,
    Verdict,
    encode_mutations,
    items_of,
)
from tests.builders import accepted, entry, item, marker, mutation, new_epoch, private_key, signed_config

ALICE, BOB = mutation("alice"), mutation("bob")


def digest(data: bytes) -> Digest:
    return Digest(sha256(data), len(data))


def test_each_mutation_of_an_event_is_an_item() -> None:
    data = encode_mutations([ALICE.encode(), b"", b"garbage", BOB.encode()])
    assert items_of(7, MUTATIONS, data) == [
        Item(7, 0, ItemKind.MUTATION, ALICE.encode()),
        Item(7, 1, ItemKind.MUTATION, b""),
        Item(7, 2, ItemKind.MUTATION, b"garbage"),
        Item(7, 3, ItemKind.MUTATION, BOB.encode()),
    ]


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [
        (EPOCH_MARKER, ItemKind.MARKER),
        (CONFIG, ItemKind.CONFIG),
        ("Records", ItemKind.UNKNOWN),
        ("mutations", ItemKind.UNKNOWN),
        ("", ItemKind.UNKNOWN),
    ],
)
def test_every_other_event_is_one_item(event_type: str, kind: ItemKind) -> None:
    assert items_of(7, event_type, b"anything") == [Item(7, 0, kind, b"anything")]


INSEPARABLE = {
    "no bytes": b"",
    "garbage": b"garbage",
    "no mutation": encode([]),
    "257 mutations": encode([b""] * 257),
    "not only byte strings": encode([b"", 1]),
    "not the one encoding": b"\x98\x01\x40",
    "a mutation by itself": ALICE.encode(),
}


@pytest.mark.parametrize("data", INSEPARABLE.values(), ids=INSEPARABLE.keys())
def test_an_event_that_cannot_be_taken_apart_is_one_item(data: bytes) -> None:
    (one,) = items_of(7, MUTATIONS, data)
    assert one == Item(7, 0, ItemKind.EVENT, data)
    assert parse(one) is Verdict.MALFORMED


def test_an_event_holds_at_most_256_mutations() -> None:
    assert len(items_of(7, MUTATIONS, encode([b""] * 256))) == 256


def test_an_event_at_the_limit_is_taken_apart_and_beyond_it_is_oversize() -> None:
    whole = encode([bytes(MAX_EVENT - 6)])
    assert len(whole) == MAX_EVENT
    assert items_of(7, MUTATIONS, whole) == [Item(7, 0, ItemKind.MUTATION, digest(bytes(MAX_EVENT - 6)))]
    beyond = encode([bytes(MAX_EVENT - 5)])
    (one,) = items_of(7, MUTATIONS, beyond)
    assert one == Item(7, 0, ItemKind.EVENT, digest(beyond))
    assert parse(one) is Verdict.OVERSIZE


def test_a_large_event_that_cannot_be_taken_apart_is_malformed_and_kept_as_digest() -> None:
    data = bytes(MAX_EVENT)
    (one,) = items_of(7, MUTATIONS, data)
    assert one == Item(7, 0, ItemKind.EVENT, digest(data))
    assert parse(one) is Verdict.MALFORMED


@pytest.mark.parametrize("event_type", [EPOCH_MARKER, CONFIG])
def test_items_are_kept_verbatim_up_to_16_kib(event_type: str) -> None:
    (kept,) = items_of(7, event_type, bytes(MAX_ITEM))
    assert kept.content == bytes(MAX_ITEM)
    assert parse(kept) is Verdict.MALFORMED
    (dropped,) = items_of(7, event_type, bytes(MAX_ITEM + 1))
    assert dropped.content == digest(bytes(MAX_ITEM + 1))
    assert parse(dropped) is Verdict.OVERSIZE


def test_a_mutation_beyond_16_kib_is_oversize() -> None:
    large = encode([bytes(MAX_ITEM), []])
    (one,) = items_of(7, MUTATIONS, encode_mutations([large]))
    assert one == Item(7, 0, ItemKind.MUTATION, digest(large))
    assert parse(one) is Verdict.OVERSIZE


@pytest.mark.parametrize("content", [b"", bytes(MAX_ITEM), digest(bytes(MAX_EVENT))])
def test_unknown_events_are_unknown_whatever_their_size(content: bytes | Digest) -> None:
    assert parse(Item(7, 0, ItemKind.UNKNOWN, content)) is Verdict.UNKNOWN


def test_good_items_are_of_their_type() -> None:
    for parsed in (ALICE, marker(), signed_config()):
        assert parse(item(parsed)) == parsed


def test_the_largest_mutation_is_taken() -> None:
    keys = [private_key(f"key {number}") for number in range(32)]
    largest = Mutation.sign(entry("alice", keys=keys), "kt.example.org/people", keys)
    assert parse(item(largest)) == largest


MISTAKEN = {
    "mutation as marker": (ItemKind.MARKER, ALICE.encode()),
    "mutation as config": (ItemKind.CONFIG, ALICE.encode()),
    "marker as mutation": (ItemKind.MUTATION, marker().encode()),
    "marker as config": (ItemKind.CONFIG, marker().encode()),
    "config as mutation": (ItemKind.MUTATION, signed_config().encode()),
    "config as marker": (ItemKind.MARKER, signed_config().encode()),
    "entry without signatures": (ItemKind.MUTATION, ALICE.entry_bytes),
    "no bytes": (ItemKind.MUTATION, b""),
    "trailing byte": (ItemKind.MUTATION, ALICE.encode() + b"\x00"),
}


@pytest.mark.parametrize(("kind", "data"), MISTAKEN.values(), ids=MISTAKEN.keys())
def test_items_that_are_not_of_their_type_are_malformed(kind: ItemKind, data: bytes) -> None:
    assert parse(Item(7, 0, kind, data)) is Verdict.MALFORMED


def test_an_intact_event_cannot_be_recorded_as_malformed() -> None:
    intact = encode_mutations([ALICE.encode()])
    with pytest.raises(MalformedError, match="intact"):
        parse(Item(7, 0, ItemKind.EVENT, intact))


@pytest.mark.parametrize("verdict", [Verdict.MALFORMED, Verdict.OVERSIZE, Verdict.UNKNOWN])
def test_what_is_nothing_keeps_its_verdict_and_leaves_the_epoch_alone(verdict: Verdict) -> None:
    epoch = new_epoch()
    assert decide(epoch, verdict, None) is verdict
    assert (accepted(epoch), epoch.next_config, epoch.closed_by) == ({}, None, None)
