"""Changes that their owner did not make, told to the owner."""

from __future__ import annotations

from dataclasses import replace

from kt_es.formats.entries import Mutation
from kt_es.formats.ranges import RangeAnswer
from tools.lies import answers, people
from tools.lies.answers import Json
from tools.lies.commands import Ran, StageError
from tools.lies.frontend import RefusalError
from tools.lies.people import STRANGER, key, label, mutation
from tools.lies.registry import BY_FRONT_END, BY_SIGNER, BY_THIEF, LATER, LIVE, Lie, lie, scene
from tools.lies.stage import Stage
from tools.lies.universe import Universe

ALICE, BOB = label("alice"), label("bob")

_MINE = "not yours"


def _plant(universe: Universe, made: Mutation, user: str = "alice", tag: str = "") -> None:
    universe.plant(made, user)
    number = made.entry.version
    universe.private[made.entry_hash] = (
        people.opening(user, number, tag),
        people.profile(user, number, tag),
    )


@scene(
    lie("key-added-by-a-thief", BY_THIEF, "kt watch", 6, _MINE, LATER, "thief"),
    lie("key-replaced-by-a-thief", BY_THIEF, "kt watch", 6, _MINE, LATER, "replaced"),
    lie("key-added-by-the-operator", BY_SIGNER, "kt watch", 6, _MINE, LATER, "operator"),
    lie("entry-for-one-epoch", BY_SIGNER, "kt watch", 5, "though version 2 stood there", LATER, "one epoch"),
    lie("same-count-other-entry", BY_SIGNER, "kt watch", 5, "has another version 1", LATER, "same count"),
    lie("account-made-by-the-operator", BY_SIGNER, "kt watch", 6, _MINE, LATER, "account"),
    also="tests/cli/owners/watching/test_watcher.py",
)
def watching(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    first = None if case == "account" else universe.put("alice")
    universe.epoch()
    user = stage.user(stage.front_end(universe)).holds("alice")
    user.ok("watch", "--once", ALICE)
    alice = key("alice")
    match case:
        case "thief":
            universe.put("alice", keys=[alice, STRANGER], by=[alice])
        case "replaced":
            universe.put("alice", keys=[STRANGER], by=[alice, STRANGER])
        case "operator":
            _plant(universe, mutation("alice", first, keys=[alice, STRANGER], by=[STRANGER]))
        case "one epoch":
            universe.put("alice", keys=[STRANGER], by=[alice, STRANGER])
            universe.epoch()
            universe.plant(first, "alice")
            universe.epoch()
            universe.versions[people.index("alice")] = universe.versions[people.index("alice")][:1]
        case "same count":
            _plant(universe, mutation("alice", keys=[STRANGER], tag="other"), tag="other")
        case "account":
            universe.put("alice", keys=[STRANGER])
        case _:
            universe.put("alice")
    universe.epoch()
    if case == "same count":
        universe.versions[people.index("alice")] = universe.versions[people.index("alice")][-1:]
    return user.kt("watch", "--once", ALICE)


@scene(
    lie(
        "entry-for-one-epoch-in-the-past",
        BY_SIGNER,
        "kt history --every-epoch",
        5,
        "though version 2 stood there",
        LATER,
    ),
    also="tests/cli/owners/test_put.py",
)
def every_epoch(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    first = universe.put("alice")
    universe.epoch()
    if case:
        universe.put("alice", keys=[STRANGER], by=[key("alice"), STRANGER])
        universe.epoch()
        universe.plant(first, "alice")
        universe.versions[people.index("alice")] = universe.versions[people.index("alice")][:1]
    universe.epoch()
    if case:
        universe.versions[people.index("alice")] = universe.versions[people.index("alice")][:1]
    user = stage.user(stage.front_end(universe)).holds("alice")
    return user.kt("history", "--every-epoch", ALICE)


@scene(
    lie("outage-of-one-label", BY_FRONT_END, "kt watch", 6, _MINE, LATER, "outage"),
    lie("refusal-of-one-label", BY_FRONT_END, "kt watch", 6, _MINE, LATER, "refusal"),
    also="tests/cli/owners/watching/test_command.py",
)
def one_label(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.put("bob", keys=[key("alice")])
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end).holds("alice")
    user.ok("watch", "--once", ALICE, BOB)
    if case:
        universe.put("bob", keys=[STRANGER], by=[key("alice"), STRANGER])
        universe.epoch()

        def hidden(asked: Json, true: Json) -> Json:
            if asked["label"] == ALICE:
                status = 503 if case == "outage" else 404
                raise RefusalError(status, "unavailable", "not now")
            return true

        for path in ("/v1/lookup", "/v1/range", "/v1/history"):
            front_end.rewrite[path] = hidden
    return user.kt("watch", "--once", "--timeout", "3", ALICE, BOB)


@scene(
    lie("thief-who-stays", BY_THIEF, "kt watch", 6, "still stands in", LATER, "stays"),
    lie("alarm-that-no-hook-took", BY_THIEF, "kt watch", 6, "not every hook took it", LATER, "hook"),
    also="tests/cli/owners/watching/test_hooks.py",
)
def reported_before(stage: Stage, case: str | None) -> Ran:
    """An earlier watch has already reported the alarm."""
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    user = stage.user(stage.front_end(universe)).holds("alice")
    user.ok("watch", "--once", ALICE)
    alice = key("alice")
    if case:
        universe.put("alice", keys=[alice, STRANGER], by=[alice])
        universe.epoch()
    hook = "false" if case == "hook" else "true"
    first = user.kt("watch", "--once", "--on-alarm", hook, ALICE)
    if first.code != (6 if case else 0):
        raise StageError(f"the first watch ended with {first.code}: {first.message}")
    if case != "stays":
        universe.put("alice", keys=[alice], by=[alice])
        universe.epoch()
    return user.kt("watch", "--once", "--on-alarm", "true", ALICE)


@scene(
    lie("answers-that-end-a-watch", BY_FRONT_END, "kt watch", 6, _MINE, LIVE),
    also="tests/cli/owners/watching/test_command.py",
)
def unattended(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end).holds("alice")
    if case is None:
        return user.kt("watch", "--once", ALICE)
    process = user.start("watch", "--interval", "0.1", ALICE)
    process.wait_for_line("yours")

    def broken(_: Json, __: Json) -> Json:
        return {"no": "answer"}

    def refused(_: Json, __: Json) -> Json:
        raise RefusalError(404, "not-found", "there is no such label")

    for answer in (broken, refused):
        for path in ("/v1/lookup", "/v1/range", "/v1/history", "/v1/heads/latest"):
            front_end.rewrite[path] = answer
        front_end.asked.clear()
        stage.until(lambda: len(front_end.asked) > 3, "the watch goes on")
    front_end.rewrite.clear()
    universe.put("alice", keys=[STRANGER], by=[key("alice"), STRANGER])
    universe.epoch()
    return process.end()


@scene(
    lie(
        "key-injected-before-a-put",
        BY_SIGNER,
        "kt put",
        4,
        "signatures: version 2 is not authorized",
        LATER,
        "injected",
    ),
    lie("another-entry-stands", BY_FRONT_END, "kt put", 1, "another change took version 2", LATER, "stands"),
    lie("nothing-stands", BY_FRONT_END, "kt put", 7, "is not in a map head yet", LATER, "nothing"),
    also="tests/cli/owners/test_put.py",
)
def putting(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end).holds("alice")
    (user.home / "key").write_bytes(b"a key")
    user.ok("put", ALICE, "--key", "key", "--type", "raw")
    mine = universe.current("alice")
    assert mine is not None
    if case == "injected":
        # The present key stays, and the operator's key is added.
        _plant(universe, mutation("alice", mine, keys=[key("alice"), STRANGER], by=[STRANGER]))
        universe.epoch()
    if case in ("stands", "nothing"):

        def other(*_: object) -> None:
            if case == "stands":
                _plant(universe, mutation("alice", mine, keys=[STRANGER]))
            universe.epoch()

        front_end.on_submit = other
    (user.home / "key").write_bytes(b"another key")
    return user.kt("put", ALICE, "--key", "key", "--type", "raw", "--timeout", "5")


def _range(name: str, message: str, code: int = 4) -> Lie:
    return lie(name, BY_FRONT_END, "kt watch", code, message, LATER, name)


@scene(
    _range("range-leaves-an-epoch-out", "map head: "),
    _range("range-of-another-label", "vrf: "),
    _range("range-with-a-head-of-another-log", "map head: "),
    _range("range-with-another-entry", "map: "),
    _range("range-that-begins-elsewhere", "answer: "),
    also="tests/client/test_ranges.py",
)
def ranges(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.put("bob")
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end).holds("alice")
    user.ok("watch", "--once", ALICE)
    other = universe.fork()
    for one in (universe, other):
        for _ in range(4):
            one.put("carol", tag="" if one is universe else "other")
            one.epoch()

    def change(true: RangeAnswer) -> RangeAnswer:
        epochs = list(true.epochs)
        match case:
            case "range-leaves-an-epoch-out":
                del epochs[1]
            case "range-of-another-label":
                return replace(true, vrf_proof=answers.lookup_answer(universe, BOB).vrf_proof)
            case "range-with-a-head-of-another-log":
                head = other.epochs[true.first].event.smh_bytes
                epochs[1] = replace(epochs[1], smh_bytes=head)
            case "range-with-another-entry":
                forged = mutation("alice", tag="other")
                return replace(true, mutations=(forged,))
            case "range-that-begins-elsewhere":
                return replace(true, first=true.first + 1)
        return replace(true, epochs=tuple(epochs))

    def false_range(_: Json, true: Json) -> Json:
        answer = change(RangeAnswer.decode(answers.binary(true["answer"])))
        return {**true, "answer": answers.text(answer.encode())}

    front_end.rewrite["/v1/range"] = false_range
    ran = user.kt("watch", "--once", ALICE)
    if "/v1/range" not in front_end.asked:
        raise StageError("nobody asked for a range")
    return ran


@scene(
    lie("pages-that-never-end", BY_FRONT_END, "kt history", 4, "history: ", case="more"),
    lie("pages-that-repeat", BY_FRONT_END, "kt history", 4, "history: ", case="again"),
    also="tests/client/test_history.py",
)
def pages(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    universe.put("alice")
    universe.epoch()
    front_end = stage.front_end(universe)
    whole = answers.history(universe, {"label": ALICE})

    def false_page(_: Json, true: Json) -> Json:
        if case is None:
            return true
        return {"versions": [] if case == "more" else whole["versions"][:1], "more": True}

    front_end.rewrite["/v1/history"] = false_page
    return stage.user(front_end).kt("history", ALICE)
