"""What is no range answer, no erasure and no erasure proof: one fault a case."""

from __future__ import annotations

import pytest

from kt_es.errors import MalformedError
from kt_es.formats.codec import Value, decode, encode
from kt_es.formats.erasures import MAX_ERASURE, Erasure, ErasureReason
from kt_es.formats.proofs import LookupAnswer
from kt_es.formats.ranges import MAX_RANGE_ANSWER, RangeAnswer
from tests.builders import ORIGIN, OTHER_ORIGIN, private_key, public
from tests.example_directory import BOB, BOBS_ERASURE
from tests.examples import EXAMPLES


def fields(name: str) -> list[Value]:
    return list(decode(EXAMPLES[name].data, name))  # type: ignore[arg-type]


def changed(values: list[Value], at: int, value: Value) -> list[Value]:
    return [*values[:at], value, *values[at + 1 :]]


RANGE = fields("range-answer")
EPOCHS: list[Value] = list(RANGE[5])  # type: ignore[arg-type]
MUTATIONS: list[Value] = list(RANGE[2])  # type: ignore[arg-type]
FIRST: list[Value] = list(EPOCHS[0])  # type: ignore[arg-type]
ORDER = "range answer mutations: are not distinct and in the order of their epochs"


def epoch(at: int, value: Value) -> list[Value]:
    return changed(RANGE, 5, [changed(FIRST, at, value), EPOCHS[1]])


NO_RANGES: dict[str, tuple[list[Value], str]] = {
    "no epochs": (changed(RANGE, 5, []), "range answer epochs: must have 1 to 256 items"),
    "257 epochs": (changed(RANGE, 5, [FIRST] * 257), "range answer epochs: must have 1 to 256 items"),
    "epoch zero": (changed(RANGE, 3, 0), "range answer first epoch: must be in 1"),
    "a long proof": (changed(RANGE, 4, [bytes(32)] * 129), "range answer heads proof: must have 0 to 128"),
    "a short hash": (changed(RANGE, 4, [bytes(31)]), "range answer heads proof: must have 32 bytes"),
    "a short VRF proof": (changed(RANGE, 1, bytes(79)), "range answer vrf proof: must have 80 bytes"),
    "a mutation that nobody names": (changed(RANGE, 2, [*MUTATIONS, BOB.encode()]), ORDER),
    "one mutation twice": (changed(RANGE, 2, [MUTATIONS[0], MUTATIONS[0]]), ORDER),
    "mutations in another order": (
        changed(RANGE, 5, [changed(FIRST, 2, 1), changed(list(EPOCHS[1]), 2, 0)]),  # type: ignore[arg-type]
        ORDER,
    ),
    "a mutation that is not there": (epoch(2, 2), "range answer epoch mutation: must be in 0 to 1, is 2"),
    "a mutation where none is": (
        changed(changed(RANGE, 2, []), 5, [changed(FIRST, 2, 0)]),
        "range answer epoch: names a mutation, though the answer has none",
    ),
    "another leaf beside the entry": (
        epoch(1, [[], [bytes(32), bytes(32)]]),
        "range answer epoch map proof: names another leaf beside the entry's own",
    ),
    "no head": (epoch(0, b""), "range answer epoch smh: must have 1 to 1024 bytes"),
}


@pytest.mark.parametrize(("values", "problem"), NO_RANGES.values(), ids=NO_RANGES.keys())
def test_what_is_no_range_answer(values: list[Value], problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        RangeAnswer.decode(encode(values))
    assert str(caught.value).startswith(problem)


def test_range_answers_have_a_limit() -> None:
    with pytest.raises(MalformedError, match="range answer: must have at most 3145728 bytes"):
        RangeAnswer.decode(bytes(MAX_RANGE_ANSWER + 1))


PAYLOAD, KEY, SIGNATURE = fields("erasure")
INDEX, HASH, REASON = fields("erasure-payload")
NO_ERASURES: dict[str, tuple[list[Value], str]] = {
    "a reason that is none": (
        [encode([INDEX, HASH, 4]), KEY, SIGNATURE],
        "erasure reason: must be in 0 to 3, is 4",
    ),
    "a short index": ([encode([bytes(31), HASH, 0]), KEY, SIGNATURE], "erasure index: must have 32 bytes"),
    "a short hash": ([encode([INDEX, bytes(31), 0]), KEY, SIGNATURE], "erasure entry hash: must have 32"),
    "a fourth field": ([encode([INDEX, HASH, 0, 0]), KEY, SIGNATURE], "erasure payload: must have 3 items"),
    "an unknown key": ([PAYLOAD, [3, bytes(32)], SIGNATURE], "erasure key algorithm: must be in 1 to 2"),
    "a short signature": ([PAYLOAD, KEY, bytes(63)], "erasure signature: must have 64 bytes"),
    "no payload": ([b"", KEY, SIGNATURE], "erasure payload: must have 1 to 1024 bytes"),
}


@pytest.mark.parametrize(("values", "problem"), NO_ERASURES.values(), ids=NO_ERASURES.keys())
def test_what_is_no_erasure(values: list[Value], problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Erasure.decode(encode(values))
    assert str(caught.value).startswith(problem)


def test_erasures_have_a_limit_and_one_signer() -> None:
    with pytest.raises(MalformedError, match="erasure: must have at most 1024 bytes"):
        Erasure.decode(bytes(MAX_ERASURE + 1))
    assert BOBS_ERASURE.is_signed(ORIGIN)
    assert not BOBS_ERASURE.is_signed(OTHER_ORIGIN)
    forged = Erasure.sign(BOB.entry.index, BOB.entry_hash, ErasureReason.LAW, ORIGIN, private_key("mallory"))
    assert forged.key == public(private_key("mallory"))
    assert [reason.label for reason in ErasureReason] == ["owner", "law", "abuse", "mistake"]


ANSWER = fields("answer-erased")
PROOF: list[Value] = list(ANSWER[7])  # type: ignore[arg-type]
NO_ANSWERS: dict[str, tuple[list[Value], str]] = {
    "an erasure beside an opening": (
        changed(ANSWER, 6, bytes(16)),
        "lookup answer erasure: stands beside no entry or beside an opening",
    ),
    "an erasure beside absence": (
        [*fields("answer-absent"), PROOF],
        "lookup answer erasure: stands beside no entry or beside an opening",
    ),
    "an erasure that is null": (changed(ANSWER, 7, None), "lookup answer erasure: must be an array"),
    "a path to no head": (
        changed(ANSWER, 7, changed(PROOF, 3, [bytes(32)])),
        "lookup answer erasure: proves the inclusion of no head",
    ),
    "no record": (changed(ANSWER, 7, changed(PROOF, 0, b"")), "lookup answer erasure record: must have 1"),
    "a long path": (
        changed(ANSWER, 7, changed(PROOF, 1, [bytes(32)] * 65)),
        "lookup answer erasure inclusion: must have 0 to 64 items",
    ),
    "a ninth field": ([*ANSWER, None], "lookup answer: must have 7 to 8 items"),
}


@pytest.mark.parametrize(("values", "problem"), NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_what_proves_no_erasure(values: list[Value], problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        LookupAnswer.decode(encode(values))
    assert str(caught.value).startswith(problem)


def test_a_withheld_profile_is_well_formed() -> None:
    """Clients report it; FORMATS, "Lookup answer", step 8."""
    answer = LookupAnswer.decode(encode(ANSWER[:7]))
    assert (answer.mutation, answer.opening, answer.erasure) == (BOB, None, None)
