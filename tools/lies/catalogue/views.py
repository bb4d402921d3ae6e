"""Two views at the same time: one group is shown one log, another group another one, and they compare."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from kt_es.formats.cosignatures import CosignerKey, cosign
from kt_es.formats.heads import heads_origin
from kt_es.formats.notes import parse_note, verifier_key
from kt_es.formats.witnessing import AddCheckpoint
from tools.lies import people
from tools.lies.answers import Json
from tools.lies.commands import Process, Ran, StageError
from tools.lies.frontend import RefusalError
from tools.lies.people import ORIGIN, SIGNER, label
from tools.lies.registry import BY_FRONT_END, BY_SIGNER, LATER, LIVE, ONCE, lie, scene
from tools.lies.stage import Stage, StageUser
from tools.lies.universe import Universe

ALICE = label("alice")
HEADS = heads_origin(ORIGIN)
WITNESS = people.key("witness")
KEY = CosignerKey("witness.lies.example", WITNESS.public)

_TWO = "the directory signed two different"


class Views:
    """A directory that shows two logs of four heads, which begin alike, and a front end for each of them."""

    def __init__(self, stage: Stage, *, honest: bool = False) -> None:
        one = stage.universe()
        one.put("alice")
        one.epoch()
        one.epoch()
        other = one if honest else one.fork()
        one.put("bob")
        if not honest:
            other.put("carol")
        for universe in {id(each): each for each in (one, other)}.values():
            universe.epoch()
            universe.epoch()
        self.universes = one, other
        self.stage = stage
        self.one, self.other = stage.front_end(one), stage.front_end(other)

    def users(self) -> tuple[StageUser, StageUser]:
        """One user of each front end. They share nothing."""
        return self.stage.user(self.one, "one"), self.stage.user(self.other, "other")

    def witness(self) -> str:
        """Start a witness that has cosigned the first log, and return its URL."""
        words = (
            "--log",
            verifier_key(HEADS, SIGNER.public).encode(),
            "--name",
            KEY.name,
            "--data",
            "witness",
        )
        process = self.stage.start("witness", *words, "--listen", "127.0.0.1:0")
        url = process.wait_for_line('"serving"').partition('"url": "')[2].partition('"')[0]
        sent = AddCheckpoint(0, (), self.universes[0].epochs[-1].event.heads_checkpoint).encode()
        answer = httpx.post(f"{url}/add-checkpoint", content=sent, timeout=10, trust_env=False)
        if answer.status_code != 200:
            raise StageError(f"the witness answered {answer.status_code}: {answer.text}")
        return url

    def monitor(self, *options: str) -> tuple[Process, str]:
        """Start a monitor of the first log, and return its URL when it has verified that log."""
        self.stage.write(self.universes[0])
        process = self.stage.process("monitor", "--metrics", "127.0.0.1:0", *options)
        process.wait_for_line('"epoch": 4')
        return process, process.wait_for_line('"metrics"').partition('"url": "')[2].partition("/metrics")[0]


@scene(
    lie("two-views-and-another-front-end", BY_SIGNER, "kt get --also", 5, _TWO, ONCE, "front-end"),
    lie("two-views-and-a-friend", BY_SIGNER, "kt get --also", 5, _TWO, ONCE, "friend"),
    lie("two-views-and-a-witness", BY_SIGNER, "kt get --also", 5, _TWO, ONCE, "witness"),
    lie("two-views-and-a-monitor", BY_SIGNER, "kt get --also", 5, _TWO, ONCE, "monitor"),
    lie("two-views-and-named-watchers", BY_SIGNER, "kt get --watchers", 5, _TWO, ONCE, "watchers"),
    lie("two-views-history", BY_SIGNER, "kt history --also", 5, _TWO, ONCE, "history"),
    lie("two-views-watch", BY_SIGNER, "kt watch --also", 5, _TWO, LATER, "watch"),
    lie(
        "two-views-and-a-statement-withheld",
        BY_FRONT_END,
        "kt get --also",
        4,
        "does not show its own statement",
        ONCE,
        "withheld",
    ),
    also="tests/client/test_comparing.py",
)
def views(stage: Stage, case: str | None) -> Ran:
    """A user of one front end compares with what the other one, or its users, were shown."""
    made = Views(stage, honest=case is None)
    one, other = made.users()
    match case:
        case "friend":
            (other.home / "checkpoint").write_text(one.ok("checkpoint").out)
            return other.kt("get", ALICE, "--also", "checkpoint")
        case "witness":
            return other.kt("get", ALICE, "--also", made.witness())
        case "monitor":
            return other.kt("get", ALICE, "--also", made.monitor()[1])
        case "watchers":
            named = {"kind": "monitor", "name": "m", "vkey": "", "url": made.one.url}
            made.other.rewrite["/.well-known/kt-es.json"] = lambda _, said: {**said, "watchers": [named]}
            return other.kt("get", ALICE, "--watchers")
        case "history":
            return other.kt("history", ALICE, "--also", made.one.url)
        case "watch":
            other.holds("alice")
            return other.kt("watch", ALICE, "--also", made.one.url)
        case "withheld":
            made.other.rewrite["/v1/heads/4"] = _refuse
            return _longer(made, other)
    return other.kt("get", ALICE, "--also", made.one.url)


def _refuse(_: Json, said: Json) -> Json:
    raise RefusalError(404, "unknown-epoch", "there is no such epoch yet")


def _longer(made: Views, other: StageUser) -> Ran:
    """The other log goes on, so that its front end answers about head 4 only when it is asked for it."""
    made.universes[1].epoch()
    return other.kt("get", ALICE, "--also", made.one.url)


@scene(
    lie("two-views-monitor", BY_SIGNER, "kt monitor --also", 5, _TWO, LIVE, "monitor"),
    lie("two-views-audit", BY_SIGNER, "kt audit --also", 5, _TWO, ONCE, "audit"),
    also="tests/projections/test_gossip.py",
)
def watched_views(stage: Stage, case: str | None) -> Ran:
    """A monitor or an audit of one log compares with a front end that shows another one."""
    made = Views(stage, honest=case is None)
    if case == "monitor":
        stage.write(made.universes[0])
        return stage.process("monitor", "--also", made.other.url).end()
    stage.write(made.universes[0])
    return stage.audit("--also", made.other.url)


def _cosigned(universe: Universe) -> str:
    note = universe.epochs[-1].event.heads_checkpoint
    return note + cosign(parse_note(note).text, KEY.name, WITNESS, int(time.time()))


@scene(
    lie(
        "cosignatures-left-out", BY_FRONT_END, "kt get --policy", 8, "no quorum w of witnesses", ONCE, "none"
    ),
    lie(
        "cosignature-made-up", BY_FRONT_END, "kt get --policy", 8, "no quorum w of witnesses", ONCE, "made-up"
    ),
    lie(
        "cosigned-head-of-long-ago", BY_FRONT_END, "kt get --policy", 8, "vouches up to epoch 2", ONCE, "old"
    ),
    lie("another-log-cosigned", BY_SIGNER, "kt get --policy", 5, _TWO, ONCE, "fork"),
    also="tests/client/test_vouching.py",
)
def vouching(stage: Stage, case: str | None) -> Ran:
    """A user wants a witness to vouch, and the front end answers about cosignatures as it likes."""
    made = Views(stage)
    one, _ = made.users()
    (one.home / "policy").write_text(f"witness w {KEY.vkey}\nquorum w\n")
    good = _cosigned(made.universes[0])
    notes = {
        None: [good],
        "none": [],
        "fork": [_cosigned(made.universes[1])],
        "old": [_old(made.universes[0])],
    }
    notes["made-up"] = [good.replace("AA", "AB")]
    made.one.rewrite["/v1/cosigned"] = lambda _, said: {**said, "heads": notes[case]}
    return one.kt("get", ALICE, "--policy", Path("policy"), "--policy-age", "1")


def _old(universe: Universe) -> str:
    note = universe.epochs[1].event.heads_checkpoint
    return note + cosign(parse_note(note).text, KEY.name, WITNESS, int(time.time()))
