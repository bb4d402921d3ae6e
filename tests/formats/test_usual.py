"""The expressions for the usual shape accept what the general decoders accept, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.errors import MalformedError
from kt_es.formats.codec import decode
from kt_es.formats.entries import Entry, Mutation, PublicKey, Signature
from kt_es.formats.queue import Digest, Item, ItemKind, Record, Verdict, closes_epoch
from kt_es.formats.usual import usual_mutation, usual_record
from tests.builders import mutation, next_mutation, p256_key, private_key

T = TypeVar("T")

FIRST = mutation("alice")
SECOND = next_mutation("alice", FIRST)
TWO_KEYS = mutation("alice", keys=[private_key("alice"), private_key("laptop")])
P256 = mutation("alice", keys=[p256_key("alice")])
BORDERS = [1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1]
SIZES = [0, 23, 24, 254, 255, 256, 257, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1]

versions = st.sampled_from(BORDERS) | st.integers(1, 2**32 - 1)
numbers = st.sampled_from(SIZES) | st.integers(0, 2**64 - 1)
hashes = st.binary(min_size=32, max_size=32)


def outcome(decoder: Callable[[bytes], T], data: bytes) -> T | None:
    """What ``decoder`` makes of ``data``, None if it refuses them."""
    try:
        return decoder(data)
    except MalformedError:
        return None


def general_record(data: bytes) -> list[object] | None:
    """The fields of a record as the codec reads them."""
    value = outcome(lambda given: decode(given, "record"), data)
    return list(value) if isinstance(value, list) and len(value) == 6 else None


@pytest.mark.parametrize(
    ("made", "is_usual"), [(FIRST, True), (SECOND, True), (TWO_KEYS, False), (P256, False)]
)
def test_both_decoders_give_the_mutation_that_was_encoded(made: Mutation, is_usual: bool) -> None:
    data = made.encode()
    assert (usual_mutation(data) is not None) == is_usual
    assert Mutation.decode(data) == Mutation._decode(data) == made


@given(hashes, versions, hashes, hashes, st.none() | hashes, st.binary(min_size=72, max_size=72))
def test_mutations_of_the_usual_shape_are_decoded_as_by_the_general_decoder(
    index: bytes, version: int, commitment: bytes, key: bytes, previous: bytes | None, signature: bytes
) -> None:
    made = Entry(index, version, commitment, (PublicKey(1, key),), previous)
    signed = Mutation.sign(made, "kt.example.org", [])
    signed = Mutation(made, signed.entry_bytes, signed.entry_hash, (Signature(signature[:8], signature[8:]),))
    assert usual_mutation(signed.encode()) is not None
    assert Mutation.decode(signed.encode()) == Mutation._decode(signed.encode()) == signed


@pytest.mark.parametrize("good", [FIRST.encode(), SECOND.encode()])
def test_every_changed_byte_of_a_mutation_has_the_same_outcome(good: bytes) -> None:
    for at in range(len(good)):
        for change in (1, 2, 0x20, 0x80, 0xFF):
            bad = good[:at] + bytes((good[at] ^ change,)) + good[at + 1 :]
            assert outcome(Mutation.decode, bad) == outcome(Mutation._decode, bad)
        for bad in (good[:at], good[:at] + good[at + 1 :], good[:at] + b"\x00" + good[at:], good + good[:at]):
            assert outcome(Mutation.decode, bad) == outcome(Mutation._decode, bad) or bad == good


@pytest.mark.parametrize(
    "version",
    [b"\x00", b"\x18\x01", b"\x18\x17", b"\x19\x00\x18", b"\x19\x00\xff", b"\x1a\x00\x00\xff\xff", b"\x20"],
)
def test_a_version_that_is_not_in_its_shortest_encoding_is_refused(version: bytes) -> None:
    entry = FIRST.entry_bytes[:35] + version + FIRST.entry_bytes[36:]
    rest = FIRST.encode()[3 + len(FIRST.entry_bytes) :]
    bad = b"\x82\x58" + bytes((len(entry),)) + entry + rest
    assert usual_mutation(bad) is None
    with pytest.raises(MalformedError):
        Mutation.decode(bad)


@given(
    numbers, numbers, numbers, st.sampled_from(ItemKind), st.sampled_from(Verdict), st.binary(max_size=400)
)
def test_records_are_decoded_as_by_the_codec(
    sequence: int, revision: int, position: int, kind: ItemKind, verdict: Verdict, content: bytes
) -> None:
    made = Record(sequence, Item(revision, position, kind, content), verdict)
    data = made.encode()
    assert Record.decode(data) == made
    assert closes_epoch(data) == made.closes_epoch
    usual = usual_record(data)
    assert (usual is not None) == (len(content) >= 24)
    assert usual is None or list(usual) == general_record(data)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_record_end_an_epoch_or_not(data: bytes) -> None:
    assert closes_epoch(data) in (True, False)


@pytest.mark.parametrize("size", [24, 255, 256, 16 * 1024])
def test_every_changed_byte_of_a_record_has_the_same_outcome(size: int) -> None:
    good = Record(300, Item(70_000, 24, ItemKind.MUTATION, bytes(size)), Verdict.UNKNOWN).encode()
    for at in range(min(len(good), 24)):
        for change in range(1, 256):
            bad = good[:at] + bytes((good[at] ^ change,)) + good[at + 1 :]
            usual = usual_record(bad)
            assert usual is None or list(usual) == general_record(bad)
    assert usual_record(good[:-1]) is usual_record(good + b"\x00") is None


@pytest.mark.parametrize("at", [3, 4], ids=["kind", "verdict"])
def test_a_record_that_holds_another_one_is_not_taken_for_it(at: int) -> None:
    inner = Record(1, Item(1, 0, ItemKind.MUTATION, bytes(40)), Verdict.ACCEPTED).encode()
    outer = bytearray(Record(1, Item(1, 0, ItemKind.MUTATION, inner), Verdict.ACCEPTED).encode())
    # The numbers of this record are one byte each. No kind and no verdict has the number 9.
    outer[1 + at] = 9
    assert list(usual_record(bytes(outer)) or ())[at] == 9
    with pytest.raises(MalformedError, match=r"record: 9 is not a valid"):
        Record.decode(bytes(outer))


def test_a_record_with_a_digest_is_read_by_the_general_decoder() -> None:
    made = Record(1, Item(2, 0, ItemKind.UNKNOWN, Digest(bytes(32), 20_000)), Verdict.OVERSIZE)
    assert usual_record(made.encode()) is None
    assert Record.decode(made.encode()) == made
