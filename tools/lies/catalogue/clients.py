"""Two histories, rollbacks and retired keys, told to a client that has state from an earlier call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tools.lies import answers
from tools.lies.answers import Json
from tools.lies.commands import Ran
from tools.lies.frontend import RefusalError
from tools.lies.people import SIGNER, STRANGER, SUCCESSOR, key, label
from tools.lies.registry import BY_FRONT_END, BY_SIGNER, LATER, Lie, lie, scene
from tools.lies.stage import NEW_VKEY, VKEY, Stage, StageUser
from tools.lies.universe import Universe

ALICE = label("alice")

COMMANDS: dict[str, tuple[str, ...]] = {
    "get": ("get", ALICE),
    "history": ("history", ALICE),
    "watch": ("watch", "--once", ALICE),
    "put": ("put", ALICE, "--key", "new-key", "--type", "raw"),
    "checkpoint": ("checkpoint",),
    "epochs": ("epochs",),
    "status": ("status",),
}


def _to(command: str, what: str, code: int, message: str) -> Lie:
    teller = BY_FRONT_END if what.startswith("rollback") else BY_SIGNER
    return lie(f"{what}-{command}", teller, f"kt {command}", code, message, LATER, f"{what} {command}")


_TWO = "the directory signed two different"


def _run(user: StageUser, command: str) -> Ran:
    return user.kt(*COMMANDS[command])


@scene(
    *(_to(command, "rollback", 4, "rollback: ") for command in COMMANDS),
    *(_to(command, "fork", 5, _TWO) for command in COMMANDS),
    also="tests/client/test_heads.py",
)
def histories(stage: Stage, case: str | None) -> Ran:
    what, command = (case or "truth get").split()
    universe = _universe(stage)
    earlier = universe.fork()
    universe.epoch()
    front_end = stage.front_end(universe)
    user = _somebody(stage.user(front_end))
    user.ok("get", ALICE)
    user.ok("watch", "--once", ALICE)
    if what == "rollback":
        front_end.universe = earlier
    if what == "fork":
        earlier.put("bob")
        earlier.epoch()
        front_end.universe = earlier
    return _run(user, command)


_PROVEN = "That was proven before"
_FOREIGN = "config: the chain of configs is not the one"


@scene(
    *(
        lie(f"convicted-and-honest-again-{command}", BY_SIGNER, f"kt {command}", 5, _PROVEN, LATER, command)
        for command in (*COMMANDS, "verify")
    ),
    also="tests/client/test_convictions.py",
)
def convicted(stage: Stage, case: str | None) -> Ran:
    """After the second history, the operator serves the first one again."""
    universe, other = _two_sides(stage)
    front_end = stage.front_end(universe)
    user = _somebody(stage.user(front_end))
    user.ok("get", ALICE, "--out", "proof")
    user.ok("watch", "--once", ALICE)
    if case is not None:
        front_end.universe = other
        user.ok("get", ALICE, code=5)
        front_end.universe = universe
    return user.kt("verify", "proof") if case == "verify" else _run(user, case or "get")


@scene(
    *(
        lie(
            f"another-directory-with-fewer-epochs-{command}",
            "anybody",
            f"kt {command}",
            4,
            _FOREIGN,
            LATER,
            command,
        )
        for command in COMMANDS
    ),
    also="tests/client/test_convictions.py",
)
def impostor(stage: Stage, case: str | None) -> Ran:
    """A front end of another, younger directory with the same name always answers that it is behind."""
    front_end = stage.front_end(_universe(stage))
    user = _somebody(stage.user(front_end))
    user.ok("get", ALICE)
    user.ok("watch", "--once", ALICE)
    if case is not None:
        younger = stage.universe(signer=STRANGER)
        younger.put("alice")
        younger.epoch()
        front_end.universe = younger
        for path in ("/v1/lookup", "/v1/history", "/v1/range"):
            front_end.rewrite[path] = _behind
    return _run(user, case or "get")


def _behind(asked: Json, told_: Json) -> Json:
    del asked, told_
    raise RefusalError(503, "unavailable", "this front end is behind: it has 1 epochs so far")


def _universe(stage: Stage) -> Universe:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    universe.epoch()
    return universe


def _two_sides(stage: Stage) -> tuple[Universe, Universe]:
    """Return two histories with the same past and the same length. bob is in the second one."""
    universe = _universe(stage)
    other = universe.fork()
    universe.epoch()
    other.put("bob")
    other.epoch()
    return universe, other


def _somebody(user: StageUser) -> StageUser:
    (user.home / "new-key").write_bytes(b"a new key")
    return user.holds("alice")


@scene(
    lie("fork-that-is-longer", BY_SIGNER, "kt get", 5, _TWO, LATER, "longer"),
    lie("fork-of-an-earlier-epoch", BY_SIGNER, "kt get", 5, _TWO, LATER, "earlier"),
    lie("consistency-proof-forged", BY_FRONT_END, "kt get", 4, "consistency: ", LATER, "proof"),
    also="tests/client/test_evidence.py",
)
def longer(stage: Stage, case: str | None) -> Ran:
    universe = _universe(stage)
    other = universe.fork()
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end)
    user.ok("get", ALICE)
    universe.epoch()
    if case in ("longer", "earlier"):
        if case == "earlier":
            universe.epoch()
            user.ok("get", ALICE)
        other.put("bob")
        for _ in range(4):
            other.epoch()
        front_end.universe = other
    if case == "proof":
        front_end.rewrite["/v1/lookup"] = lambda _, told_: {**told_, "consistency": told_["consistency"][:-1]}
    return user.kt("get", ALICE)


@scene(
    lie("evidence-shown-to-anybody", BY_SIGNER, "kt verify", 5, _TWO, LATER, "whole"),
    lie("evidence-forged", "anybody", "kt verify", 4, "evidence: ", case="forged"),
    also="tests/cli/people/test_verify.py",
)
def evidence(stage: Stage, case: str | None) -> Ran:
    universe = _universe(stage)
    other = universe.fork()
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end)
    user.ok("get", ALICE, "--out", "proof")
    if case is None:
        return user.kt("verify", "proof")
    other.put("bob")
    other.epoch()
    front_end.universe = other
    user.ok("get", ALICE, code=5)
    saved = user.evidence[-1]
    anybody = stage.user(front_end, "anybody")
    file = Path(anybody.home / "evidence")
    data = bytearray(saved.read_bytes())
    if case == "forged":
        data[-40] ^= 1
    file.write_bytes(data)
    return anybody.kt("verify", file)


_RETIRED = "is signed by a key that the directory has replaced since"


@scene(
    lie("retired-key-goes-on", BY_SIGNER, "kt get", 4, _RETIRED, case="pinned"),
    lie("retired-key-goes-on-after-first-use", BY_SIGNER, "kt get", 4, _RETIRED, LATER, "first use"),
    lie("retired-key-signs-the-checkpoint", BY_SIGNER, "kt get", 4, _RETIRED, case="checkpoint"),
    lie("retired-key-signs-heads", BY_SIGNER, "kt checkpoint", 4, _RETIRED, case="heads"),
    also="tests/client/test_heads.py",
)
def rotation(stage: Stage, case: str | None) -> Ran:
    universe = _universe(stage)
    before = universe.fork()
    universe.rotate(SUCCESSOR)
    universe.epoch()
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end, vkey=None if case == "first use" else NEW_VKEY)
    if case is None:
        return user.kt("get", ALICE)
    if case == "first use":
        user.ok("get", ALICE)
        universe.epoch(key=SIGNER, config_hash=universe.configs[0].config.hash)
    elif case == "checkpoint":
        universe.epoch(heads_key=SIGNER)
    else:
        before.configs = universe.configs
        for _ in range(4):
            before.epoch()
        front_end.universe = before
    return user.kt(*COMMANDS["checkpoint" if case == "heads" else "get"])


@scene(
    lie("another-key-of-the-same-origin", BY_FRONT_END, "kt get", 4, "config: ", LATER, "key"),
    lie("fork-after-a-first-use", BY_SIGNER, "kt get --vkey", 5, _TWO, LATER, "vkey"),
    lie("fork-for-a-successors-key", BY_SIGNER, "kt get --vkey", 5, _TWO, LATER, "successor"),
    lie("two-configs", BY_SIGNER, "kt get", 5, "two different configs", LATER, "configs"),
    also="tests/client/test_states.py",
)
def one_state(stage: Stage, case: str | None) -> Ran:
    universe = _universe(stage)
    other = universe.fork()
    universe.rotate(SUCCESSOR)
    universe.epoch()
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end, vkey=None)
    user.ok("get", ALICE)
    if case == "key":
        stranger = stage.universe(signer=STRANGER)
        stranger.put("alice")
        for _ in range(6):
            stranger.epoch()
        front_end.universe = stranger
    elif case == "configs":
        other.rotate(key("another successor"))
        for _ in range(3):
            other.epoch()
        front_end.universe = other
    elif case is not None:
        other.rotate(SUCCESSOR)
        other.put("bob")
        other.epoch()
        other.epoch()
        front_end.universe = other
    pinned = {"vkey": ("--vkey", VKEY), "successor": ("--vkey", NEW_VKEY)}.get(case or "vkey", ())
    return user.kt("get", ALICE, *pinned)


@scene(
    lie("stale-head-get", BY_FRONT_END, "kt get", 7, "freshness: ", case="stale get"),
    lie("stale-head-checkpoint", BY_FRONT_END, "kt checkpoint", 7, "freshness: ", case="stale checkpoint"),
    lie("stale-head-epochs", BY_FRONT_END, "kt epochs", 7, "freshness: ", case="stale epochs"),
    lie("stale-head-status", BY_FRONT_END, "kt status", 7, "freshness: ", case="stale status"),
    lie("future-head-get", BY_SIGNER, "kt get", 7, "in the future", case="future get"),
    lie("future-head-checkpoint", BY_SIGNER, "kt checkpoint", 7, "in the future", case="future checkpoint"),
    also="tests/client/test_heads.py",
)
def clocks(stage: Stage, case: str | None) -> Ran:
    what, command = (case or "truth get").split()
    stale = {"begin": 3_600_000} if what == "stale" else {}
    universe = stage.universe(max_interval=10_000, **stale)
    universe.put("alice")
    universe.epoch()
    universe.epoch(at=universe.clock + 3_600_000 if what == "future" else None)
    return _run(stage.user(stage.front_end(universe)), command)


@scene(
    lie(
        "head-that-is-not-in-the-log-checkpoint",
        BY_SIGNER,
        "kt checkpoint",
        4,
        "map head: ",
        case="checkpoint",
    ),
    lie("head-that-is-not-in-the-log-epochs", BY_SIGNER, "kt epochs", 4, "map head: ", case="epochs"),
    lie("head-that-is-not-in-the-log-status", BY_SIGNER, "kt status", 4, "map head: ", case="status"),
    also="tests/client/test_heads.py",
)
def membership(stage: Stage, case: str | None) -> Ran:
    universe, other = _two_sides(stage)
    front_end = stage.front_end(universe)
    if case is not None:
        # The log and its checkpoints are true. The signed head of the same epoch is not in the log.
        true, false = universe.epochs[-1], other.epochs[-1]
        for path in ("/v1/heads/latest", f"/v1/heads/{true.epoch}"):
            front_end.rewrite[path] = lambda _, told_: {
                **told_,
                "smh": answers.text(false.event.smh_bytes),
                "mutations_checkpoint": false.event.mutations_checkpoint,
            }
    return _run(stage.user(front_end), case or "checkpoint")


@scene(
    lie("longer-silence-allowed-get", BY_SIGNER, "kt get", 0, "now promises a head every", LATER, "get"),
    lie("longer-silence-allowed-audit", BY_SIGNER, "kt audit", 0, "max_interval", case="audit"),
    also="tests/client/test_heads.py",
)
def promises(stage: Stage, case: str | None) -> Ran:
    """A longer ``max_interval`` is not a lie, but it can prepare one. The commands report it."""
    universe = _universe(stage)
    user = stage.user(stage.front_end(universe))
    user.ok("get", ALICE)
    if case is not None:
        current = universe.configs[-1].config
        longer = replace(current, max_interval=10 * current.max_interval, previous=current.hash)
        universe.configure(longer, [SIGNER])
    universe.epoch()
    universe.epoch()
    if case == "audit":
        stage.write(universe)
        return stage.audit()
    return user.kt("get", ALICE)
