"""Which member of a cluster to connect to: the one that leads and is alive.

Members tell each other by gossip who is in which state, and they disagree for seconds after a failure. A
leader that ended itself stays listed as leader, not alive, until somebody starts it again; during an
election one member may believe in a leader that another one knows to be dead. So a member is taken only
if somebody lists it as leader and alive, and if it says the same of itself.

``choose`` decides and asks nobody. ``find_leader`` asks, through the function that it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """What one member says of another, or of itself. ``target`` is ``address:port`` as advertised."""

    target: str
    leads: bool
    is_alive: bool


Answers = Mapping[str, Sequence[Member]]
"""By the target that was asked: the members it listed. A target without an answer is missing."""

Targets = Mapping[str, str | None]
"""Targets to ask, each with the name that its certificate has where that is not the target's own."""

Ask = Callable[[Targets], Answers]
"""Asks several targets at the same time, within one deadline."""


def find_leader(seeds: Targets, ask: Ask) -> str | None:
    """The target of the leader, None if no member confirms that it leads.

    Every seed is asked, then those that were named as leaders, and if none confirms it, every other
    member that somebody takes for alive. A server that lists nobody but itself is no cluster: it is
    taken as it was addressed.
    """
    answers = dict(ask(seeds))
    for seed in seeds:
        if len(answers.get(seed, ())) == 1:
            return seed
    for named in (_leaders(answers), _living(answers)):
        missing = dict.fromkeys(target for target in named if target not in answers)
        if missing:
            answers.update(ask(missing))
        leader = choose(answers)
        if leader is not None:
            return leader
    return None


def choose(answers: Answers) -> str | None:
    """The member that says of itself that it leads; of several the one that most others believe.

    None if there is none, or if two are believed by equally many: then the members are not done yet.
    """
    confirmed = [
        target
        for target, members in answers.items()
        if any(_is_leader(m) and m.target == target for m in members)
    ]
    if len(confirmed) < 2:
        return confirmed[0] if confirmed else None
    votes = _leaders(answers)
    first, second = sorted(confirmed, key=lambda target: -votes[target])[:2]
    return first if votes[first] > votes[second] else None


def confirms(target: str, members: Sequence[Member]) -> bool:
    """Whether the member at ``target`` says of itself that it leads."""
    return any(member.target == target and _is_leader(member) for member in members)


def _is_leader(member: Member) -> bool:
    return member.leads and member.is_alive


def _leaders(answers: Answers) -> Counter[str]:
    """How many members take each target for a living leader."""
    return Counter(member.target for member in _all(answers) if _is_leader(member))


def _living(answers: Answers) -> Counter[str]:
    return Counter(member.target for member in _all(answers) if member.is_alive)


def _all(answers: Answers) -> Iterable[Member]:
    return (member for members in answers.values() for member in members)
