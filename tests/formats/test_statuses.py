"""What is no status answer and no receipt file: one fault a case."""

from __future__ import annotations

import pytest

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import MalformedError
from kt_es.formats.codec import Value, decode, encode
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.queue import Verdict
from kt_es.formats.receipts import MAX_RECEIPT_FILE, ReceiptFile
from kt_es.formats.statuses import MAX_STATUS_ANSWER, StatusAnswer
from kt_es.merkle.verify import log_root_from_inclusion
from tests.example_directory import LONGER_STORY, ROTATED
from tests.examples import EXAMPLES


def fields(name: str) -> list[Value]:
    return list(decode(EXAMPLES[name].data, name))  # type: ignore[arg-type]


def changed(values: list[Value], at: int, value: Value) -> list[Value]:
    return [*values[:at], value, *values[at + 1 :]]


STATUS, RECEIPT = fields("status-answer"), fields("receipt-file")
HEADS: list[Value] = list(STATUS[1])  # type: ignore[arg-type]

NO_ANSWERS: dict[str, tuple[list[Value], str]] = {
    "no head": (changed(STATUS, 1, []), "status answer smhs: must have 1 to 2 items"),
    "three heads": (changed(STATUS, 1, [*HEADS, HEADS[0]]), "status answer smhs: must have 1 to 2 items"),
    "an empty head": (changed(STATUS, 1, [b""]), "status answer smh: must have 1 to 1024 bytes"),
    "a long heads proof": (changed(STATUS, 2, [bytes(32)] * 129), "status answer heads proof: must have 0"),
    "a short hash": (changed(STATUS, 2, [bytes(31)]), "status answer heads proof: must have 32 bytes"),
    "a verdict that is none": (changed(STATUS, 6, 5), "status answer verdict: 5 is not a valid Verdict"),
    "a long inclusion": (changed(STATUS, 7, [bytes(32)] * 65), "status answer inclusion: must have 0 to 64"),
    "no checkpoint": (changed(STATUS, 0, ""), "status answer checkpoint: must have 1"),
    "a field less": (STATUS[:7], "status answer: must have 8 items"),
    "a field more": ([*STATUS, 0], "status answer: must have 8 items"),
}


@pytest.mark.parametrize(("values", "problem"), NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_what_is_no_status_answer(values: list[Value], problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        StatusAnswer.decode(encode(values))
    assert str(caught.value).startswith(problem)


NO_RECEIPTS: dict[str, tuple[list[Value], str]] = {
    "another kind": (changed(RECEIPT, 0, "kt-es proof v1"), "receipt file: must begin with 'kt-es receipt"),
    "no origin": (changed(RECEIPT, 1, ""), "receipt file origin: must have 1"),
    "no label": (changed(RECEIPT, 2, ""), "receipt file label: must have 1"),
    "no mutation": (changed(RECEIPT, 3, b""), "receipt file mutation: must have 1"),
    "a short opening": (changed(RECEIPT, 4, bytes(15)), "receipt file opening: must have 16 bytes"),
    "a long profile": (changed(RECEIPT, 5, bytes(512 * 1024 + 1)), "receipt file profile: must have 0"),
    "a field more": ([*RECEIPT, 0], "receipt file: must have 6 items"),
}


@pytest.mark.parametrize(("values", "problem"), NO_RECEIPTS.values(), ids=NO_RECEIPTS.keys())
def test_what_is_no_receipt_file(values: list[Value], problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        ReceiptFile.decode(encode(values))
    assert str(caught.value).startswith(problem)


def test_both_have_limits() -> None:
    with pytest.raises(MalformedError, match="status answer: must have at most 16384 bytes"):
        StatusAnswer.decode(bytes(MAX_STATUS_ANSWER + 1))
    with pytest.raises(MalformedError, match="receipt file: must have at most 1048576 bytes"):
        ReceiptFile.decode(bytes(MAX_RECEIPT_FILE + 1))


def test_the_example_proves_its_record() -> None:
    answer = StatusAnswer.decode(EXAMPLES["status-answer"].data)
    record = answer.record(ROTATED.encode()).encode()
    assert (record, answer.verdict) == (LONGER_STORY.records[4], Verdict.ACCEPTED)
    before, head = (SignedMapHead.decode(smh).head for smh in answer.smhs)
    assert (before.epoch, head.epoch) == (1, 2)
    assert before.log_size <= answer.sequence < head.log_size
    root = log_root_from_inclusion(answer.sequence, head.log_size, log_leaf_hash(record), answer.inclusion)
    assert root == head.log_root
