"""False answers to one lookup, told to a user who has never seen the directory before."""

from __future__ import annotations

from dataclasses import replace

from kt_es.formats.proofs import LookupAnswer
from kt_es.merkle.verify import MapProof
from tools.lies import answers, people
from tools.lies.answers import Json
from tools.lies.commands import Ran
from tools.lies.frontend import FrontEnd
from tools.lies.people import STRANGER, label, mutation
from tools.lies.registry import BY_FRONT_END, BY_SIGNER, Lie, lie, scene
from tools.lies.stage import Stage

ALICE, BOB = label("alice"), label("bob")


def _answer(name: str, message: str) -> Lie:
    return lie(name, BY_FRONT_END, "kt get", 4, message, case=name)


@scene(
    _answer("profile-swapped", "commitment: does not open to the profile"),
    _answer("opening-of-another", "commitment: does not open to the profile"),
    _answer("vrf-proof-of-another-label", "vrf: "),
    _answer("absent-although-present", "map: the map holds an entry here"),
    _answer("absent-by-a-false-proof", "map: the proof does not lead to the map root"),
    _answer("entry-of-another-label", "entry: is of another index than the label's"),
    _answer("entry-that-is-not-in-the-map", "map: the proof does not lead to the map root"),
    _answer("signature-taken-off", "signatures: "),
    _answer("earlier-epoch-as-the-latest", "map head: is of epoch 1, not of epoch 2"),
    _answer("head-of-another-log", "map head: is not the one of epoch 2"),
    _answer("answer-cut-short", "answer: "),
    also="tests/client/test_trust.py",
)
def answer(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.put("bob")
    universe.epoch()
    universe.put("alice", tag="second")
    other = universe.fork()
    universe.epoch()
    other.epoch(at=universe.clock + 1)
    front_end = stage.front_end(universe)
    bob = answers.lookup_answer(universe, BOB)

    def change(true: LookupAnswer) -> LookupAnswer:
        assert true.mutation is not None
        own = true.mutation
        match case:
            case "opening-of-another":
                return replace(true, opening=bob.opening)
            case "vrf-proof-of-another-label":
                return replace(true, vrf_proof=bob.vrf_proof)
            case "absent-although-present":
                return replace(true, mutation=None, opening=None)
            case "absent-by-a-false-proof":
                proof = MapProof(true.map_proof.siblings, None)
                return replace(true, mutation=None, opening=None, map_proof=proof)
            case "entry-of-another-label":
                return replace(bob, vrf_proof=true.vrf_proof)
            case "entry-that-is-not-in-the-map":
                forged = mutation("alice", keys=[STRANGER])
                own_leaf = (forged.entry.index, forged.entry_hash)
                proof = MapProof(true.map_proof.siblings, own_leaf)
                return replace(true, mutation=forged, opening=None, map_proof=proof)
            case "signature-taken-off":
                forged = replace(own, signatures=tuple(bob.mutation.signatures) if bob.mutation else ())
                return replace(true, mutation=forged)
            case "earlier-epoch-as-the-latest":
                return answers.lookup_answer(universe, ALICE, 1)
            case "head-of-another-log":
                return replace(true, smh_bytes=other.epochs[-1].event.smh_bytes)
        return true

    front_end.rewrite_lookup(change)
    if case == "profile-swapped":
        _swap_profile(front_end, answers.text(people.profile("bob", 1)))
    if case == "answer-cut-short":
        front_end.rewrite["/v1/lookup"] = lambda _, told_: {**told_, "answer": told_["answer"][:400]}
    return stage.user(front_end).kt("get", ALICE)


def _swap_profile(front_end: FrontEnd, profile: str | None) -> None:
    def swapped(_: Json, told_: Json) -> Json:
        return {**told_, "profile": profile}

    front_end.rewrite["/v1/lookup"] = swapped


@scene(
    lie("present-although-absent", BY_FRONT_END, "kt get", 4, "entry: is of another index", case="entry"),
    lie("absence-of-another-label", BY_FRONT_END, "kt get", 4, "vrf: ", case="vrf"),
    control=3,
    also="tests/client/test_trust.py",
)
def absence(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("bob")
    universe.epoch()
    front_end = stage.front_end(universe)
    if case is not None:
        other = answers.lookup_answer(universe, BOB if case == "entry" else label("dave"))
        kept = case == "entry"
        front_end.rewrite_lookup(
            lambda true: replace(other, vrf_proof=true.vrf_proof if kept else other.vrf_proof)
        )
    return stage.user(front_end).kt("get", label("carol"))


@scene(
    lie("past-epoch-swapped", BY_FRONT_END, "kt get --epoch", 4, "map head: is of epoch 2", case="epoch"),
    lie(
        "past-entry-swapped", BY_FRONT_END, "kt get --epoch", 4, "map: the proof does not lead", case="entry"
    ),
    also="tests/client/test_trust.py",
)
def past(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    universe.put("alice")
    universe.epoch()
    front_end = stage.front_end(universe)
    latest = answers.lookup_answer(universe, ALICE)
    if case == "epoch":
        front_end.rewrite_lookup(lambda _: latest)
    if case == "entry":
        front_end.rewrite_lookup(
            lambda true: replace(
                true, map_proof=latest.map_proof, mutation=latest.mutation, opening=latest.opening
            )
        )
    return stage.user(front_end).kt("get", ALICE, "--epoch", "1")


@scene(
    lie("head-by-another-key", BY_FRONT_END, "kt get", 4, "map head: is not signed", case="key"),
    lie("checkpoint-by-another-key", BY_FRONT_END, "kt get", 4, "checkpoint: no signature", case="heads_key"),
    lie("head-of-another-directory", BY_SIGNER, "kt get", 4, "map head: is for other", case="origin"),
    lie("head-of-an-unknown-config", BY_SIGNER, "kt get", 4, "config: ", case="config_hash"),
    lie("entry-signed-by-nobody-of-its-keys", BY_SIGNER, "kt get", 4, "signatures: ", case="entry"),
    also="tests/client/test_trust.py",
)
def signed(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    made = mutation("alice", by=[STRANGER]) if case == "entry" else mutation("alice")
    universe.plant(made, "alice")
    universe.private[made.entry_hash] = (people.opening("alice", 1), people.profile("alice", 1))
    match case:
        case "key":
            universe.epoch(key=STRANGER, heads_key=people.SIGNER)
        case "heads_key":
            universe.epoch(heads_key=STRANGER)
        case "origin":
            universe.epoch(origin="other.example.org/people")
        case "config_hash":
            universe.epoch(config_hash=people.seed("another config"))
        case _:
            universe.epoch()
    return stage.user(stage.front_end(universe)).kt("get", ALICE)


def _history(name: str, message: str) -> Lie:
    return lie(name, BY_FRONT_END, "kt history", 4, message, case=name)


@scene(
    _history("newest-version-hidden", "history: "),
    _history("middle-version-hidden", "history: "),
    _history("first-version-hidden", "history: "),
    _history("all-versions-hidden", "history: "),
    _history("version-dated-back", "history: "),
    _history("version-dated-later", "history: "),
    _history("version-of-another-entry", "history: "),
    also="tests/client/test_history.py",
)
def history(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    for _ in range(3):
        universe.put("alice")
        universe.epoch()
        universe.epoch()
    front_end = stage.front_end(universe)
    other = mutation("alice", universe.mutations[universe.versions[people.index("alice")][0][1]], tag="other")

    def change(_: Json, told_: Json) -> Json:
        versions = list(told_["versions"])
        match case:
            case "newest-version-hidden":
                versions = versions[:-1]
            case "middle-version-hidden":
                versions = [version for version in versions if version["version"] != 2]
            case "first-version-hidden":
                versions = [version for version in versions if version["version"] != 1]
            case "all-versions-hidden":
                versions = []
            case "version-dated-back" | "version-dated-later":
                later = 1 if case == "version-dated-later" else -1
                versions[1] = {**versions[1], "epoch": versions[1]["epoch"] + later}
            case "version-of-another-entry":
                versions[1] = {**versions[1], "mutation": answers.text(other.encode())}
        return {**told_, "versions": versions}

    front_end.rewrite["/v1/history"] = change
    return stage.user(front_end).kt("history", ALICE)


@scene(
    lie("unauthorized-version-in-the-past", BY_SIGNER, "kt history", 4, "signatures: version 2 is not"),
    also="tests/client/test_history.py",
)
def authorized(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    made = mutation("alice", universe.current("alice"), keys=[STRANGER] if case else ())
    universe.plant(made, "alice")
    universe.private[made.entry_hash] = (people.opening("alice", 2), people.profile("alice", 2))
    universe.epoch()
    return stage.user(stage.front_end(universe)).kt("history", ALICE)
