"""The member to connect to, in every state that real clusters were seen in (``gossip.json``)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kt_es.eventstore.discovery import Answers, Member, Targets, choose, find_leader

Situation = dict[str, list[tuple[int, str, bool]]]

GOSSIP: dict[str, Situation] = {
    name: situation
    for name, situation in json.loads(Path(__file__).with_name("gossip.json").read_text()).items()
    if name != "about"
}
SEEDS = {"2201": None, "2202": None, "2203": None}

# By the beginning of the situation's name; None: nobody says of itself that it leads.
LEADERS = {
    "healthy": "2203",
    "leader 2203 killed": "2202",
    "leader 2202 terminated": "2203",
    "leader 2203 frozen, the others": None,
    "leader 2203 frozen without load and thawed": "2201",
    "leader 2201 frozen for 40 s": "2203",
    "the same, later": "2203",
    "then 2202 killed": "2203",
    "ten seconds later": None,
}


class Cluster:
    """Members that answer as in a situation; ``asked`` has the rounds of questions."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self.asked: list[tuple[str, ...]] = []

    def ask(self, targets: Targets) -> Answers:
        self.asked.append(tuple(targets))
        return {
            target: [
                Member(str(port), state == "Leader", alive) for port, state, alive in self._situation[target]
            ]
            for target in targets
            if target in self._situation
        }


@pytest.mark.parametrize("name", GOSSIP)
def test_the_living_leader_is_found(name: str) -> None:
    (expected,) = [leader for start, leader in LEADERS.items() if name.startswith(start)]
    assert find_leader(SEEDS, Cluster(GOSSIP[name]).ask) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", GOSSIP)
def test_any_seed_leads_to_it(name: str, seed: str) -> None:
    (expected,) = [leader for start, leader in LEADERS.items() if name.startswith(start)]
    found = find_leader({seed: None}, Cluster(GOSSIP[name]).ask)
    assert found == (expected if seed in GOSSIP[name] else None)


def test_a_dead_leader_is_never_taken() -> None:
    alone = {"1": [(1, "Follower", True), (2, "Leader", False)]}
    assert find_leader({"1": None, "2": None}, Cluster(alone).ask) is None


def test_a_leader_that_others_name_has_to_confirm_it_itself() -> None:
    mistaken: Situation = {
        "1": [(1, "Follower", True), (2, "Leader", True)],
        "2": [(1, "Follower", True), (2, "ResigningLeader", True)],
    }
    assert find_leader({"1": None}, Cluster(mistaken).ask) is None


def test_of_two_that_claim_to_lead_the_one_that_others_believe_is_taken() -> None:
    split: Situation = {
        "1": [(1, "Leader", True), (2, "Follower", True), (3, "Follower", True)],
        "2": [(1, "Leader", False), (2, "Leader", True), (3, "Follower", True)],
        "3": [(1, "Unknown", False), (2, "Leader", True), (3, "Follower", True)],
    }
    assert find_leader({"1": None, "2": None, "3": None}, Cluster(split).ask) == "2"


def test_two_leaders_that_are_believed_alike_are_not_chosen_between() -> None:
    assert choose({"1": [Member("1", True, True)], "2": [Member("2", True, True)]}) is None


def test_seeds_that_are_addressed_by_another_name_are_asked_by_the_advertised_one() -> None:
    told = [(1, "Leader", True), (2, "Follower", True)]
    cluster = Cluster({"other-name": told, "1": told, "2": told})
    assert find_leader({"other-name": None}, cluster.ask) == "1"
    assert cluster.asked == [("other-name",), ("1",)]


def test_a_server_that_lists_only_itself_is_taken_as_it_was_addressed() -> None:
    assert find_leader({"here": None}, Cluster({"here": [(1, "Leader", True)]}).ask) == "here"
