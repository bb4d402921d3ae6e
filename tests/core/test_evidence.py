"""What evidence convicts of and what it does not: every kind, one fault a case; its text form and limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.errors import EquivocationError, MalformedError, VerificationError
from kt_es.evidence import broken_account, contradicting_checkpoints, contradicting_heads, convict, proven
from kt_es.formats.codec import Value, decode, encode
from kt_es.formats.evidence import MAX_EVIDENCE, Evidence, EvidenceKind, armored, unarmored
from tests.builders import ORIGIN, every_changed_byte, index
from tests.evidences import CASES, CHAIN, HEADS_LOG, OTHER, ROOT, SMHS, Case, as_json, held, note
from tests.example_directory import ALICE, BOB, ROTATED, evidence_of_heads, forged_smh
from tests.examples import EXAMPLES

CONVICTS = {name: case for name, case in CASES.items() if case.sentence is not None}
PROVES_NOTHING = {name: case for name, case in CASES.items() if case.problem is not None}


def test_the_vectors_are_the_pinned_ones() -> None:
    assert (Path(__file__).parents[1] / "vectors" / "evidence.json").read_text() == as_json()
    assert {case.evidence.kind for case in CONVICTS.values()} == set(EvidenceKind)
    assert {case.evidence.kind for case in PROVES_NOTHING.values()} == set(EvidenceKind)
    assert len(json.loads(as_json())) == len(CONVICTS) + len(PROVES_NOTHING)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_encoding(case: Case) -> None:
    assert Evidence.decode(case.evidence.encode()) == case.evidence


@pytest.mark.parametrize("case", CONVICTS.values(), ids=CONVICTS.keys())
def test_what_convicts(case: Case) -> None:
    assert convict(case.evidence) == case.sentence
    error = proven("heads", case.evidence)
    assert isinstance(error, EquivocationError)
    assert (error.step, error.problem, error.evidence) == ("heads", case.sentence, case.evidence.encode())


@pytest.mark.parametrize("case", PROVES_NOTHING.values(), ids=PROVES_NOTHING.keys())
def test_what_proves_nothing(case: Case) -> None:
    with pytest.raises(VerificationError) as caught:
        convict(case.evidence)
    assert not isinstance(caught.value, EquivocationError)
    assert str(caught.value) == case.problem
    assert proven("heads", case.evidence) is None


def test_entries_that_are_not_there_prove_nothing() -> None:
    with pytest.raises(VerificationError, match="the proofs of the entries are missing"):
        convict(replace(held(ROTATED, None), index=None, entries=None))


def test_an_entry_of_another_index_proves_nothing() -> None:
    evidence = held(ROTATED, None)
    assert evidence.entries is not None
    other = replace(evidence.entries[0], entry=BOB.entry)
    with pytest.raises(VerificationError, match="an entry is of another index"):
        convict(replace(evidence, entries=(other, evidence.entries[1])))


def test_heads_and_checkpoints_as_they_come() -> None:
    forged = forged_smh(2, map_root=OTHER)
    error = contradicting_heads("heads", ORIGIN, CHAIN, SMHS[1], forged)
    assert error is not None
    assert error.evidence == replace(evidence_of_heads(), statements=(SMHS[1], forged)).encode()
    assert contradicting_heads("heads", ORIGIN, CHAIN, SMHS[1], SMHS[1]) is None
    one, other = (note(HEADS_LOG, 2, root).decode() for root in (ROOT, OTHER))
    assert contradicting_checkpoints("checkpoint", ORIGIN, CHAIN, one, other) is not None
    assert contradicting_checkpoints("checkpoint", ORIGIN, CHAIN, one, one) is None


def test_nothing_that_is_changed_convicts_of_anything_else() -> None:
    """A changed byte breaks a signature, a proof or the format; nobody can be framed by one."""
    evidence = evidence_of_heads()
    for at, statement in enumerate(evidence.statements):
        for changed in every_changed_byte(statement):
            statements = [*evidence.statements]
            statements[at] = changed
            assert proven("heads", replace(evidence, statements=(statements[0], statements[1]))) is None


def test_an_account_is_judged_by_its_entries() -> None:
    evidence = held(ALICE, ROTATED)
    assert evidence.entries is not None
    assert broken_account(*evidence.entries) is None
    assert broken_account(*reversed(evidence.entries)) == "has version 1, though version 2 stood there"


FIELDS: list[Value] = list(decode(EXAMPLES["evidence-entries"].data, "evidence"))  # type: ignore[arg-type]
PROOFS: list[Value] = list(FIELDS[6])  # type: ignore[arg-type]


def with_field(at: int, value: Value) -> bytes:
    return encode([*FIELDS[:at], value, *FIELDS[at + 1 :]])


def with_proof(at: int, value: Value) -> bytes:
    return with_field(6, [*PROOFS[:at], value, *PROOFS[at + 1 :]])


MALFORMED: dict[str, tuple[bytes, str]] = {
    "another mark": (with_field(0, "kt-es evidence v2"), "evidence: must begin with"),
    "an unknown kind": (with_field(1, "entry"), "evidence kind: must be one of"),
    "a kind of bytes": (with_field(1, b"heads"), "evidence kind: must be one of"),
    "no origin": (with_field(2, "https://x"), "origin: must be a URL without a scheme"),
    "no configs": (with_field(3, encode([])), "configs: must have 1 to 1024 items"),
    "an empty statement": (with_field(4, b""), "evidence statement: must have 1 to 262144 bytes"),
    "a large statement": (with_field(5, bytes(262_145)), "evidence statement: must have 1 to 262144 bytes"),
    "proofs beside heads": (with_field(1, "heads"), "evidence proofs: must have 0 items"),
    "no proofs": (with_field(6, []), "evidence proofs: must have 5 items"),
    "a short index": (with_proof(0, bytes(31)), "evidence proofs index: must have 32 bytes"),
    "an entry that is none": (with_proof(1, b"\x80"), "entry: must have 5 items"),
    "another leaf beside the entry": (
        with_proof(2, [[], [bytes(32), bytes(32)]]),
        "evidence map proof: names another leaf beside the entry's own",
    ),
    "a ninth field": (encode([*FIELDS, None]), "evidence: must have 7 items"),
    "too large": (bytes(MAX_EVIDENCE + 1), "evidence: must have at most 17825792 bytes"),
}


@pytest.mark.parametrize(("data", "problem"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_evidence(data: bytes, problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Evidence.decode(data)
    assert str(caught.value).startswith(problem)


@given(st.binary(min_size=1, max_size=300))
def test_armor_comes_off_again(data: bytes) -> None:
    text = armored(data)
    assert unarmored(text) == data
    assert unarmored("  " + text.replace("\n", "  \r\n  ") + "\n\n") == data
    assert all(len(line) <= 64 for line in text.splitlines())


TEXT = armored(EXAMPLES["evidence-heads"].data)
NO_ARMOR = {
    "nothing": "",
    "no beginning": TEXT.partition("\n")[2],
    "no end": TEXT.rpartition("\n")[0],
    "no content": "\n".join([TEXT.splitlines()[0], TEXT.splitlines()[-1]]),
    "an empty line as content": "\n".join([TEXT.splitlines()[0], "", TEXT.splitlines()[-1]]),
    "something before": "x\n" + TEXT,
    "something after": TEXT + "\nx",
    "a blank in a line": TEXT.replace("AAA", "A AA", 1) if "AAA" in TEXT else TEXT[:40] + " " + TEXT[40:],
    "base64 with other unused bits": "\n".join([TEXT.splitlines()[0], "AB==", TEXT.splitlines()[-1]]),
}


@pytest.mark.parametrize("text", NO_ARMOR.values(), ids=NO_ARMOR.keys())
def test_what_is_no_armor(text: str) -> None:
    with pytest.raises(MalformedError, match="evidence: "):
        unarmored(text)


def test_evidence_holds_nothing_private() -> None:
    data = EXAMPLES["evidence-entries"].data
    assert index("alice") in data
    assert b"alice" not in data
