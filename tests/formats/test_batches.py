"""What is no batch answer: one fault a case."""

from __future__ import annotations

import pytest

from kt_es.errors import MalformedError
from kt_es.formats.batches import MAX_BATCH_ANSWER, BatchAnswer
from kt_es.formats.codec import Value, decode, encode
from kt_es.formats.proofs import LookupAnswer
from kt_es.merkle.multiproof import expand
from tests.builders import index
from tests.example_directory import LONGER_STORY, STORY, example_batch, example_batch_erased
from tests.examples import EXAMPLES
from tests.reference import naive_map


def fields(name: str) -> list[Value]:
    return list(decode(EXAMPLES[name].data, name))  # type: ignore[arg-type]


def changed(values: list[Value], at: int, value: Value) -> list[Value]:
    return [*values[:at], value, *values[at + 1 :]]


BATCH = fields("batch-answer")
SIBLINGS, ENDS = list(BATCH[3])  # type: ignore[arg-type]
ABSENT, PRESENT = list(BATCH[4])  # type: ignore[arg-type]
ERASED = fields("batch-answer-erased")[4][1]  # type: ignore[index]
LEAF: Value = [bytes(32), bytes(32)]


def proof(siblings: Value, ends: Value) -> list[Value]:
    return changed(BATCH, 3, [siblings, ends])


def answers(*values: Value) -> list[Value]:
    return changed(BATCH, 4, list(values))


NO_BATCHES: dict[str, tuple[list[Value], str]] = {
    "four fields": (BATCH[:4], "batch answer: must have 5 items"),
    "no labels": (answers(), "batch answer answers: must have 1 to 1000 items"),
    "1001 labels": (answers(*[ABSENT] * 1001), "batch answer answers: must have 1 to 1000 items"),
    "no head": (changed(BATCH, 1, b""), "batch answer smh: must have 1 to 1024 bytes"),
    "a short hash in the path of the head": (
        changed(BATCH, 2, [bytes(31)]),
        "batch answer heads inclusion: must have 32 bytes",
    ),
    "no ends": (proof(SIBLINGS, []), "batch answer map proof ends: must have 1 to 1000 items"),
    "1001 ends": (proof(SIBLINGS, [[0, None]] * 1001), "batch answer map proof ends: must have 1 to 1000"),
    "a proof of one list": (changed(BATCH, 3, [SIBLINGS]), "batch answer map proof: must have 2 items"),
    "a short sibling": (proof([bytes(31)], ENDS), "batch answer map proof sibling: must have 32 bytes"),
    "256001 siblings": (
        proof([None] * 256_001, ENDS),
        "batch answer map proof siblings: must have 0 to 256000 items",
    ),
    "an end at depth 257": (
        proof(SIBLINGS, [[257, None]]),
        "batch answer map proof end depth: must be in 0 to 256, is 257",
    ),
    "an end without a leaf": (proof(SIBLINGS, [[0]]), "batch answer map proof end: must have 2 items"),
    "a leaf with a short index": (
        proof(SIBLINGS, [[0, [bytes(31), bytes(32)]]]),
        "batch answer map proof end leaf index: must have 32 bytes",
    ),
    "a leaf with a long hash": (
        proof(SIBLINGS, [[0, [bytes(32), bytes(33)]]]),
        "batch answer map proof end leaf entry hash: must have 32 bytes",
    ),
    "a short VRF proof": (
        answers(changed(ABSENT, 0, bytes(79))),  # type: ignore[arg-type]
        "batch answer label vrf proof: must have 80 bytes",
    ),
    "a fifth field": (answers([*ERASED, None]), "batch answer label: must have 3 to 4 items"),  # type: ignore[misc]
    "an opening of nobody": (
        answers(changed(ABSENT, 2, bytes(16))),  # type: ignore[arg-type]
        "batch answer label opening: opens an absent entry",
    ),
    "a short opening": (
        answers(changed(PRESENT, 2, bytes(15))),  # type: ignore[arg-type]
        "batch answer label opening: must have 16 bytes",
    ),
    "an empty mutation": (
        answers(changed(PRESENT, 1, b"")),  # type: ignore[arg-type]
        "batch answer label mutation: must have 1 to 16384 bytes",
    ),
    "an erasure beside an opening": (
        answers(changed(ERASED, 2, bytes(16))),  # type: ignore[arg-type]
        "batch answer label erasure: stands beside no entry or beside an opening",
    ),
    "an erasure beside absence": (
        answers([*ABSENT, ERASED[3]]),  # type: ignore[misc, index]
        "batch answer label erasure: stands beside no entry or beside an opening",
    ),
    "an erasure that is null": (
        answers(changed(ERASED, 3, None)),  # type: ignore[arg-type]
        "batch answer label erasure: must be an array",
    ),
}


@pytest.mark.parametrize(("values", "problem"), NO_BATCHES.values(), ids=NO_BATCHES.keys())
def test_what_is_no_batch_answer(values: list[Value], problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        BatchAnswer.decode(encode(values))
    assert str(caught.value).startswith(problem)


def test_batch_answers_have_a_limit() -> None:
    with pytest.raises(MalformedError, match="batch answer: must have at most 2883584 bytes"):
        BatchAnswer.decode(bytes(MAX_BATCH_ANSWER + 1))


@pytest.mark.parametrize(
    ("story", "batch", "users"),
    [
        (STORY, example_batch(), ["carol", "alice"]),
        (LONGER_STORY, example_batch_erased(), ["carol", "bob"]),
    ],
)
def test_each_label_has_a_lookup_answer_of_its_own(story, batch: BatchAnswer, users: list[str]) -> None:  # type: ignore[no-untyped-def]
    places = [index(user) for user in users]
    claims = [one.claim(place) for one, place in zip(batch.answers, places, strict=True)]
    root, proofs = expand(claims, batch.map_proof)
    assert root == naive_map.root(story.leaves())
    for at, single in enumerate(proofs):
        alone = batch.lookup(at, single)
        assert LookupAnswer.decode(alone.encode()) == alone
        if alone.erasure is None:
            assert alone == story.answer(users[at])
