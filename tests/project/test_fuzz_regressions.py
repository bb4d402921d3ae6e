"""Every fuzz target without a fuzzer: what was found before, the seeds, and a few thousand random changes."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from tools.fuzz.mutations import mutate
from tools.fuzz.seeds import seeds
from tools.fuzz.targets import TARGETS

CASES = json.loads((Path(__file__).parents[2] / "tools/fuzz/regressions.json").read_text(encoding="utf-8"))
SEEDS = seeds()
SEED = 20_240_101
# Changes of one input take milliseconds there, microseconds elsewhere.
SLOW = {"queue": 40, "decision": 40, "openpgp": 40, "pem": 100, "ssh": 60, "lookup": 100, "vrf": 100}
ROUNDS = 250


def case_input(case: dict[str, str | int]) -> bytes:
    """``hex``, and behind it ``then`` so many ``times``."""
    again = bytes.fromhex(str(case.get("then", "")))
    return bytes.fromhex(str(case["hex"])) + again * int(case.get("times", 1))


def run(target: str, data: bytes) -> None:
    if target not in TARGETS:
        pytest.skip(f"{target}: the optional extra is not installed")
    try:
        TARGETS[target](data)
    except BaseException as error:
        error.add_note(f"target {target}, input {data[:4096].hex()}")
        raise


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_was_found_once_is_not_found_again(case: dict[str, str | int]) -> None:
    run(str(case["target"]), case_input(case))


@pytest.mark.parametrize("target", sorted(SEEDS))
def test_every_seed_keeps_the_promises(target: str) -> None:
    for data in SEEDS[target]:
        run(target, data)


def test_every_target_has_seeds_and_every_case_a_target() -> None:
    assert set(TARGETS) <= set(SEEDS)
    assert {case["target"] for case in CASES} <= set(SEEDS)
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("target", sorted(SEEDS))
def test_random_changes_of_the_seeds_keep_the_promises(target: str) -> None:
    print(f"seed {SEED}")
    random = Random(f"{SEED} {target}")
    known = list(SEEDS[target])
    for _ in range(SLOW.get(target, ROUNDS)):
        changed = mutate(random.choice(known), random)
        run(target, changed)
        # Changes upon changes reach further than the first ones.
        known[len(SEEDS[target]) :] = [changed]
