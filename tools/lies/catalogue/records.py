"""False verdicts and false records, told to processes that replay the log of mutations."""

from __future__ import annotations

from dataclasses import replace

from kt_es.crypto.hashes import sha256
from kt_es.formats.queue import (
    MUTATIONS,
    Digest,
    Item,
    Record,
    Verdict,
    decode_records,
    encode_mutations,
    encode_records,
    items_of,
)
from tools.lies.commands import Ran
from tools.lies.people import SIGNER, STRANGER, SUCCESSOR, key, mutation
from tools.lies.registry import BY_LOG, BY_SIGNER, Lie, lie, scene
from tools.lies.stage import NEW_VKEY, VKEY, Stage
from tools.lies.universe import Universe


def _verdict(case: str, found: str, must: str) -> Lie:
    return lie(f"verdict-{case}", BY_SIGNER, "kt audit", 4, f"says {found}, must be {must}", case=case)


@scene(
    _verdict("unauthorized-accepted", "accepted", "unauthorized"),
    _verdict("stale-accepted", "accepted", "stale"),
    _verdict("authorized-refused", "unauthorized", "accepted"),
    _verdict("conflict-loser-accepted", "accepted", "conflict"),
    _verdict("malformed-accepted", "accepted", "malformed"),
    _verdict("replay-accepted", "accepted", "replay"),
    _verdict("account-taken-by-a-first-version", "accepted", "stale"),
    _verdict("two-first-versions-of-one-account", "accepted", "conflict"),
    _verdict("duplicate-as-accepted", "accepted", "duplicate"),
    _verdict("foreign-marker-closes-an-epoch", "epoch", "foreign-marker"),
    _verdict("foreign-config-in-force", "config", "foreign-config"),
    _verdict("foreign-erasure-takes-effect", "erased", "foreign-erasure"),
    _verdict("accepted-as-oversize", "oversize", "accepted"),
    also="tests/core/test_epochs_mutations.py",
)
def verdicts(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    first = universe.put("alice")
    universe.put("bob")
    universe.epoch()
    _lie_about_verdict(universe, case, first.entry_hash)
    universe.epoch()
    stage.write(universe)
    return stage.audit()


def _lie_about_verdict(universe: Universe, case: str | None, first: bytes) -> None:
    alice = universe.mutations[first]
    accepted = Verdict.ACCEPTED
    match case:
        case "unauthorized-accepted":
            universe.put("alice", by=[STRANGER], verdict=accepted)
        case "stale-accepted":
            made = mutation("alice", alice, version=3)
            universe.submit(made, bytes(16), b"", accepted)
        case "authorized-refused":
            universe.put("alice", verdict=Verdict.UNAUTHORIZED)
        case "conflict-loser-accepted":
            universe.put("alice")
            universe.put("alice", tag="later", verdict=accepted)
        case "malformed-accepted":
            universe.queue(MUTATIONS, encode_mutations([b"no mutation"]), accepted)
        case "replay-accepted":
            universe.queue(MUTATIONS, encode_mutations([alice.encode()]), accepted)
        case "account-taken-by-a-first-version":
            universe.submit(mutation("alice", keys=[STRANGER]), bytes(16), b"", accepted)
        case "two-first-versions-of-one-account":
            universe.submit(mutation("carol"), bytes(16), b"")
            universe.submit(mutation("carol", keys=[STRANGER]), bytes(16), b"", accepted)
        case "duplicate-as-accepted":
            made = universe.put("alice")
            universe.queue(MUTATIONS, encode_mutations([made.encode()]), accepted)
        case "foreign-marker-closes-an-epoch":
            universe.epoch(marker_by=STRANGER)
        case "foreign-config-in-force":
            universe.rotate(SUCCESSOR, [SUCCESSOR], Verdict.CONFIG)
        case "foreign-erasure-takes-effect":
            universe.erase(alice, STRANGER)
        case "accepted-as-oversize":
            universe.put("alice", verdict=Verdict.OVERSIZE)
        case _:
            universe.put("alice")


@scene(
    lie("item-left-out", BY_SIGNER, "kt audit", 4, "does not follow", case="left out"),
    lie("item-left-out-at-the-end-of-an-event", BY_SIGNER, "kt audit", 4, "leaves out item", case="last"),
    lie("items-reordered", BY_SIGNER, "kt audit", 4, "does not follow", case="reordered"),
    lie("item-doubled", BY_SIGNER, "kt audit", 4, "does not follow", case="doubled"),
    lie("item-changed", BY_SIGNER, "kt audit", 4, "with other content", case="changed"),
    lie("item-of-nowhere", BY_SIGNER, "kt audit", 4, "which has no such item", case="invented"),
    lie("false-digest", BY_SIGNER, "kt audit", 4, "with other content", case="digest"),
    also="tests/projections/test_auditor.py",
)
def items(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    two = [mutation("alice"), mutation("bob")]
    large = bytes(20_000)
    data = encode_mutations([*(one.encode() for one in two), large, mutation("carol").encode()])
    universe.events.append((MUTATIONS, data))
    there = items_of(1, MUTATIONS, data)
    told_ = {
        "left out": [there[0], *there[2:]],
        "last": there[:-1],
        "reordered": [there[1], there[0], *there[2:]],
        "doubled": [there[0], *there],
        "changed": [replace(there[0], content=mutation("alice", tag="other").encode()), *there[1:]],
        "invented": [*there, Item(1, 4, there[0].kind, mutation("dave").encode())],
        "digest": [*there[:2], replace(there[2], content=Digest(sha256(b"other"), 20_000)), there[3]],
    }.get(case or "", there)
    for item in told_:
        universe.decide(item)
    universe.epoch()
    stage.write(universe)
    return stage.audit()


@scene(
    lie("records-regrouped", BY_LOG, "kt audit", 4, "has other records than it must have", case="regrouped"),
    lie("record-changed", BY_LOG, "kt audit", 4, "record 1", case="changed"),
    lie("records-cut-off", BY_LOG, "kt audit", 4, "a records event of epoch 2 is missing", case="cut"),
    also="tests/projections/test_auditor.py",
)
def grouping(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    universe.put("alice")
    universe.epoch()
    events = list(universe.record_events)
    first, records = decode_records(events[0])
    if case == "regrouped":
        events[:1] = [encode_records(first, records[:1]), encode_records(first + 1, records[1:])]
    if case == "changed":
        record = Record.decode(records[1])
        other = replace(record, item=replace(record.item, content=mutation("alice", by=[SIGNER]).encode()))
        events[0] = encode_records(first, [records[0], other.encode(), *records[2:]])
    if case == "cut":
        events = events[:1]
    stage.write(universe, records=events)
    return stage.audit()


@scene(
    lie("queue-of-another-directory", BY_LOG, "kt audit", 4, "never was a signer key of", case="lie"),
    also="tests/projections/test_auditor.py",
)
def beginning(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice", keys=[key("alice")])
    universe.epoch()
    stage.write(universe)
    # The auditor pinned a key that did not sign the first config.
    return stage.audit(vkey=NEW_VKEY if case else VKEY)
