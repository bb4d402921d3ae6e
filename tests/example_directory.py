"""A directory of two users and two epochs, made by the code from fixed keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.epochs import Current, Epoch, Standing, close, decide, parse
from kt_es.formats.batches import BatchAnswer, LabelAnswer
from kt_es.formats.entries import (
    Mutation,
)
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.evidence import Evidence, EvidenceKind, ProvenEntry
from kt_es.formats.heads import (
    Checkpoint,
    HeadEvent,
    SignedMapHead,
    heads_origin,
    mutations_origin,
    sign_checkpoint,
)
from kt_es.formats.proofs import ErasureProof, LookupAnswer
from kt_es.formats.queue import (
    CONFIG,
    EPOCH_MARKER,
    ERASURE,
    MUTATIONS,
    Record,
    RecordPacker,
    encode_mutations,
    items_of,
)
from kt_es.formats.ranges import RangeAnswer, RangeEpoch
from kt_es.formats.statuses import StatusAnswer
from kt_es.ledger.rows import Committed
from kt_es.merkle.log import LogState
from kt_es.merkle.map import Root
from kt_es.merkle.multiproof import combine
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
    p256_key,
    private_key,
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

    def batch(self, users: Sequence[str], erased: dict[str, ErasureProof]) -> BatchAnswer:
        """The answer to a batch lookup of ``users`` in the last epoch."""
        answers = [self.answer(user, erased=erased.get(user)) for user in users]
        proof = combine([(index(user), one.map_proof) for user, one in zip(users, answers, strict=True)])
        parts = [LabelAnswer(one.vrf_proof, one.mutation, one.opening, one.erasure) for one in answers]
        first = answers[0]
        return BatchAnswer(
            first.heads_checkpoint, first.smh_bytes, first.heads_inclusion, proof, tuple(parts)
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

    def status_of(self, sequence: int, epoch: int) -> StatusAnswer:
        """The answer about the mutation of the record ``sequence``, which ``epoch`` decided."""
        record, heads = Record.decode(self.records[sequence]), [log_leaf_hash(smh) for smh in self.smhs]
        size, first = SignedMapHead.decode(self.smhs[epoch - 1]).head.log_size, max(1, epoch - 1)
        leaves = [log_leaf_hash(data) for data in self.records[:size]]
        return StatusAnswer(
            self.heads_checkpoint(),
            tuple(self.smhs[first - 1 : epoch]),
            tuple(naive_log.range_proof(first - 1, epoch, heads)),
            sequence,
            record.item.revision,
            record.item.position,
            record.verdict,
            tuple(naive_log.inclusion(sequence, leaves)),
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


def example_batch() -> BatchAnswer:
    """Carol, who is absent, and Alice in the second epoch. Both paths end at Alice's leaf."""
    return STORY.batch(["carol", "alice"], {})


def example_batch_erased() -> BatchAnswer:
    """Carol, whose path ends at Alice's leaf, and Bob, whose profile was erased, in the third epoch."""
    return LONGER_STORY.batch(["carol", "bob"], {"bob": LONGER_STORY.erasure_proof(ERASED_SEQUENCE)})


def example_range() -> RangeAnswer:
    """Alice in the first two of three epochs."""
    places = (index("alice"), index("bob"))
    return LONGER_STORY.range_of(
        "alice",
        1,
        [dict(zip(places, (ALICE, BOB), strict=True)), dict(zip(places, (ROTATED, BOB), strict=True))],
    )
