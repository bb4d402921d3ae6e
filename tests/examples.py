"""One example of each format, from the directory in ``example_directory.py``: the examples of FORMATS.

Their bytes are pinned in tests/vectors/formats.json. After an intended change of a format,
``python -m tests.examples > tests/vectors/formats.json`` writes them anew; the difference is to be read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from kt_es.epochs import decode_standing, encode_standing
from kt_es.formats.batches import BatchAnswer
from kt_es.formats.codec import decode, encode
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.entries import (
    Entry,
    Mutation,
    Opening,
    decode_erased,
    decode_profile,
    encode_erased,
    encode_profile,
    take_public_key,
)
from kt_es.formats.erasures import Erasure
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import (
    HeadEvent,
    MapHead,
    SignedMapHead,
)
from kt_es.formats.proofs import LookupAnswer, ProofFile, decode_configs, encode_configs
from kt_es.formats.queue import (
    Marker,
    Record,
    decode_mutations,
    decode_records,
    encode_mutations,
    encode_records,
)
from kt_es.formats.ranges import RangeAnswer
from kt_es.formats.receipts import ReceiptFile
from kt_es.formats.snapshots import SnapshotHeader, SnapshotRow, decode_rows, encode_rows
from kt_es.formats.statuses import StatusAnswer
from kt_es.ledger.rows import Committed
from kt_es.merkle.verify import MapProof
from tests.builders import (
    ORIGIN,
    SIGNER_KEY,
    START,
    label_of,
    opening,
    opening_event,
    private_key,
    profile,
    public,
    signed_config,
)
from tests.example_directory import (
    ALICE,
    BOB,
    BOBS_ERASURE,
    COMMITTED,
    ERASED_SEQUENCE,
    LONGER_STORY,
    PHONE,
    QUEUE,
    ROTATED,
    STORY,
    evidence_of_entries,
    evidence_of_heads,
    example_batch,
    example_batch_erased,
    example_range,
)


@dataclass(frozen=True)
class Example:
    """Encoded ``data`` that matches the CDDL ``rule``; ``again`` decodes and encodes."""

    rule: str
    data: bytes
    again: Callable[[bytes], bytes]


def _records_again(data: bytes) -> bytes:
    first, records = decode_records(data)
    return encode_records(first, [Record.decode(record).encode() for record in records])


def _marker_payload_again(data: bytes) -> bytes:
    return Marker.decode(encode([data, bytes(64)])).marker_bytes


def _erasure_payload_again(data: bytes) -> bytes:
    return Erasure.decode(encode([data, SIGNER_KEY.fields(), bytes(64)])).erasure_bytes


def _head_event_again(data: bytes) -> bytes:
    event = HeadEvent.decode(data)
    assert SignedMapHead.decode(event.smh_bytes).encode() == event.smh_bytes
    return event.encode()


def _smh_again(data: bytes) -> None:
    assert SignedMapHead.decode(data).encode() == data


def _answer_again(data: bytes) -> bytes:
    answer = LookupAnswer.decode(data)
    _smh_again(answer.smh_bytes)
    if answer.erasure is not None:
        assert Record.decode(answer.erasure.record_bytes).encode() == answer.erasure.record_bytes
        if answer.erasure.smh_bytes is not None:
            _smh_again(answer.erasure.smh_bytes)
    return answer.encode()


def _range_again(data: bytes) -> bytes:
    answer = RangeAnswer.decode(data)
    for epoch in answer.epochs:
        _smh_again(epoch.smh_bytes)
    return answer.encode()


def _status_again(data: bytes) -> bytes:
    answer = StatusAnswer.decode(data)
    for smh in answer.smhs:
        _smh_again(smh)
    return answer.encode()


def _batch_again(data: bytes) -> bytes:
    answer = BatchAnswer.decode(data)
    _smh_again(answer.smh_bytes)
    for at in range(len(answer.answers)):
        _answer_again(answer.lookup(at, MapProof((), None)).encode())
    return answer.encode()


def _evidence_again(data: bytes) -> bytes:
    return Evidence.decode(data).encode()


def _proof_file_again(data: bytes) -> bytes:
    proof = ProofFile.decode(data)
    _answer_again(proof.answer.encode())
    return proof.encode()


def _standing_again(data: bytes) -> bytes:
    return encode_standing(decode_standing(data, ORIGIN, SIGNER_KEY))


def _committed_again(data: bytes) -> bytes:
    return Committed.decode(data, ORIGIN, SIGNER_KEY).encode()


def _configs_again(data: bytes) -> bytes:
    return encode_configs(decode_configs(data))


def _key_again(data: bytes) -> bytes:
    return encode(take_public_key(decode(data, "public key"), "public key").fields())


def _answer_example(answer: LookupAnswer) -> Example:
    return Example("lookup-answer", answer.encode(), _answer_again)


def _record_example(sequence: int) -> Example:
    return Example("record", STORY.records[sequence], lambda data: Record.decode(data).encode())


def _examples() -> dict[str, Example]:
    keys = [public(private_key("alice")), public(PHONE)]
    proof = ProofFile(
        ORIGIN,
        label_of("alice"),
        (signed_config(),),
        STORY.answer("alice"),
        profile("alice", 2),
        START + 3_000,
    )
    receipt = ReceiptFile(ORIGIN, label_of("alice"), ROTATED, opening("alice", 2), profile("alice", 2))
    mark = Marker.decode(QUEUE[2][1])
    header = SnapshotHeader(COMMITTED.encode(), STORY.head_events[1], (signed_config().encode(),))
    rows = [
        SnapshotRow(BOB.entry.index, 1, 2, BOB.encode()),
        SnapshotRow(ROTATED.entry.index, 2, 4, ROTATED.encode()),
    ]
    smh = SignedMapHead.decode(STORY.smhs[1])
    return {
        "public-key-ed25519": Example("public-key", encode(keys[0].fields()), _key_again),
        "public-key-p256": Example("public-key", encode(keys[1].fields()), _key_again),
        "config": Example("config", signed_config().config_bytes, lambda data: Config.decode(data).encode()),
        "signed-config": Example(
            "signed-config", QUEUE[0][1], lambda data: SignedConfig.decode(data).encode()
        ),
        "configs": Example("configs", encode_configs([signed_config()]), _configs_again),
        "profile": Example("profile", profile("alice"), lambda data: encode_profile(decode_profile(data))),
        "opening": Example(
            "opening-event", opening_event("alice").encode(), lambda data: Opening.decode(data).encode()
        ),
        "opening-erased": Example(
            "opening-erased-event",
            encode_erased(BOB.entry_hash),
            lambda data: encode_erased(decode_erased(data)),
        ),
        "entry": Example("entry", ALICE.entry_bytes, lambda data: Entry.decode(data).encode()),
        "mutation": Example("mutation", ALICE.encode(), lambda data: Mutation.decode(data).encode()),
        "mutation-rotation": Example(
            "mutation", ROTATED.encode(), lambda data: Mutation.decode(data).encode()
        ),
        "mutations-event": Example(
            "mutations-event", QUEUE[3][1], lambda data: encode_mutations(decode_mutations(data))
        ),
        "marker-payload": Example("marker-payload", mark.marker_bytes, _marker_payload_again),
        "marker": Example("marker", mark.encode(), lambda data: Marker.decode(data).encode()),
        "erasure-payload": Example("erasure-payload", BOBS_ERASURE.erasure_bytes, _erasure_payload_again),
        "erasure": Example("erasure", BOBS_ERASURE.encode(), lambda data: Erasure.decode(data).encode()),
        "record-malformed": _record_example(5),
        "record-digest": _record_example(6),
        "record-marker": _record_example(7),
        "record-erased": Example(
            "record",
            LONGER_STORY.records[ERASED_SEQUENCE],
            lambda data: Record.decode(data).encode(),
        ),
        "records-event": Example("records-event", STORY.records_events[1], _records_again),
        "map-head": Example("map-head", smh.head_bytes, lambda data: MapHead.decode(data).encode()),
        "smh": Example("smh", smh.encode(), lambda data: SignedMapHead.decode(data).encode()),
        "head-event": Example("head-event", STORY.head_events[1], _head_event_again),
        "answer-present": _answer_example(STORY.answer("alice")),
        "answer-erased": _answer_example(
            LONGER_STORY.answer("bob", erased=LONGER_STORY.erasure_proof(ERASED_SEQUENCE))
        ),
        "answer-absent": _answer_example(STORY.answer("carol")),
        "batch-answer": Example("batch-answer", example_batch().encode(), _batch_again),
        "batch-answer-erased": Example("batch-answer", example_batch_erased().encode(), _batch_again),
        "range-answer": Example("range-answer", example_range().encode(), _range_again),
        "status-answer": Example(
            "status-answer",
            LONGER_STORY.status_of(4, 2).encode(),
            _status_again,
        ),
        "evidence-heads": Example("evidence", evidence_of_heads().encode(), _evidence_again),
        "evidence-entries": Example("evidence", evidence_of_entries().encode(), _evidence_again),
        "proof-file": Example("proof-file", proof.encode(), _proof_file_again),
        "receipt-file": Example(
            "receipt-file", receipt.encode(), lambda data: ReceiptFile.decode(data).encode()
        ),
        "standing": Example("standing", encode_standing(STORY.standing), _standing_again),
        "committed": Example("committed", COMMITTED.encode(), _committed_again),
        "snapshot-header": Example(
            "snapshot-header", header.encode(), lambda data: SnapshotHeader.decode(data).encode()
        ),
        "snapshot-entries": Example(
            "snapshot-entries", encode_rows(rows), lambda data: encode_rows(decode_rows(data))
        ),
    }


EXAMPLES = _examples()


def as_json() -> str:
    return json.dumps({name: made.data.hex() for name, made in EXAMPLES.items()}, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_json())
