"""Evidence of every kind, one fault in each that does not convict: tests/vectors/evidence.json.

``python -m tests.evidences > tests/vectors/evidence.json`` writes the vectors anew after an intended change.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace

from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.entries import Mutation
from kt_es.formats.evidence import Evidence, EvidenceKind, ProvenEntry
from kt_es.formats.heads import Checkpoint, SignedMapHead, heads_origin, mutations_origin, sign_checkpoint
from kt_es.merkle.verify import MapProof
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    SIGNER,
    config,
    index,
    mutation,
    next_mutation,
    private_key,
    signed_config,
)
from tests.example_directory import (
    ALICE,
    BOB,
    HEAD,
    LONGER_STORY,
    ROTATED,
    STORY,
    evidence_of_entries,
    evidence_of_heads,
    forged_smh,
)
from tests.reference import naive_map

MALLORY = private_key("mallory")
SUCCESSOR = private_key("successor")
FIRST = signed_config()
CHAIN = (FIRST,)
CHANGED = signed_config(config(signer_keys=[SUCCESSOR], previous=FIRST.config.hash), [SIGNER, SUCCESSOR])
SMHS = LONGER_STORY.smhs


@dataclass(frozen=True)
class Case:
    """``sentence`` is what the evidence proves; where it proves nothing, ``problem`` says why."""

    evidence: Evidence
    sentence: str | None = None
    problem: str | None = None


def heads(first: bytes, second: bytes, configs: tuple[SignedConfig, ...] = CHAIN) -> Evidence:
    return Evidence(EvidenceKind.HEADS, ORIGIN, configs, (first, second))


def signed_head(key: object = SIGNER, **changes: object) -> bytes:
    """The head of epoch 2 with some fields changed, signed by ``key``."""
    head = replace(HEAD, **changes)  # type: ignore[arg-type]
    return SignedMapHead.sign(head, key).encode()  # type: ignore[arg-type]


def note(log: str, size: int, root: bytes, key: object = SIGNER) -> bytes:
    return sign_checkpoint(Checkpoint(log, size, root), log, key).encode()  # type: ignore[arg-type]


def checkpoints(first: bytes, second: bytes) -> Evidence:
    return Evidence(EvidenceKind.CHECKPOINTS, ORIGIN, CHAIN, (first, second))


def head_checkpoint(checkpoint: bytes, smh: bytes = STORY.smhs[1]) -> Evidence:
    return Evidence(EvidenceKind.HEAD_CHECKPOINT, ORIGIN, CHAIN, (smh, checkpoint))


def configs(first: SignedConfig, second: SignedConfig) -> Evidence:
    return Evidence(EvidenceKind.CONFIGS, ORIGIN, CHAIN, (first.encode(), second.encode()))


def change(made: Config | None = None, **changes: object) -> SignedConfig:
    """A change of the first config, signed as it has to be."""
    values: dict[str, object] = {"previous": FIRST.config.hash, **changes}
    return signed_config(config(**values) if made is None else made)  # type: ignore[arg-type]


def held(
    held_first: Mutation | None, held_then: Mutation | None, *, epochs: tuple[int, int] = (2, 3)
) -> Evidence:
    """Alice's entry in the maps of two heads; Bob's stands beside it."""
    statements, entries = [], []
    for epoch, one in zip(epochs, (held_first, held_then), strict=True):
        leaves = {index("bob"): BOB.entry_hash}
        if one is not None:
            leaves[index("alice")] = one.entry_hash
        statements.append(forged_smh(epoch, map_root=naive_map.root(leaves)))
        entries.append(
            ProvenEntry(
                None if one is None else one.entry,
                None if one is None else one.entry_bytes,
                naive_map.prove(leaves, index("alice")),
            )
        )
    first, second = statements
    return Evidence(
        EvidenceKind.ENTRIES, ORIGIN, CHAIN, (first, second), index("alice"), (entries[0], entries[1])
    )


def with_entry(evidence: Evidence, shown: ProvenEntry) -> Evidence:
    """``evidence`` with another first entry."""
    assert evidence.entries is not None
    return replace(evidence, entries=(shown, evidence.entries[1]))


HEADS_LOG, MUTATIONS_LOG = heads_origin(ORIGIN), mutations_origin(ORIGIN)
ROOT, OTHER = bytes(32), bytes([1]) * 32
ANOTHER_ALICE = mutation("alice", commits_to=OTHER)
THIRD = next_mutation("alice", ROTATED)
AFTER_ANOTHER = next_mutation("alice", ANOTHER_ALICE)
UNDER_CHANGE = {"config_hash": CHANGED.config.hash}
LATER = {"epoch": 3, "log_size": 10, "queue_next": 8, "timestamp": HEAD.timestamp + 1}
NOT_SIGNED = "map head: is not signed by the directory's key"
NO_TWO = "the statements are not two signed checkpoints of one log of this directory"
NOT_TWO_LOGS = "the checkpoints do not contradict each other"
SAME_PLACE = "at one index, epoch 3 "

CASES: dict[str, Case] = {
    "heads: two of one epoch": Case(
        evidence_of_heads(), "the directory signed two different heads of epoch 2"
    ),
    "heads: the later one first": Case(
        heads(SMHS[2], signed_head(timestamp=HEAD.timestamp + 9_000)),
        "the head of epoch 3 is not later than the head of epoch 2",
    ),
    "heads: not later": Case(
        heads(SMHS[1], signed_head(**{**LATER, "timestamp": HEAD.timestamp})),
        "the head of epoch 3 is not later than the head of epoch 2",
    ),
    "heads: no more records": Case(
        heads(SMHS[1], signed_head(**{**LATER, "log_size": HEAD.log_size})),
        "the head of epoch 3 has no more records than the head of epoch 2",
    ),
    "heads: no more of the queue": Case(
        heads(SMHS[1], signed_head(**{**LATER, "queue_next": HEAD.queue_next})),
        "the head of epoch 3 has no more records than the head of epoch 2",
    ),
    "heads: fewer entries": Case(
        heads(SMHS[1], signed_head(**{**LATER, "map_size": HEAD.map_size - 1})),
        "the head of epoch 3 has fewer entries than the head of epoch 2",
    ),
    "heads: an older config": Case(
        heads(signed_head(SUCCESSOR, **UNDER_CHANGE), signed_head(**LATER), (FIRST, CHANGED)),
        "the head of epoch 3 is under an older config than the head of epoch 2",
    ),
    "heads: one twice": Case(heads(SMHS[1], SMHS[1]), problem="evidence: both statements are the same head"),
    "heads: one after the other": Case(
        heads(SMHS[1], SMHS[2]),
        problem="evidence: the heads of epochs 2 and 3 do not contradict each other",
    ),
    "heads: a newer config": Case(
        heads(SMHS[1], signed_head(SUCCESSOR, **UNDER_CHANGE, **LATER), (FIRST, CHANGED)),
        problem="evidence: the heads of epochs 2 and 3 do not contradict each other",
    ),
    "heads: one signed by somebody else": Case(
        heads(SMHS[1], signed_head(MALLORY, map_root=OTHER)), problem=NOT_SIGNED
    ),
    "heads: one signed by a later key": Case(
        heads(SMHS[1], signed_head(SUCCESSOR, map_root=OTHER), (FIRST, CHANGED)), problem=NOT_SIGNED
    ),
    "heads: one of another directory": Case(
        heads(SMHS[1], signed_head(origin=OTHER_ORIGIN)),
        problem=f"map head: is for {OTHER_ORIGIN}, not for {ORIGIN}",
    ),
    "heads: one under an unknown config": Case(
        heads(SMHS[1], signed_head(config_hash=OTHER)),
        problem="evidence: the head of epoch 2 names a config that is not in the chain",
    ),
    "heads: one that is none": Case(
        heads(SMHS[1], b"\x80"), problem="evidence: signed map head: must have 2 items, has 0"
    ),
    "heads: a chain without its beginning": Case(
        heads(SMHS[1], forged_smh(2, map_root=OTHER), (CHANGED,)),
        problem="config: is a change of another one, not the first of a directory",
    ),
    "heads: a chain of another directory": Case(
        replace(heads(SMHS[1], forged_smh(2, map_root=OTHER)), origin=OTHER_ORIGIN),
        problem=f"config: is for {ORIGIN}, not for {OTHER_ORIGIN}",
    ),
    "heads: a chain with a gap": Case(
        heads(SMHS[1], forged_smh(2, map_root=OTHER), (FIRST, change(previous=OTHER))),
        problem="config: does not name the config in force as its predecessor",
    ),
    "checkpoints: of the log of heads": Case(
        checkpoints(note(HEADS_LOG, 2, ROOT), note(HEADS_LOG, 2, OTHER)),
        f"the directory signed two different logs of 2 leaves under the name {HEADS_LOG}",
    ),
    "checkpoints: of the log of mutations": Case(
        checkpoints(note(MUTATIONS_LOG, 8, ROOT), note(MUTATIONS_LOG, 8, OTHER)),
        f"the directory signed two different logs of 8 leaves under the name {MUTATIONS_LOG}",
    ),
    "checkpoints: one root": Case(
        checkpoints(note(HEADS_LOG, 2, ROOT), note(HEADS_LOG, 2, ROOT)), problem=f"evidence: {NOT_TWO_LOGS}"
    ),
    "checkpoints: two sizes": Case(
        checkpoints(note(HEADS_LOG, 2, ROOT), note(HEADS_LOG, 3, OTHER)), problem=f"evidence: {NOT_TWO_LOGS}"
    ),
    "checkpoints: two logs": Case(
        checkpoints(note(HEADS_LOG, 2, ROOT), note(MUTATIONS_LOG, 2, OTHER)), problem=f"evidence: {NO_TWO}"
    ),
    "checkpoints: one signed by somebody else": Case(
        checkpoints(note(HEADS_LOG, 2, ROOT), note(HEADS_LOG, 2, OTHER, MALLORY)),
        problem=f"evidence: {NO_TWO}",
    ),
    "checkpoints: one that is none": Case(
        checkpoints(note(HEADS_LOG, 2, ROOT), b"\xff"), problem="evidence: note: is not valid UTF-8"
    ),
    "head-checkpoint: another log": Case(
        head_checkpoint(note(MUTATIONS_LOG, HEAD.log_size, OTHER)),
        "the head of epoch 2 and a checkpoint name two different logs of 8 records",
    ),
    "head-checkpoint: the same log": Case(
        head_checkpoint(note(MUTATIONS_LOG, HEAD.log_size, HEAD.log_root)),
        problem="evidence: head and checkpoint do not contradict each other",
    ),
    "head-checkpoint: another size": Case(
        head_checkpoint(note(MUTATIONS_LOG, HEAD.log_size + 1, OTHER)),
        problem="evidence: head and checkpoint do not contradict each other",
    ),
    "head-checkpoint: a checkpoint by somebody else": Case(
        head_checkpoint(note(MUTATIONS_LOG, HEAD.log_size, OTHER, MALLORY)),
        problem="checkpoint: no signature is by a known key",
    ),
    "head-checkpoint: the log of heads": Case(
        head_checkpoint(note(HEADS_LOG, HEAD.log_size, OTHER)),
        problem="checkpoint: no signature is by a known key",
    ),
    "head-checkpoint: a head by somebody else": Case(
        head_checkpoint(note(MUTATIONS_LOG, HEAD.log_size, OTHER), signed_head(MALLORY)), problem=NOT_SIGNED
    ),
    "configs: two that follow one": Case(
        configs(change(min_interval=1), change(min_interval=2)),
        "the directory signed two different configs that follow the same one",
    ),
    "configs: one twice": Case(
        configs(change(), change()), problem="evidence: both statements are the same config"
    ),
    "configs: one that follows another": Case(
        configs(change(min_interval=1), change(previous=OTHER)),
        problem="config: does not name the config in force as its predecessor",
    ),
    "configs: one by somebody else": Case(
        configs(change(min_interval=1), signed_config(config(previous=FIRST.config.hash), [MALLORY])),
        problem="config: is not signed by the signer key in force",
    ),
    "configs: one that is no valid change": Case(
        configs(change(min_interval=1), change(label_policy="text")),
        problem="config: may not change the label policy",
    ),
    "entries: a version goes back": Case(
        evidence_of_entries(), SAME_PLACE + "has version 1, though version 2 stood there in epoch 2"
    ),
    "entries: the later one first": Case(
        held(ALICE, ROTATED, epochs=(3, 2)),
        SAME_PLACE + "has version 1, though version 2 stood there in epoch 2",
    ),
    "entries: it vanishes": Case(
        held(ROTATED, None), SAME_PLACE + "has no entry, though version 2 stood there in epoch 2"
    ),
    "entries: one version, two entries": Case(
        held(ALICE, ANOTHER_ALICE),
        SAME_PLACE + "has another version 1 than the one that stood there in epoch 2",
    ),
    "entries: another predecessor": Case(
        held(ALICE, AFTER_ANOTHER),
        SAME_PLACE + "has a version 2 that does not follow version 1 as it stood there in epoch 2",
    ),
    "entries: it stays": Case(
        held(ALICE, ALICE), problem="evidence: the entries do not contradict each other"
    ),
    "entries: the next version": Case(
        held(ALICE, ROTATED), problem="evidence: the entries do not contradict each other"
    ),
    "entries: two versions later": Case(
        held(ALICE, THIRD), problem="evidence: the entries do not contradict each other"
    ),
    "entries: it appears": Case(
        held(None, ALICE), problem="evidence: the entries do not contradict each other"
    ),
    "entries: a proof of another map": Case(
        replace(held(ROTATED, None), statements=(STORY.smhs[0], SMHS[2])),
        problem="evidence: a proof does not lead to the map root of epoch 1",
    ),
    "entries: a proof that cannot be": Case(
        with_entry(held(None, None), ProvenEntry(None, None, MapProof((None,), None))),
        problem="map: an empty subtree stands beside another one",
    ),
    "entries: an absence that shows the entry": Case(
        with_entry(
            held(ROTATED, None),
            ProvenEntry(None, None, naive_map.prove(STORY.leaves(), index("alice"))),
        ),
        problem="evidence: a proof of absence shows an entry",
    ),
    "entries: a head by somebody else": Case(
        replace(held(ROTATED, None), statements=(signed_head(MALLORY), SMHS[2])), problem=NOT_SIGNED
    ),
}


def as_json() -> str:
    return (
        json.dumps(
            {
                name: {
                    "evidence": case.evidence.encode().hex(),
                    **({"convicts": case.sentence} if case.sentence else {"problem": case.problem}),
                }
                for name, case in CASES.items()
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    sys.stdout.write(as_json())
