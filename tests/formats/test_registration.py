"""What registration proofs are bound to: the values of docs/FORMATS.md, and what changes them."""

from __future__ import annotations

from pathlib import Path

from kt_es.formats.registration import binding_of, check_code, mail_proof, mail_proof_end, nonce_of, way_of
from tests import builders as b

TEXT = (Path(__file__).parents[2] / "docs/FORMATS.md").read_text()
SECRET = bytes(range(32))
ALICE = [b.public(b.private_key("alice"))]


def test_the_values_of_the_page() -> None:
    section = TEXT.partition("\n## Registration\n")[2].partition("\n## ")[0]
    binding = binding_of(b.ORIGIN, b.label_of("alice"), ALICE)
    proof = mail_proof(SECRET, binding, 1_704_070_800)
    for value in (binding.hex(), nonce_of(binding), check_code(binding), proof, ALICE[0].id.hex()):
        assert f"`{value}`" in section
    assert mail_proof_end(SECRET, binding, proof) == 1_704_070_800
    assert way_of(proof) == "email"


def test_each_part_changes_a_binding_and_the_order_of_keys_does_not() -> None:
    two = [*ALICE, b.public(b.p256_key("phone"))]
    bindings = [
        binding_of(b.ORIGIN, b.label_of("alice"), ALICE),
        binding_of(b.OTHER_ORIGIN, b.label_of("alice"), ALICE),
        binding_of(b.ORIGIN, b.label_of("bob"), ALICE),
        binding_of(b.ORIGIN, b.label_of("alice"), two),
        binding_of(b.ORIGIN, b.label_of("alice"), two[1:]),
    ]
    assert len(set(bindings)) == len(bindings)
    assert binding_of(b.ORIGIN, b.label_of("alice"), two[::-1]) == bindings[3]
