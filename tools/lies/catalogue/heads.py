"""Heads that do not follow from the records, told to processes that replay the logs."""

from __future__ import annotations

from typing import Any

from tools.lies.commands import Ran
from tools.lies.people import STRANGER, seed
from tools.lies.registry import BY_SIGNER, Lie, lie, scene
from tools.lies.stage import Stage

FIELDS: dict[str, Any] = {
    "origin": "other.example.org/people",
    "epoch": 3,
    "map_root": seed("another map"),
    "map_size": 2,
    "log_size": 9,
    "log_root": seed("another log"),
    "queue_next": 9,
    "timestamp": 1_700_000_000_000,
    "config_hash": seed("another config"),
}


def _field(name: str) -> Lie:
    message = "covers 9 records" if name == "log_size" else f"{name} is "
    return lie(f"head-{name.replace('_', '-')}", BY_SIGNER, "kt audit", 4, message, case=name)


_KEY = "is not signed by the directory's key"


@scene(
    *map(_field, FIELDS),
    lie("head-signature", BY_SIGNER, "kt audit", 4, _KEY, case="key"),
    lie("heads-checkpoint-key", BY_SIGNER, "kt audit", 4, "checkpoint", case="heads_key"),
    lie("mutations-checkpoint-key", BY_SIGNER, "kt audit", 4, "checkpoint", case="mutations_key"),
    lie("heads-checkpoint-root", BY_SIGNER, "kt audit", 4, "is not of these records", case="heads_root"),
    lie(
        "mutations-checkpoint-root",
        BY_SIGNER,
        "kt audit",
        4,
        "is not of these records",
        case="mutations_root",
    ),
    also="tests/projections/test_auditor.py",
)
def heads(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    universe.put("alice")
    instead: dict[str, Any] = {}
    if case in FIELDS:
        instead = {case: FIELDS[case]}
    elif case is not None:
        instead = {case: seed("another log") if case.endswith("root") else STRANGER}
    universe.epoch(**instead)
    stage.write(universe)
    return stage.audit()
