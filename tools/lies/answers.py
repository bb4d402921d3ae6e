"""The answers of a front end about a universe: the HTTP interface as values that become JSON."""

from __future__ import annotations

import base64
from typing import Any

from kt_es.crypto.hashes import sha256
from kt_es.crypto.vrf import index_of
from kt_es.formats.batches import BatchAnswer, LabelAnswer
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.proofs import ErasureProof, LookupAnswer, encode_configs
from kt_es.formats.queue import Record, Verdict
from kt_es.formats.ranges import RangeAnswer, RangeEpoch
from kt_es.formats.statuses import StatusAnswer
from kt_es.merkle.log import plan_consistency, plan_inclusion, plan_range
from kt_es.merkle.multiproof import combine
from tools.lies import people
from tools.lies.people import ORIGIN
from tools.lies.trees import prove
from tools.lies.universe import Universe

Json = dict[str, Any]


def text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def binary(data: str) -> bytes:
    return base64.b64decode(data)


def texts(values: tuple[bytes, ...]) -> list[str | None]:
    return [text(value) for value in values]


def directory(universe: Universe) -> Json:
    return {
        "origin": ORIGIN,
        "directory": "people",
        "label_policy": "email",
        "configs": text(encode_configs(universe.configs)),
    }


def lookup(universe: Universe, body: Json) -> Json:
    label, size = body["label"], len(universe.epochs)
    epoch = body.get("epoch") or size
    answer = lookup_answer(universe, label, epoch)
    shown = None
    if body.get("profile", True) and answer.mutation is not None and answer.opening is not None:
        shown = universe.private[answer.mutation.entry_hash][1]
    return {
        "epoch": epoch,
        "answer": text(answer.encode()),
        "profile": text(shown),
        "consistency": texts(consistency(universe, body.get("since") or 0, size)),
    }


def lookup_answer(universe: Universe, label: str, epoch: int | None = None) -> LookupAnswer:
    """Return the answer about ``label`` in ``epoch``, by default the latest, under the latest checkpoint."""
    size = len(universe.epochs)
    number = epoch or size
    beta, vrf_proof = people.VRF.prove(label.encode())
    index = index_of(beta)
    held = universe.held(number, index)
    opening = erasure = None
    if held is not None and held.entry_hash in universe.erased:
        erasure = erasure_proof(universe, universe.erased[held.entry_hash])
    elif held is not None and held.entry_hash in universe.private:
        opening = universe.private[held.entry_hash][0]
    published = universe.epochs[number - 1]
    return LookupAnswer(
        universe.epochs[-1].event.heads_checkpoint,
        published.event.smh_bytes,
        inclusion(universe, number),
        vrf_proof,
        prove(published.entries, index),
        held,
        opening,
        erasure,
    )


def lookups(universe: Universe, body: Json) -> Json:
    labels, size = body["labels"], len(universe.epochs)
    epoch = body.get("epoch") or size
    parts = [lookup_answer(universe, label, epoch) for label in labels]
    indices = [index_of(people.VRF.prove(label.encode())[0]) for label in labels]
    shown = [
        universe.private[one.mutation.entry_hash][1] if one.mutation and one.opening is not None else None
        for one in parts
    ]
    answer = BatchAnswer(
        parts[0].heads_checkpoint,
        parts[0].smh_bytes,
        parts[0].heads_inclusion,
        combine([(index, one.map_proof) for index, one in zip(indices, parts, strict=True)]),
        tuple(LabelAnswer(one.vrf_proof, one.mutation, one.opening, one.erasure) for one in parts),
    )
    return {
        "epoch": epoch,
        "count": len(labels),
        "answer": text(answer.encode()),
        "profiles": [text(one) if body.get("profile", True) else None for one in shown],
        "consistency": texts(consistency(universe, body.get("since") or 0, size)),
    }


def erasure_proof(universe: Universe, sequence: int) -> ErasureProof:
    """Return the proof of the record ``sequence`` under the latest head."""
    latest = universe.epochs[-1]
    plan = plan_inclusion(sequence, latest.smh.head.log_size)
    return ErasureProof(
        universe.records[sequence],
        universe.proof(plan, universe.log_nodes),
        latest.event.smh_bytes,
        inclusion(universe, latest.epoch),
    )


def inclusion(universe: Universe, epoch: int, size: int | None = None) -> tuple[bytes, ...]:
    """Return the proof that the head of ``epoch`` is in the log of ``size`` heads."""
    plan = plan_inclusion(epoch - 1, size or len(universe.epochs))
    return universe.proof(plan, universe.head_nodes)


def consistency(universe: Universe, first: int, second: int, log: str = "heads") -> tuple[bytes, ...]:
    """Return the consistency proof between two sizes of a log; empty if there is none."""
    nodes, size = universe.head_nodes, len(universe.epochs)
    if log == "mutations":
        nodes, size = universe.log_nodes, len(universe.records)
    if not 0 < first < second <= size:
        return ()
    return universe.proof(plan_consistency(first, second), nodes)


def range_(universe: Universe, body: Json) -> Json:
    first, last = body["first"], min(body["last"], len(universe.epochs))
    answer = range_answer(universe, body["label"], first, last)
    return {
        "first": first,
        "last": last,
        "answer": text(answer.encode()),
        "consistency": texts(consistency(universe, body.get("since") or 0, len(universe.epochs))),
    }


def range_answer(universe: Universe, label: str, first: int, last: int) -> RangeAnswer:
    """Return what the maps of the epochs ``first`` to ``last`` hold at ``label``."""
    beta, vrf_proof = people.VRF.prove(label.encode())
    index = index_of(beta)
    held = [universe.held(number, index) for number in range(first, last + 1)]
    distinct = list(dict.fromkeys(one for one in held if one is not None))
    epochs = tuple(
        RangeEpoch(
            published.event.smh_bytes,
            prove(published.entries, index),
            None if one is None else distinct.index(one),
        )
        for published, one in zip(universe.epochs[first - 1 : last], held, strict=True)
    )
    size = len(universe.epochs)
    proof = universe.proof(plan_range(first - 1, last, size), universe.head_nodes)
    return RangeAnswer(
        universe.epochs[-1].event.heads_checkpoint, vrf_proof, tuple(distinct), first, proof, epochs
    )


def status(universe: Universe, body: Json) -> Json:
    """Say which record the mutation has; the one that accepted it, or else the last one."""
    size = len(universe.epochs)
    told: Json = {"mutation": body["mutation"], "consistency": []}
    found = [
        record
        for record in map(Record.decode, universe.records[: universe.epochs[-1].smh.head.log_size])
        if isinstance(record.item.content, bytes) and sha256(record.item.content).hex() == body["item"]
    ]
    if not found:
        nothing = {"verdict": None, "record": None, "answer": None}
        return {**told, **nothing, "state": "unknown", "epoch": size, "complete_from": 0}
    record = max(found, key=lambda one: (one.verdict is Verdict.ACCEPTED, one.sequence))
    answer = status_answer(universe, record)
    where = (record.sequence, record.item.revision, record.item.position)
    return {
        **told,
        "state": "decided",
        "epoch": SignedMapHead.decode(answer.smhs[-1]).head.epoch,
        "complete_from": 0,
        "verdict": record.verdict.label,
        "record": dict(zip(("sequence", "queue_revision", "position"), where, strict=True)),
        "answer": text(answer.encode()),
        "consistency": texts(consistency(universe, body.get("since") or 0, size)),
    }


def status_answer(universe: Universe, record: Record) -> StatusAnswer:
    """Return the proof of ``record`` under the first head that covers it."""
    number = next(one.epoch for one in universe.epochs if record.sequence < one.smh.head.log_size)
    first = max(1, number - 1)
    heads = universe.epochs[first - 1 : number]
    plan = plan_inclusion(record.sequence, heads[-1].smh.head.log_size)
    return StatusAnswer(
        universe.epochs[-1].event.heads_checkpoint,
        tuple(one.event.smh_bytes for one in heads),
        universe.proof(plan_range(first - 1, number, len(universe.epochs)), universe.head_nodes),
        record.sequence,
        record.item.revision,
        record.item.position,
        record.verdict,
        universe.proof(plan, universe.log_nodes),
    )


def history(universe: Universe, body: Json) -> Json:
    index = index_of(people.VRF.prove(body["label"].encode())[0])
    versions = []
    for epoch, entry_hash in universe.versions.get(index, ()):
        made = universe.mutations[entry_hash]
        opening, shown = universe.private[entry_hash]
        erased = entry_hash in universe.erased
        if made.entry.version <= body.get("after", 0):
            continue
        versions.append(
            {
                "version": made.entry.version,
                "epoch": epoch,
                "mutation": text(made.encode()),
                "opening": None if erased else text(opening),
                "profile": text(shown) if body.get("profiles") and not erased else None,
            }
        )
    return {"versions": versions, "more": False}


def head(universe: Universe, epoch: int) -> Json:
    published = universe.epochs[epoch - 1]
    return {
        "epoch": epoch,
        "smh": text(published.event.smh_bytes),
        "heads_checkpoint": published.event.heads_checkpoint,
        "mutations_checkpoint": published.event.mutations_checkpoint,
        "inclusion": texts(inclusion(universe, epoch)),
        "latest_checkpoint": universe.epochs[-1].event.heads_checkpoint,
    }
