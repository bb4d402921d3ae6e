"""A directory of two users and two epochs, made by the code from fixed keys: the examples of FORMATS.

Its bytes are pinned in tests/vectors/formats.json. After an intended change of a format,
``python -m tests.examples > tests/vectors/formats.json`` writes them anew; the difference is to be read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.epochs import Current, Epoch, Standing, close, decide, decode_standing, encode_standing, parse
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
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.evidence import Evidence, EvidenceKind, ProvenEntry
from kt_es.formats.heads import (
    Checkpoint,
    HeadEvent,
    MapHead,
    SignedMapHead,
    heads_origin,
    mutations_origin,
    sign_checkpoint,
)
from kt_es.formats.proofs import ErasureProof, LookupAnswer, ProofFile, decode_configs, encode_configs
from kt_es.formats.queue import (
    CONFIG,
    EPOCH_MARKER,
    ERASURE,
    MUTATIONS,
    Marker,
    Record,
    RecordPacker,
    decode_mutations,
    decode_records,
    encode_mutations,
    encode_records,
    items_of,
)
from kt_es.formats.ranges import RangeAnswer, RangeEpoch
from kt_es.formats.snapshots import SnapshotHeader, SnapshotRow, decode_rows, encode_rows
from kt_es.ledger.rows import Committed
from kt_es.merkle.log import LogState
from kt_es.merkle.map import Root
from tests.builders import (
    ORIGIN,
    SIGNER,
    SIGNER_KEY,
    START,
    VRF,
    index,
    label_of,
    marker,
    mutation,
    next_mutation,
    opening,
    opening_event,
    p256_key,
    private_key,
    profile,
    public,
    signed_config,
)
from tests.reference import naive_log, naive_map

ALICE = mutation("alice")
BOB = mutation("bob")
PHONE = p256_key("alice phone")
ROTATED = next_mutation("alice", ALICE, keys=[PHONE], signed_by=[private_key("alice"), PHONE])
OVERSIZE = bytes(20_000)

QUEUE: list[tuple[str, bytes]] = [
    (CONFIG, signed_config().encode()),
    (MUTATIONS, encode_mutations([ALICE.encode(), BOB.encode()])),
    (EPOCH_MARKER, marker(START + 1_000).encode()),
    (MUTATIONS, encode_mutations([ROTATED.encode(), b"garbage"])),
    ("Greeting", OVERSIZE),
    (EPOCH_MARKER, marker(START + 2_000).encode()),
]

BOBS_ERASURE = Erasure.sign(index("bob"), BOB.entry_hash, ErasureReason.OWNER, ORIGIN, private_key("bob"))

# A third epoch, which the sections about erasures, ranges and evidence need.
LONGER_QUEUE = [
    *QUEUE,
    (ERASURE, BOBS_ERASURE.encode()),
    (EPOCH_MARKER, marker(START + 3_000).encode()),
]


@dataclass
class Story:
    """What the signer makes of ``queue``."""

    queue: list[tuple[str, bytes]] = field(default_factory=lambda: QUEUE)
    standing: Standing = field(default_factory=lambda: Standing(ORIGIN, SIGNER_KEY))
    map: dict[bytes, Mutation] = field(default_factory=dict)
    records: list[bytes] = field(default_factory=list)
    records_events: list[bytes] = field(default_factory=list)
    smhs: list[bytes] = field(default_factory=list)
    head_events: list[bytes] = field(default_factory=list)

    def leaves(self) -> dict[bytes, bytes]:
        return {place: held.entry_hash for place, held in self.map.items()}

    def run(self) -> Story:
        packer = RecordPacker(0)
        epoch, staged = Epoch.after(self.standing), dict[bytes, Mutation]()
        for revision, (event_type, data) in enumerate(self.queue):
            for item in items_of(revision, event_type, data):
                parsed = parse(item)
                before = self.map.get(parsed.entry.index) if isinstance(parsed, Mutation) else None
                if isinstance(parsed, Erasure):
                    before = self.map.get(parsed.index)
                current = None if before is None else Current(before.entry, before.entry_hash)
                record = Record(len(self.records), item, decide(epoch, parsed, current))
                self.records.append(record.encode())
                self.records_events += packer.add(record.encode(), closes_epoch=record.closes_epoch)
                if isinstance(parsed, Mutation) and record.verdict.succeeded:
                    staged[parsed.entry.index] = parsed
                if record.closes_epoch:
                    self.map |= staged
                    self._publish(epoch, revision + 1)
                    epoch, staged = Epoch.after(self.standing), {}
        return self

    def _publish(self, epoch: Epoch, queue_next: int) -> None:
        hashes = [log_leaf_hash(record) for record in self.records]
        head, self.standing = close(
            epoch,
            map_root=naive_map.root(self.leaves()),
            map_size=len(self.map),
            log_size=len(hashes),
            log_root=naive_log.root(hashes),
            queue_next=queue_next,
        )
        smh = SignedMapHead.sign(head, SIGNER).encode()
        self.smhs.append(smh)
        mutations_log = mutations_origin(ORIGIN)
        mutations = Checkpoint(mutations_log, len(hashes), naive_log.root(hashes))
        self.head_events.append(
            HeadEvent(
                smh, self.heads_checkpoint(), sign_checkpoint(mutations, mutations_log, SIGNER)
            ).encode()
        )

    def heads_checkpoint(self) -> str:
        heads_log = heads_origin(ORIGIN)
        root = naive_log.root([log_leaf_hash(smh) for smh in self.smhs])
        return sign_checkpoint(Checkpoint(heads_log, len(self.smhs), root), heads_log, SIGNER)

    def answer(self, user: str, *, erased: ErasureProof | None = None) -> LookupAnswer:
        """The answer to a lookup of ``user`` in the last epoch."""
        held = self.map.get(index(user))
        heads = [log_leaf_hash(smh) for smh in self.smhs]
        return LookupAnswer(
            self.heads_checkpoint(),
            self.smhs[-1],
            tuple(naive_log.inclusion(len(heads) - 1, heads)),
            VRF.prove(label_of(user).encode())[1],
            naive_map.prove(self.leaves(), index(user)),
            held,
            None if held is None or erased else opening(user, held.entry.version),
            erased,
        )

    def erasure_proof(self, sequence: int) -> ErasureProof:
        """The proof of the erasure at ``sequence``, which the last epoch decided."""
        hashes = [log_leaf_hash(record) for record in self.records]
        return ErasureProof(self.records[sequence], tuple(naive_log.inclusion(sequence, hashes)), None, ())

    def range_of(self, user: str, first: int, held: Sequence[dict[bytes, Mutation]]) -> RangeAnswer:
        """The answer about ``user`` in the epochs from ``first`` on, whose maps are ``held``."""
        carried = list(dict.fromkeys(entries[index(user)] for entries in held if index(user) in entries))
        epochs = []
        for smh, entries in zip(self.smhs[first - 1 :], held, strict=False):
            proof = naive_map.prove({place: one.entry_hash for place, one in entries.items()}, index(user))
            mine = entries.get(index(user))
            epochs.append(RangeEpoch(smh, proof, None if mine is None else carried.index(mine)))
        heads = [log_leaf_hash(smh) for smh in self.smhs]
        return RangeAnswer(
            self.heads_checkpoint(),
            VRF.prove(label_of(user).encode())[1],
            tuple(carried),
            first,
            tuple(naive_log.range_proof(first - 1, first - 1 + len(epochs), heads)),
            tuple(epochs),
        )


STORY = Story().run()
LONGER_STORY = Story(LONGER_QUEUE).run()
ERASED_SEQUENCE = 8

HEAD = SignedMapHead.decode(STORY.smhs[-1]).head
COMMITTED = Committed(
    STORY.standing,
    Root(2, HEAD.map_root, HEAD.map_size),
    LogState().append([log_leaf_hash(record) for record in STORY.records])[0],
    LogState().append([log_leaf_hash(smh) for smh in STORY.smhs])[0],
    HEAD.queue_next,
    len(STORY.records_events),
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


def forged_smh(epoch: int, **changes: object) -> bytes:
    """A head of ``epoch`` that the signer signed beside the published one."""
    head = SignedMapHead.decode(LONGER_STORY.smhs[epoch - 1]).head
    return SignedMapHead.sign(replace(head, **changes), SIGNER).encode()  # type: ignore[arg-type]


def evidence_of_heads() -> Evidence:
    """Two heads of epoch 2."""
    statements = (STORY.smhs[1], forged_smh(2, map_root=bytes(32)))
    return Evidence(EvidenceKind.HEADS, ORIGIN, (signed_config(),), statements)


def evidence_of_entries() -> Evidence:
    """Alice's second version in epoch 2, her first one again in epoch 3."""
    back = {index("alice"): ALICE.entry_hash, index("bob"): BOB.entry_hash}
    statements = (STORY.smhs[1], forged_smh(3, map_root=naive_map.root(back)))
    entries = (
        ProvenEntry(ROTATED.entry, ROTATED.entry_bytes, naive_map.prove(STORY.leaves(), index("alice"))),
        ProvenEntry(ALICE.entry, ALICE.entry_bytes, naive_map.prove(back, index("alice"))),
    )
    configs = (signed_config(),)
    return Evidence(EvidenceKind.ENTRIES, ORIGIN, configs, statements, index("alice"), entries)


def example_range() -> RangeAnswer:
    """Alice in the first two of three epochs."""
    places = (index("alice"), index("bob"))
    return LONGER_STORY.range_of(
        "alice",
        1,
        [dict(zip(places, (ALICE, BOB), strict=True)), dict(zip(places, (ROTATED, BOB), strict=True))],
    )


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
        "range-answer": Example("range-answer", example_range().encode(), _range_again),
        "evidence-heads": Example("evidence", evidence_of_heads().encode(), _evidence_again),
        "evidence-entries": Example("evidence", evidence_of_entries().encode(), _evidence_again),
        "proof-file": Example("proof-file", proof.encode(), _proof_file_again),
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
