"""Every format against its pinned bytes, and the examples against what they are said to prove."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kt_es.crypto import hashes, vrf
from kt_es.crypto.hashes import log_leaf_hash, sha256
from kt_es.crypto.signatures import signed_message
from kt_es.errors import VerificationError
from kt_es.formats.configs import SignedConfig, check_first_config
from kt_es.formats.entries import Entry, Mutation, Opening, PublicKey, decode_profile
from kt_es.formats.heads import HeadEvent, SignedMapHead, heads_origin, mutations_origin, open_checkpoint
from kt_es.formats.proofs import ProofFile
from kt_es.formats.queue import Digest, ItemKind, Record, Verdict, decode_records
from kt_es.merkle.verify import log_root_from_inclusion, map_root, require_root
from tests.builders import ORIGIN, OTHER_ORIGIN, SIGNER_KEY, START, VRF, marker, private_key, public
from tests.example_directory import OVERSIZE, STORY
from tests.examples import EXAMPLES, Example, as_json

PINNED = Path(__file__).parents[1] / "vectors" / "formats.json"


def test_examples_are_the_pinned_bytes() -> None:
    pinned = json.loads(PINNED.read_text())
    made = {name: example.data.hex() for name, example in EXAMPLES.items()}
    different = [name for name in {**pinned, **made} if pinned.get(name) != made.get(name)]
    assert not different, "a format changed: if that is meant, see tests/examples.py"
    assert PINNED.read_text() == as_json()


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_decoded_and_encoded_again(example: Example) -> None:
    assert example.again(example.data) == example.data


def test_key_ids_are_of_the_encoded_key() -> None:
    key = public(private_key("alice"))
    assert key.id == sha256(EXAMPLES["public-key-ed25519"].data)[:8]
    assert PublicKey(2, bytes(33)).id != PublicKey(1, bytes(32)).id


def test_what_is_signed() -> None:
    entry = EXAMPLES["entry"].data
    assert signed_message("entry", ORIGIN, entry) == b"kt-es/v1 entry\nkt.example.org/people\n" + entry
    mutation = Mutation.decode(EXAMPLES["mutation"].data)
    assert mutation.entry_hash == sha256(entry)
    (signature,) = mutation.signatures
    assert public(private_key("alice")).verifies(signed_message("entry", ORIGIN, entry), signature.value)
    for kind in ("marker", "map-head", "config"):
        assert not SIGNER_KEY.verifies(signed_message(kind, ORIGIN, entry), signature.value)


def test_a_rotation_names_the_entry_before() -> None:
    rotated = Mutation.decode(EXAMPLES["mutation-rotation"].data)
    assert rotated.entry.previous == sha256(EXAMPLES["entry"].data)
    assert [key.algorithm for key in rotated.entry.authorized_keys] == [2]
    assert len(rotated.signatures) == 2


def test_a_commitment_opens_to_its_profile() -> None:
    opened = Opening.decode(EXAMPLES["opening"].data)
    entry = Entry.decode(EXAMPLES["entry"].data)
    assert opened.entry_hash == sha256(EXAMPLES["entry"].data)
    assert opened.profile == EXAMPLES["profile"].data
    assert hashes.opens(entry.commitment, opened.opening, "alice@example.org", 1, opened.profile)
    (key,) = decode_profile(opened.profile)
    assert (key.name, key.type, key.data) == ("laptop", "raw", b"alice 1")


def test_records_have_the_verdicts_of_the_items() -> None:
    first, records = decode_records(EXAMPLES["records-event"].data)
    decoded = [Record.decode(record) for record in records]
    assert [record.sequence for record in decoded] == [first, 5, 6, 7]
    assert [(record.item.kind, record.verdict) for record in decoded] == [
        (ItemKind.MUTATION, Verdict.ACCEPTED),
        (ItemKind.MUTATION, Verdict.MALFORMED),
        (ItemKind.UNKNOWN, Verdict.UNKNOWN),
        (ItemKind.MARKER, Verdict.EPOCH),
    ]
    assert decoded[2].item.content == Digest(sha256(OVERSIZE), len(OVERSIZE))
    assert decoded[3].item.content == marker(START + 2_000).encode()


def test_the_proof_file_proves_its_entry() -> None:
    proof = ProofFile.decode(EXAMPLES["proof-file"].data)
    config = check_first_config(proof.configs[0], ORIGIN, SIGNER_KEY)
    answer = proof.answer
    checkpoint = open_checkpoint(answer.heads_checkpoint, heads_origin(ORIGIN), [config.signer_key.raw])
    head = SignedMapHead.decode(answer.smh_bytes).verify(ORIGIN, config.signer_key)
    leaf = log_leaf_hash(answer.smh_bytes)
    root = log_root_from_inclusion(head.epoch - 1, checkpoint.size, leaf, answer.heads_inclusion)
    require_root("heads", root, checkpoint.root)
    assert head.config_hash == config.hash
    index = vrf.index_of(vrf.verify(config.vrf_key, proof.label.encode(), answer.vrf_proof))
    require_root("map", map_root(index, answer.map_proof), head.map_root)
    assert answer.mutation is not None
    assert answer.opening is not None
    assert proof.profile is not None
    entry = answer.mutation.entry
    assert entry.index == index
    assert hashes.opens(entry.commitment, answer.opening, proof.label, entry.version, proof.profile)


def test_absence_is_proven_by_the_leaf_at_the_end_of_the_path() -> None:
    answer = STORY.answer("carol")
    index = vrf.index_of(vrf.verify(VRF.public, b"carol@example.org", answer.vrf_proof))
    assert answer.mutation is None
    assert answer.map_proof.entry_hash(index) is None
    assert map_root(index, answer.map_proof) == SignedMapHead.decode(answer.smh_bytes).head.map_root


def test_checkpoints_of_both_logs_stand_in_the_head_event() -> None:
    event = HeadEvent.decode(EXAMPLES["head-event"].data)
    head = SignedMapHead.decode(event.smh_bytes).head
    heads = open_checkpoint(event.heads_checkpoint, heads_origin(ORIGIN), [SIGNER_KEY.raw])
    mutations = open_checkpoint(event.mutations_checkpoint, mutations_origin(ORIGIN), [SIGNER_KEY.raw])
    assert heads.size == head.epoch
    assert (mutations.size, mutations.root) == (head.log_size, head.log_root)


def test_a_head_is_for_one_origin_and_by_one_key() -> None:
    smh = SignedMapHead.decode(EXAMPLES["smh"].data)
    with pytest.raises(VerificationError, match=r"map head: is for kt\.example\.org/people, not for"):
        smh.verify(OTHER_ORIGIN, SIGNER_KEY)
    with pytest.raises(VerificationError, match="map head: is not signed by the directory's key"):
        smh.verify(ORIGIN, public(private_key("mallory")))


FIRST_CONFIG_FAULTS = {
    "origin": (OTHER_ORIGIN, SIGNER_KEY, "is for kt.example.org/people"),
    "key": (ORIGIN, public(private_key("mallory")), "is not signed by the directory's key"),
}


@pytest.mark.parametrize(
    ("origin", "key", "problem"), FIRST_CONFIG_FAULTS.values(), ids=FIRST_CONFIG_FAULTS.keys()
)
def test_a_first_config_is_for_one_origin_and_by_one_key(origin: str, key: PublicKey, problem: str) -> None:
    with pytest.raises(VerificationError, match=problem) as caught:
        check_first_config(SignedConfig.decode(EXAMPLES["signed-config"].data), origin, key)
    assert caught.value.step == "config"
