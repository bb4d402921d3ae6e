"""False answers about what became of a change, told to its owner, who has kept the change in a file."""

from __future__ import annotations

from dataclasses import replace

from kt_es.formats.entries import Mutation
from kt_es.formats.queue import Verdict
from kt_es.formats.statuses import StatusAnswer
from tools.lies import answers
from tools.lies.answers import Json
from tools.lies.commands import Ran
from tools.lies.frontend import FrontEnd
from tools.lies.people import STRANGER, label
from tools.lies.registry import BY_FRONT_END, LATER, Lie, lie, scene
from tools.lies.stage import Stage
from tools.lies.universe import Universe

CAROL = label("carol")
_NOTHING: Json = {"verdict": None, "record": None, "answer": None, "consistency": []}


def _told(name: str, message: str) -> Lie:
    return lie(name, BY_FRONT_END, "kt receipt", 4, message, LATER, name)


def _submitted(stage: Stage, front_end: FrontEnd) -> Ran:
    """Let carol publish keys, keep the change, and ask what became of it."""
    user = stage.user(front_end).holds("carol")
    key = user.home / "key.raw"
    key.write_bytes(b"carol's key")
    user.ok("put", CAROL, "--key", key, "--type", "raw", "--receipt", user.home / "receipt", "--no-wait")
    return user.kt("receipt", user.home / "receipt")


def _started(stage: Stage) -> tuple[Universe, FrontEnd]:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    return universe, stage.front_end(universe)


@scene(
    _told("status-refused-although-accepted", "does not say conflict"),
    _told("status-pending-although-accepted", "the server says pending, and the map of epoch"),
    _told("status-unknown-although-accepted", "the server says unknown, and the map of epoch"),
    _told("status-of-another-epoch", "record: says accepted in epoch 2"),
    _told("status-with-a-head-left-out", "map head: "),
    _told("status-of-another-record", "record: "),
    also="tests/client/test_statuses.py",
)
def status_of_accepted(stage: Stage, case: str | None) -> Ran:
    _, front_end = _started(stage)

    def false_status(_: Json, true: Json) -> Json:
        answer = StatusAnswer.decode(answers.binary(true["answer"]))
        match case:
            case "status-refused-although-accepted":
                answer = replace(answer, verdict=Verdict.CONFLICT)
                return {**true, "verdict": "conflict", "answer": answers.text(answer.encode())}
            case "status-pending-although-accepted" | "status-unknown-although-accepted":
                return {**true, **_NOTHING, "state": case.split("-")[1]}
            case "status-of-another-epoch":
                return {**true, "epoch": 1}
            case "status-with-a-head-left-out":
                return {**true, "answer": answers.text(replace(answer, smhs=answer.smhs[1:]).encode())}
            case "status-of-another-record":
                where = {**true["record"], "sequence": answer.sequence + 1}
                other = replace(answer, sequence=answer.sequence + 1)
                return {**true, "record": where, "answer": answers.text(other.encode())}
        return true

    front_end.rewrite["/v1/status"] = false_status
    return _submitted(stage, front_end)


@scene(
    _told("status-accepted-although-refused", "does not say accepted"),
    _told("status-accepted-beside-a-refusal", "record: says conflict in epoch 2"),
    control=1,
    also="tests/client/test_statuses.py",
)
def status_of_refused(stage: Stage, case: str | None) -> Ran:
    universe, front_end = _started(stage)

    def conflict(made: Mutation, opening: bytes, profile: bytes) -> None:
        universe.put("carol", keys=[STRANGER])
        universe.submit(made, opening, profile)
        universe.epoch()

    front_end.on_submit = conflict

    def false_status(_: Json, true: Json) -> Json:
        answer = replace(StatusAnswer.decode(answers.binary(true["answer"])), verdict=Verdict.ACCEPTED)
        match case:
            case "status-accepted-although-refused":
                return {**true, "verdict": "accepted", "answer": answers.text(answer.encode())}
            case "status-accepted-beside-a-refusal":
                return {**true, "verdict": "accepted"}
        return true

    front_end.rewrite["/v1/status"] = false_status
    return _submitted(stage, front_end)
