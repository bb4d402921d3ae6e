"""What a directory may say of itself and what a person may submit: keys, times, configs, proof files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kt_es.crypto.signatures import ECDSA_P256, ED25519, is_point
from kt_es.epochs import is_authorized
from kt_es.errors import MalformedError
from kt_es.formats.codec import MAX_INTERVAL, MAX_TIME
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.entries import Entry, Mutation, PublicKey, check_submittable
from kt_es.formats.heads import MapHead
from kt_es.formats.proofs import ProofFile
from kt_es.formats.queue import Marker, Verdict
from tests.builders import (
    ORIGIN,
    SIGNER,
    config,
    entry,
    item,
    map_head,
    mutation,
    new_epoch,
    p256_key,
    private_key,
    public,
    signed_config,
    verdict_of,
)
from tests.examples import EXAMPLES

FIELD = 2**255 - 19
# A point of order 8, and one of order 8 times the large prime: it decodes, and lies in no group we use.
ORDER_8 = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
P256_GENERATOR = bytes.fromhex("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")

NO_POINTS: dict[str, tuple[int, bytes]] = {
    "Ed25519, the identity": (ED25519, b"\x01" + bytes(31)),
    "Ed25519, of order 2": (ED25519, (FIELD - 1).to_bytes(32, "little")),
    "Ed25519, of order 4": (ED25519, bytes(32)),
    "Ed25519, of order 8": (ED25519, ORDER_8),
    "Ed25519, y is the prime": (ED25519, FIELD.to_bytes(32, "little")),
    "Ed25519, y above the prime": (ED25519, (FIELD + 3).to_bytes(32, "little")),
    "Ed25519, no point": (ED25519, b"\x02" + bytes(31)),
    "P-256, prefix 05": (ECDSA_P256, b"\x05" + P256_GENERATOR[1:]),
    "P-256, prefix 00": (ECDSA_P256, bytes(33)),
    "P-256, prefix 04": (ECDSA_P256, b"\x04" + P256_GENERATOR[1:]),
    "P-256, x of no point": (ECDSA_P256, b"\x02" + (1).to_bytes(32)),
    "P-256, x above the prime": (ECDSA_P256, b"\x02" + b"\xff" * 32),
}
NO_ED25519 = {name: key for name, key in NO_POINTS.items() if key[0] == ED25519}


@pytest.mark.parametrize("key", NO_POINTS.values(), ids=NO_POINTS.keys())
def test_the_log_takes_a_key_that_nobody_may_submit(key: tuple[int, bytes]) -> None:
    """Replays judge keys by their length; a person is told before it is too late."""
    assert not is_point(*key)
    bad = PublicKey(*key)
    made = replace(entry("alice"), authorized_keys=(public(private_key("alice")), bad))
    assert Entry.decode(made.encode()) == made
    signed = Mutation.sign(made, ORIGIN, [private_key("alice")])
    assert verdict_of(new_epoch(), item(signed)) is Verdict.ACCEPTED
    with pytest.raises(MalformedError) as caught:
        check_submittable(made)
    assert caught.value.what == "entry authorized key"
    assert bad.id.hex() in caught.value.problem


@pytest.mark.parametrize("key", [private_key("alice"), p256_key("alice phone")])
def test_keys_that_somebody_has_may_be_submitted(key: object) -> None:
    check_submittable(entry("alice", keys=[key]))  # type: ignore[list-item]
    assert is_point(ECDSA_P256, P256_GENERATOR)
    assert not is_point(ED25519, P256_GENERATOR)
    assert not is_point(3, bytes(32))


@pytest.fixture
def one_key_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key has the same id: what 2^32 trials would find for two of them."""
    monkeypatch.setattr(PublicKey, "id", property(lambda _: bytes(8)))


@pytest.mark.usefixtures("one_key_id")
@pytest.mark.parametrize("signer", ["alice", "alice's other"])
def test_a_signature_under_an_ambiguous_key_id_is_valid_under_either_key(signer: str) -> None:
    keys = [private_key("alice"), private_key("alice's other")]
    assert is_authorized(mutation("alice", keys=keys, signed_by=[private_key(signer)]), None, ORIGIN)
    assert not is_authorized(mutation("alice", keys=keys, signed_by=[private_key("mallory")]), None, ORIGIN)


@pytest.mark.usefixtures("one_key_id")
def test_two_keys_of_one_id_are_not_submitted() -> None:
    made = entry("alice", keys=[private_key("alice"), private_key("alice's other")])
    assert Entry.decode(made.encode()) == made
    with pytest.raises(MalformedError, match="entry authorized key: 0000000000000000 is the key id of two"):
        check_submittable(made)


def with_keys(*keys: PublicKey) -> bytes:
    return replace(config(), signer_keys=(public(SIGNER), *keys)).encode()


@pytest.mark.parametrize("key", NO_ED25519.values(), ids=NO_ED25519.keys())
def test_every_key_of_a_config_is_a_point(key: tuple[int, bytes]) -> None:
    with pytest.raises(MalformedError, match=r"config signer key: .* is no valid public key; name another"):
        Config.decode(with_keys(PublicKey(*key)))
    with pytest.raises(MalformedError, match=r"config vrf_key: .* is not a point of the group"):
        Config.decode(config(vrf_key=key[1]).encode())


def test_signer_keys_differ() -> None:
    assert len(Config.decode(with_keys(public(private_key("successor")))).signer_keys) == 2
    with pytest.raises(MalformedError, match=r"config signer key: .* is the key id of two keys"):
        Config.decode(with_keys(public(SIGNER)))


def test_what_no_reader_takes_is_not_signed() -> None:
    for bad in (config(min_interval=2, max_interval=1), config(max_interval=MAX_INTERVAL + 1)):
        with pytest.raises(MalformedError, match="config m"):
            SignedConfig.sign(bad, [SIGNER])


@pytest.mark.usefixtures("one_key_id")
def test_key_ids_of_signer_keys_differ() -> None:
    with pytest.raises(MalformedError, match=r"config signer key: .* is the key id of two keys"):
        Config.decode(with_keys(public(private_key("successor"))))


def test_a_config_has_one_signature_for_each_key_id() -> None:
    once = signed_config(keys=[SIGNER, private_key("anybody")])
    assert SignedConfig.decode(once.encode()) == once
    for again in (once.signatures[0], replace(once.signatures[0], value=bytes(64))):
        twice = replace(once, signatures=(*once.signatures, again))
        with pytest.raises(MalformedError, match="signed config signature: occurs twice for one key id"):
            SignedConfig.decode(twice.encode())


def _marker(at: int) -> bytes:
    return Marker.sign(bytes(16), at, ORIGIN, SIGNER).encode()


def _proof(**changes: object) -> bytes:
    return replace(ProofFile.decode(EXAMPLES["proof-file"].data), **changes).encode()  # type: ignore[arg-type]


BOUNDS: dict[str, tuple[Callable[[int], object], int, str]] = {
    "marker": (lambda at: Marker.decode(_marker(at)), MAX_TIME, "marker issued_at"),
    "map head": (lambda at: MapHead.decode(map_head(timestamp=at).encode()), MAX_TIME, "map head timestamp"),
    "proof file": (lambda at: ProofFile.decode(_proof(at=at)), MAX_TIME, "proof file time"),
    "longest interval": (
        lambda value: Config.decode(config(max_interval=value).encode()),
        MAX_INTERVAL,
        "config max_interval",
    ),
    "shortest interval": (
        lambda value: Config.decode(config(min_interval=value, max_interval=MAX_INTERVAL).encode()),
        MAX_INTERVAL,
        "config min_interval",
    ),
    "merge delay": (
        lambda value: Config.decode(config(max_merge_delay=value).encode()),
        MAX_INTERVAL,
        "config max_merge_delay",
    ),
}


@pytest.mark.parametrize(("read", "highest", "what"), BOUNDS.values(), ids=BOUNDS.keys())
def test_times_and_intervals_are_bounded(read: Callable[[int], object], highest: int, what: str) -> None:
    read(highest)
    for beyond in (highest + 1, 2**64 - 1):
        with pytest.raises(MalformedError) as caught:
            read(beyond)
        assert caught.value.what == what


def test_a_marker_beyond_the_year_9999_is_malformed() -> None:
    made = Marker.sign(bytes(16), MAX_TIME + 1, ORIGIN, SIGNER)
    assert verdict_of(new_epoch(), item(made)) is Verdict.MALFORMED


@pytest.mark.parametrize(
    "label", ["Alice@example.org", "e\u0301@example.org", "a\u200bb@example.org", "alice"]
)
def test_a_label_in_a_proof_file_is_normalized(label: str) -> None:
    assert ProofFile.decode(_proof(label="\u00e9@example.org")).label == "\u00e9@example.org"
    with pytest.raises(MalformedError, match="label: "):
        ProofFile.decode(_proof(label=label))
