"""Every fuzz target without a fuzzer: what was found before, the seeds, and a few thousand random changes."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from kt_es.api.codec import decode_json
from tools.fuzz.mutations import mutate
from tools.fuzz.readers import ANSWER_READERS, is_read
from tools.fuzz.seeds import seeds
from tools.fuzz.targets import TARGETS

CASES = json.loads((Path(__file__).parents[2] / "tools/fuzz/regressions.json").read_text(encoding="utf-8"))
SEEDS = seeds()
SEED = 20_240_101
# Changes of one input take milliseconds there, microseconds elsewhere.
SLOW = {"queue": 40, "decision": 40, "openpgp": 40, "pem": 100, "ssh": 60, "lookup": 100, "vrf": 100}
ROUNDS = 250
# Seeds, by number, that no account, answer or epoch comes of.
REFUSED = {
    "json": (8,),  # a problem is no answer
    "queue": (1,),  # of another directory
    "ssh": (1,),  # for a namespace only
}


def case_input(case: dict[str, str | int]) -> bytes:
    """``hex``, and behind it ``then`` so many ``times``."""
    again = bytes.fromhex(str(case.get("then", "")))
    return bytes.fromhex(str(case["hex"])) + again * int(case.get("times", 1))


def run(target: str, data: bytes) -> bool:
    if target not in TARGETS:
        pytest.skip(f"{target}: the optional extra is not installed")
    try:
        return TARGETS[target](data)
    except BaseException as error:
        error.add_note(f"target {target}, input {data[:4096].hex()}")
        raise


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_was_found_once_is_not_found_again(case: dict[str, str | int]) -> None:
    run(str(case["target"]), case_input(case))


@pytest.mark.parametrize("target", sorted(SEEDS))
def test_every_seed_keeps_the_promises(target: str) -> None:
    """And is read: what were refused would be held to nothing, and so would be what is made of it."""
    read = [run(target, data) for data in SEEDS[target]]
    assert read == [number not in REFUSED.get(target, ()) for number in range(len(read))]
    assert any(read)


def test_every_reader_of_an_answer_reads_a_seed() -> None:
    bodies = [decode_json(data, "answer") for data in SEEDS["json"]]
    assert [any(is_read(reader, body) for body in bodies) for reader in ANSWER_READERS] == [True] * len(
        ANSWER_READERS
    )


def test_every_target_has_seeds_and_every_case_a_target() -> None:
    assert set(TARGETS) <= set(SEEDS)
    assert CASES
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
