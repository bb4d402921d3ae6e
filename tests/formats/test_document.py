"""docs/FORMATS.md says what the code does: its examples, its values, its verdicts and its limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kt_es.crypto import hashes, vrf
from kt_es.crypto.hashes import log_leaf_hash, map_leaf_hash, sha256
from kt_es.formats import registration
from kt_es.formats.cosignatures import CosignerKey, cosign
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.notes import parse_note
from kt_es.formats.queue import ItemKind, Verdict
from tests.builders import ORIGIN, SIGNER_KEY, VRF, index, label_of, opening, private_key, profile, public
from tests.example_directory import ALICE, BOB, ROTATED, STORY
from tests.examples import EXAMPLES
from tests.reference import naive_log
from tests.reference.cddl import Schema

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "FORMATS.md").read_text()
BLOCKS = dict(re.findall(r"^```hex ([a-z0-9-]+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
ROWS = dict(re.findall(r"^\| ([^|]+?) \| `([0-9a-f]+)` \|$", TEXT, re.MULTILINE))


BINDING = registration.binding_of(ORIGIN, label_of("alice"), [public(private_key("alice"))])


def values() -> dict[str, str]:
    head = SignedMapHead.decode(STORY.smhs[-1]).head
    made = {
        "alice's key id": public(private_key("alice")).id,
        "the signer's key id": SIGNER_KEY.id,
        "VRF public key": VRF.public,
        "VRF proof of `alice@example.org`": VRF.prove(label_of("alice").encode())[1],
        "alice's index": index("alice"),
        "bob's index": index("bob"),
        "carol's index": vrf.index_of(VRF.prove(label_of("carol").encode())[0]),
        "alice's opening, version 1": opening("alice"),
        "alice's commitment, version 1": hashes.commit(
            opening("alice"), label_of("alice"), 1, profile("alice")
        ),
        "alice's entry hash, version 1": ALICE.entry_hash,
        "alice's entry hash, version 2": ROTATED.entry_hash,
        "bob's entry hash": BOB.entry_hash,
        "config hash": sha256(EXAMPLES["config"].data),
        "map leaf of alice, epoch 2": map_leaf_hash(index("alice"), ROTATED.entry_hash),
        "map leaf of bob, epoch 2": map_leaf_hash(index("bob"), BOB.entry_hash),
        "map root, epoch 2": head.map_root,
        "leaf hash of record 5": log_leaf_hash(EXAMPLES["record-malformed"].data),
        "root of the log of mutations, 8 records": head.log_root,
        "leaf hash of the SMH of epoch 2": log_leaf_hash(EXAMPLES["smh"].data),
        "root of the log of heads, 2 heads": naive_log.root([log_leaf_hash(smh) for smh in STORY.smhs]),
        "binding": BINDING,
    }
    return {name: value.hex() for name, value in made.items()}


def test_every_example_stands_in_the_document() -> None:
    assert BLOCKS.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_document_shows_the_bytes_of_the_code(name: str) -> None:
    digits = "".join(line.split("#")[0] for line in BLOCKS[name].splitlines())
    assert bytes.fromhex(digits) == EXAMPLES[name].data


def test_the_values_are_those_of_the_code() -> None:
    assert values() == ROWS


def test_the_proofs_of_a_registration_are_those_of_the_code() -> None:
    for name, value in (
        ("nonce", registration.nonce_of(BINDING)),
        ("check code", registration.check_code(BINDING)),
        ("mail proof", registration.mail_proof(bytes(range(32)), BINDING, 1704070800)),
    ):
        assert f"| {name} | `{value}` |" in TEXT


def test_the_checkpoint_is_that_of_the_code() -> None:
    (shown,) = re.findall(r"^```text checkpoint\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert shown == STORY.heads_checkpoint()
    assert shown.startswith(f"{ORIGIN}/heads\n2\n")


def test_the_cosigned_checkpoint_is_that_of_the_code() -> None:
    (shown,) = re.findall(r"^```text cosigned\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    key = private_key("witness")
    cosigner = CosignerKey("witness.example.org/w1", key.public)
    checkpoint = STORY.heads_checkpoint()
    line = cosign(parse_note(checkpoint).text, cosigner.name, key, 1704067260)
    assert shown == checkpoint + line
    assert f"`{cosigner.vkey}`" in TEXT


def test_verdicts_and_item_kinds_have_their_numbers() -> None:
    numbers = {label: int(number) for number, label in re.findall(r"\| ([0-9]+) \| `([a-z-]+)`", TEXT)}
    assert numbers == {verdict.label: int(verdict) for verdict in Verdict}
    kinds = {int(number): name for number, name in re.findall(r"\| ([0-9]) ([a-z]+) \|$", TEXT, re.MULTILINE)}
    assert kinds == {int(kind): kind.name.lower() for kind in ItemKind}


def test_rules_that_the_document_names_exist() -> None:
    schema = Schema((DOCS / "formats.cddl").read_text())
    named = re.findall(r"^Rules? ((?:`[a-z-]+`(?:, )?)+)", TEXT, re.MULTILINE)
    rules = {rule for names in named for rule in re.findall(r"`([a-z-]+)`", names)}
    assert {example.rule for example in EXAMPLES.values()} - {"marker-payload"} <= rules <= set(schema.names)
