"""Within an epoch items are judged against the epoch before, not against each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kt_es.formats.entries import Mutation
from kt_es.formats.queue import Item, Verdict
from tests.builders import (
    OTHER_ORIGIN,
    START,
    config,
    item,
    marker,
    mutation,
    new_epoch,
    next_mutation,
    private_key,
    seed,
    signed_config,
    verdict_of,
)

HELD = {user: mutation(user) for user in ("alice", "bob")}
NEW = private_key("new")


def of_alice_and_bob() -> list[Mutation]:
    made: list[Mutation] = []
    for user, first in HELD.items():
        second = next_mutation(user, first)
        made += [
            first,
            second,
            next_mutation(user, first, commits_to=seed("other")),
            next_mutation(user, first, keys=[NEW]),
            next_mutation(user, first, keys=[NEW], signed_by=[private_key(user), NEW]),
            next_mutation(user, first, origin=OTHER_ORIGIN),
            next_mutation(user, second),
        ]
    return made


MUTATIONS = [*of_alice_and_bob(), mutation("carol"), mutation("carol", commits_to=seed("other"))]
CHOSEN = st.lists(st.sampled_from(MUTATIONS), max_size=12)


def decided(chosen: list[Mutation]) -> list[Verdict]:
    epoch = new_epoch()
    return [verdict_of(epoch, item(of), before(of)) for of in chosen]


def before(of: Mutation) -> Mutation | None:
    return next((held for held in HELD.values() if held.entry.index == of.entry.index), None)


@given(CHOSEN)
def test_only_what_was_accepted_at_the_same_index_matters(chosen: list[Mutation]) -> None:
    winners: dict[bytes, bytes] = {}
    for of, verdict in zip(chosen, decided(chosen), strict=True):
        expected = decided([of])[0]
        if expected is Verdict.ACCEPTED:
            winner = winners.get(of.entry.index)
            if winner is not None:
                expected = Verdict.DUPLICATE if winner == of.entry_hash else Verdict.CONFLICT
            winners.setdefault(of.entry.index, of.entry_hash)
        assert verdict is expected


@given(CHOSEN)
def test_other_users_do_not_matter(chosen: list[Mutation]) -> None:
    together = dict(zip(range(len(chosen)), decided(chosen), strict=True))
    for user in {of.entry.index for of in chosen}:
        places = [place for place, of in enumerate(chosen) if of.entry.index == user]
        assert decided([chosen[place] for place in places]) == [together[place] for place in places]


@given(CHOSEN, st.integers(0, 12))
def test_configs_and_refused_markers_do_not_matter(chosen: list[Mutation], at: int) -> None:
    changed = signed_config(config(max_interval=50_000, previous=config().hash))
    between: list[Item] = [item(changed), item(marker(START, key=NEW)), item(marker(0))]
    epoch = new_epoch()
    verdicts = []
    for place, of in enumerate(chosen):
        if place == at:
            assert [verdict_of(epoch, queued) for queued in between] == [
                Verdict.CONFIG,
                Verdict.FOREIGN_MARKER,
                Verdict.STALE_MARKER,
            ]
        verdicts.append(verdict_of(epoch, item(of), before(of)))
    assert verdicts == decided(chosen)
