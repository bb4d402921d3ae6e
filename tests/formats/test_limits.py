"""The limits of every format, at which code and CDDL agree, and those that only the code can say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kt_es.errors import MalformedError
from kt_es.formats.codec import Value, encode
from kt_es.formats.configs import MAX_CONFIG, Config, SignedConfig, check_directory, check_origin
from kt_es.formats.entries import (
    MAX_MUTATION,
    MAX_PROFILE,
    Entry,
    Mutation,
    ProfileKey,
    Signature,
    decode_profile,
    encode_profile,
)
from kt_es.formats.proofs import MAX_PROOF_FILE, LookupAnswer, ProofFile
from kt_es.formats.queue import MAX_RECORD, Record, decode_mutations, decode_records
from tests.builders import config, entry, mutation, private_key, public, signed_config
from tests.example_directory import STORY
from tests.examples import EXAMPLES
from tests.reference.cddl import Schema

SCHEMA = Schema((Path(__file__).parents[2] / "docs" / "formats.cddl").read_text())

KEYS: list[Value] = [public(private_key(f"key {number}")).fields() for number in range(33)]
SIGNATURE: Value = [bytes(8), bytes(64)]
ENTRY = EXAMPLES["entry"].data


def entry_with(keys: list[Value]) -> bytes:
    return encode([bytes(32), 1, bytes(32), keys, None])


def versioned(version: int) -> bytes:
    return encode([bytes(32), version, bytes(32), KEYS[:1], bytes(32)])


def config_with(keys: list[Value]) -> bytes:
    made = config()
    return encode([made.origin, "KTES_1", keys, made.vrf_key, "email", 1, 2, 3, None])


def answer_with(inclusion: int, siblings: int) -> bytes:
    smh = STORY.smhs[0]
    path: list[Value] = [bytes(32)] * siblings
    return encode(["x", smh, [bytes(32)] * inclusion, bytes(80), [path, None], None, None])


def record_with(item: Value) -> bytes:
    return encode([0, 0, 0, 0, 22, item])


AT_THE_LIMIT: dict[str, tuple[str, Callable[[bytes], object], bytes, bytes]] = {
    "authorized keys": ("entry", Entry.decode, entry_with(KEYS[:32]), entry_with(KEYS)),
    "no authorized key": ("entry", Entry.decode, entry_with(KEYS[:1]), entry_with([])),
    "lowest version": ("entry", Entry.decode, versioned(1), versioned(0)),
    "highest version": ("entry", Entry.decode, versioned(2**32 - 1), versioned(2**32)),
    "signatures": (
        "mutation",
        Mutation.decode,
        encode([ENTRY, [SIGNATURE] * 32]),
        encode([ENTRY, [SIGNATURE] * 33]),
    ),
    "no signature": ("mutation", Mutation.decode, encode([ENTRY, [SIGNATURE]]), encode([ENTRY, []])),
    "signer keys": ("config", Config.decode, config_with(KEYS[:8]), config_with(KEYS[:9])),
    "signer key of P-256": ("config", Config.decode, config_with(KEYS[:1]), config_with([[2, bytes(33)]])),
    "unknown algorithm": ("entry", Entry.decode, entry_with(KEYS[:1]), entry_with([[3, bytes(32)]])),
    "profile keys": (
        "profile",
        decode_profile,
        encode([["", "raw", b""]] * 256),
        encode([["", "raw", b""]] * 257),
    ),
    "profile key's name": (
        "profile",
        decode_profile,
        encode([["x" * 255, "raw", b""]]),
        encode([["x" * 254 + "é", "raw", b""]]),
    ),
    "profile key's type": (
        "profile",
        decode_profile,
        encode([["", "age", b""]]),
        encode([["", "gpg", b""]]),
    ),
    "mutations in an event": (
        "mutations-event",
        decode_mutations,
        encode([b""] * 256),
        encode([b""] * 257),
    ),
    "records in an event": (
        "records-event",
        decode_records,
        encode([0, [STORY.records[0]] * 256]),
        encode([0, [STORY.records[0]] * 257]),
    ),
    "item kept verbatim": (
        "record",
        Record.decode,
        record_with(bytes(16_384)),
        record_with(bytes(16_385)),
    ),
    "item kept as digest": (
        "record",
        Record.decode,
        record_with([bytes(32), 16_385]),
        record_with([bytes(32), 16_384]),
    ),
    "hashes in a log proof": ("lookup-answer", LookupAnswer.decode, answer_with(64, 0), answer_with(65, 0)),
    "siblings in a map proof": (
        "lookup-answer",
        LookupAnswer.decode,
        answer_with(0, 256),
        answer_with(0, 257),
    ),
}


@pytest.mark.parametrize(("rule", "decode", "good", "bad"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT.keys())
def test_limits_in_code_and_schema(
    rule: str, decode: Callable[[bytes], object], good: bytes, bad: bytes
) -> None:
    decode(good)
    assert SCHEMA.valid(rule, good)
    with pytest.raises(MalformedError):
        decode(bad)
    assert not SCHEMA.valid(rule, bad)


def of_size(size: int, of: Callable[[bytes], bytes]) -> bytes:
    made = of(bytes(size - len(of(bytes(size))) + size))
    assert len(made) == size
    return made


def large_mutation(size: int) -> bytes:
    return of_size(size, lambda filler: encode([filler, [SIGNATURE]]))


def large_profile(size: int) -> bytes:
    return of_size(size, lambda filler: encode([["", "raw", filler]]))


def test_whole_mutations_have_a_limit() -> None:
    for size, problem in ((MAX_MUTATION, "entry"), (MAX_MUTATION + 1, "at most 16384 bytes")):
        with pytest.raises(MalformedError, match=problem):
            Mutation.decode(large_mutation(size))


def test_whole_configs_have_a_limit() -> None:
    with pytest.raises(MalformedError, match="at most 16384 bytes"):
        SignedConfig.decode(large_mutation(MAX_CONFIG + 1))


def test_whole_records_have_a_limit() -> None:
    with pytest.raises(MalformedError, match="at most 17408 bytes"):
        Record.decode(bytes(MAX_RECORD + 1))


def test_whole_proof_files_have_a_limit() -> None:
    with pytest.raises(MalformedError, match="at most 16777216 bytes"):
        ProofFile.decode(bytes(MAX_PROOF_FILE + 1))


def test_whole_profiles_have_a_limit_in_both_directions() -> None:
    (key,) = decode_profile(large_profile(MAX_PROFILE))
    assert len(encode_profile([key])) == MAX_PROFILE
    with pytest.raises(MalformedError, match="at most 524288 bytes"):
        decode_profile(large_profile(MAX_PROFILE + 1))
    with pytest.raises(MalformedError, match="at most 524288 bytes"):
        encode_profile([ProfileKey("", "raw", bytes(MAX_PROFILE))])


def test_an_entry_names_no_key_twice() -> None:
    twice = replace(entry("alice"), authorized_keys=entry("alice").authorized_keys * 2)
    with pytest.raises(MalformedError, match="entry authorized_keys: must be distinct"):
        Entry.decode(twice.encode())


def test_intervals_are_in_order() -> None:
    assert Config.decode(config(min_interval=5, max_interval=5).encode()).min_interval == 5
    with pytest.raises(MalformedError, match="config min_interval"):
        Config.decode(config(min_interval=6, max_interval=5).encode())


def test_an_absent_entry_has_no_opening() -> None:
    absent = EXAMPLES["answer-absent"].data
    assert absent.endswith(b"\xf6\xf6")
    with pytest.raises(MalformedError, match="opens an absent entry"):
        LookupAnswer.decode(absent[:-1] + encode(bytes(16)))


def test_a_present_entry_has_no_other_leaf() -> None:
    answer = STORY.answer("alice")
    checkpoint, smh, proof = answer.heads_checkpoint, answer.smh_bytes, answer.vrf_proof
    leaf: Value = [[], [bytes(32), bytes(32)]]
    data = encode([checkpoint, smh, [], proof, leaf, EXAMPLES["mutation"].data, None])
    with pytest.raises(MalformedError, match="another leaf"):
        LookupAnswer.decode(data)


ORIGINS = ["kt.example.org/people", "localhost", "localhost:8080", "a/b/c~d_e.f-g", "1.2.3.4:1/x", "x" * 255]
NO_ORIGINS = [
    "",
    "https://kt.example.org",
    "kt.example.org/",
    "/people",
    "KT.example.org",
    "kt.example.org//people",
    "kt.example.org/people\n",
    "kt.example.org/pe ople",
    "kt.example.org/pe+ople",
    "kt.example.org:/people",
    "kt.example.org:123456",
    "kt.example.org:٣",
    "kt.example.org/ü",
    "-kt.example.org",
    "kt.example.org?x",
    "x" * 256,
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_origins(origin: str) -> None:
    assert check_origin(origin) == origin
    assert Config.decode(config(origin).encode()).origin == origin


@pytest.mark.parametrize("origin", NO_ORIGINS)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(MalformedError):
        check_origin(origin)
    with pytest.raises(MalformedError):
        SignedConfig.decode(replace_origin(origin))


def replace_origin(origin: str) -> bytes:
    signed = signed_config()
    data = replace(signed.config, origin=origin).encode()
    return replace(signed, config_bytes=data).encode()


@pytest.mark.parametrize("name", ["a", "people", "people_2.test", "0" * 63])
def test_directories(name: str) -> None:
    assert check_directory(name) == name


@pytest.mark.parametrize("name", ["", "_a", ".a", "A", "a-b", "a/b", "a\n", "ä", "0" * 64])
def test_what_is_no_directory(name: str) -> None:
    with pytest.raises(MalformedError, match="directory"):
        check_directory(name)


def test_signatures_do_not_change_the_identity() -> None:
    one = mutation("alice")
    other = replace(one, signatures=(*one.signatures, Signature(bytes(8), bytes(64))))
    assert Mutation.decode(one.encode()).entry_hash == Mutation.decode(other.encode()).entry_hash
    assert one.encode() != other.encode()
