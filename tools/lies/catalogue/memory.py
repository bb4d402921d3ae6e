"""Accounts that go back, change or vanish within one growing log, told to a client that remembers them."""

from __future__ import annotations

from kt_es.formats.entries import Mutation
from tools.lies import people
from tools.lies.commands import Ran
from tools.lies.people import STRANGER, label, mutation
from tools.lies.registry import BY_SIGNER, LATER, Lie, lie, scene
from tools.lies.stage import Stage, StageUser
from tools.lies.universe import Universe

ALICE = label("alice")

CHANGES = {
    "version-goes-back": "has version 1, though version 2 stood there",
    "version-becomes-another": "has another version 2 than the one that stood there",
    "version-follows-another": "has a version 3 that does not follow version 2",
    "account-vanishes": "has no entry, though version 2 stood there",
}


def _lies(command: str) -> list[Lie]:
    return [
        lie(f"{what}-{command}", BY_SIGNER, f"kt {command}", 5, message, LATER, what)
        for what, message in CHANGES.items()
    ]


def _lie(universe: Universe, what: str | None) -> None:
    """Tell the lie after two published versions. The signer makes a map that no replay accepts."""
    first = universe.mutations[universe.versions[people.index("alice")][0][1]]
    second = universe.current("alice")
    match what:
        case "version-goes-back":
            universe.plant(first, "alice")
        case "version-becomes-another":
            _plant(universe, mutation("alice", first, keys=[STRANGER], tag="other"), "other")
        case "version-follows-another":
            other = mutation("alice", first, tag="other")
            _plant(universe, mutation("alice", other, keys=[STRANGER]))
        case "account-vanishes":
            # Another account is added, so that the map does not shrink.
            universe.plant(None, "alice")
            universe.plant(mutation("bob"), "bob")
        case _:
            assert second is not None
    universe.epoch()


def _plant(universe: Universe, made: Mutation, tag: str = "") -> None:
    universe.plant(made, "alice")
    number = made.entry.version
    universe.private[made.entry_hash] = (
        people.opening("alice", number, tag),
        people.profile("alice", number, tag),
    )


def _before(stage: Stage) -> Universe:
    universe = stage.universe()
    for _ in range(2):
        universe.put("alice")
        universe.epoch()
    return universe


@scene(*_lies("get"), also="tests/client/test_memory.py")
def get(stage: Stage, case: str | None) -> Ran:
    universe = _before(stage)
    user = stage.user(stage.front_end(universe))
    user.ok("get", ALICE)
    _lie(universe, case)
    return user.kt("get", ALICE)


@scene(*_lies("history"), also="tests/client/test_memory.py")
def history(stage: Stage, case: str | None) -> Ran:
    universe = _before(stage)
    user = stage.user(stage.front_end(universe))
    user.ok("history", ALICE)
    _lie(universe, case)
    _lie_about_versions(universe, case)
    return user.kt("history", ALICE)


@scene(*_lies("watch"), also="tests/client/test_memory.py")
def watch(stage: Stage, case: str | None) -> Ran:
    universe = _before(stage)
    user = stage.user(stage.front_end(universe)).holds("alice")
    user.ok("watch", "--once", ALICE)
    _lie(universe, case)
    _lie_about_versions(universe, case)
    return user.kt("watch", "--once", ALICE)


def _lie_about_versions(universe: Universe, case: str | None) -> None:
    """Make the history that the front end serves end with the version in the map."""
    index = people.index("alice")
    versions = universe.versions[index]
    current = universe.current("alice")
    match case:
        case "version-goes-back":
            universe.versions[index] = versions[:1]
        case "version-becomes-another" | "version-follows-another":
            assert current is not None
            universe.versions[index] = (*versions[: current.entry.version - 1], versions[-1])
        case "account-vanishes":
            universe.versions[index] = ()


@scene(*_lies("verify"), also="tests/client/test_memory.py")
def verify(stage: Stage, case: str | None) -> Ran:
    universe = _before(stage)
    front_end = stage.front_end(universe)
    user = stage.user(front_end)
    user.ok("get", ALICE)
    _lie(universe, case)
    # For another user, who has not seen the account before, the proof verifies.
    other = stage.user(front_end, "newcomer")
    other.ok("get", ALICE, "--out", "proof", code=3 if case == "account-vanishes" else 0)
    return _verify(user, other)


def _verify(user: StageUser, other: StageUser) -> Ran:
    return user.kt("verify", other.home / "proof")
