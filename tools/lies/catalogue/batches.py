"""False answers to a batch lookup: labels exchanged, dropped and repeated, forged entries, wrong proofs."""

from __future__ import annotations

from dataclasses import replace

from kt_es.formats.batches import BatchAnswer, LabelAnswer
from tools.lies import answers, people
from tools.lies.answers import Json
from tools.lies.commands import Ran
from tools.lies.people import STRANGER, label, mutation
from tools.lies.registry import BY_FRONT_END, Lie, lie, scene
from tools.lies.stage import Stage

USERS = ("alice", "bob", "carol", "nobody")
LABELS = [label(user) for user in USERS]


def _batch(name: str, message: str) -> Lie:
    return lie(name, BY_FRONT_END, "kt get A B", 4, message, case=name)


@scene(
    _batch("batch-with-two-labels-exchanged", "vrf: "),
    _batch("batch-with-two-entries-exchanged", "entry: is of another index than the label's"),
    _batch("batch-with-a-label-repeated", "vrf: "),
    _batch("batch-with-a-label-dropped", "vrf: "),
    _batch("batch-with-an-entry-denied", "map: "),
    _batch("batch-with-an-entry-forged", "map: the proof does not lead to the map root"),
    _batch("batch-with-an-entry-of-nobody", "map: "),
    _batch("batch-with-a-sibling-too-many", "map: the proof has more siblings"),
    _batch("batch-with-a-sibling-missing", "map: the proof has fewer siblings"),
    _batch("batch-of-an-earlier-epoch", "map head: is of epoch 1, not of epoch 2"),
    _batch("batch-with-two-profiles-exchanged", "commitment: does not open to the profile"),
    _batch("batch-that-miscounts", "answer: has 4 labels, and says 3"),
    also="tests/client/test_batches.py",
    control=3,
)
def batch(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    for user in (*USERS[:3], "dave", "erin"):
        universe.put(user)
    universe.epoch()
    universe.put("alice")
    universe.epoch()
    front_end = stage.front_end(universe)

    def change(asked: Json, told: Json) -> Json:
        true = BatchAnswer.decode(answers.binary(told["answer"]))
        profiles = list(told["profiles"])
        match case:
            case "batch-with-two-profiles-exchanged":
                profiles[0], profiles[1] = profiles[1], profiles[0]
            case "batch-that-miscounts":
                return {**told, "count": 3}
            case "batch-of-an-earlier-epoch":
                return answers.lookups(universe, {**asked, "epoch": 1})
        made = _changed(true, case)
        return {**told, "answer": answers.text(made.encode()), "profiles": profiles}

    front_end.rewrite["/v1/lookups"] = change
    return stage.user(front_end).kt("get", *LABELS)


def _changed(true: BatchAnswer, case: str | None) -> BatchAnswer:
    alice, bob, carol, nobody = true.answers
    siblings = true.map_proof.siblings
    match case:
        case "batch-with-two-labels-exchanged":
            return replace(true, answers=(bob, alice, carol, nobody))
        case "batch-with-two-entries-exchanged":
            return replace(true, answers=(_with(alice, bob), _with(bob, alice), carol, nobody))
        case "batch-with-a-label-repeated":
            return replace(true, answers=(alice, alice, carol, nobody))
        case "batch-with-a-label-dropped":
            return replace(true, answers=(alice, carol, nobody, bob))
        case "batch-with-an-entry-denied":
            return replace(true, answers=(alice, replace(bob, mutation=None, opening=None), carol, nobody))
        case "batch-with-an-entry-forged":
            forged = replace(bob, mutation=mutation("bob", keys=[STRANGER]))
            return replace(true, answers=(alice, forged, carol, nobody))
        case "batch-with-an-entry-of-nobody":
            made = replace(nobody, mutation=mutation("nobody"), opening=people.opening("nobody", 1))
            return replace(true, answers=(alice, bob, carol, made))
        case "batch-with-a-sibling-too-many":
            return replace(true, map_proof=replace(true.map_proof, siblings=(*siblings, bytes([1]) * 32)))
        case "batch-with-a-sibling-missing":
            return replace(true, map_proof=replace(true.map_proof, siblings=siblings[:-1]))
    return true


def _with(own: LabelAnswer, other: LabelAnswer) -> LabelAnswer:
    """Return the answer about ``own`` with the entry of ``other``."""
    return replace(own, mutation=other.mutation, opening=other.opening)
