"""Facts about signatures save time and change no verdict: with all of them, some of them and none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.signatures import signed_message
from kt_es.epochs import decide, is_authorized
from kt_es.formats.entries import Mutation, PublicKey, Signature
from kt_es.formats.facts import FACT_SIZE, fact, facts_about
from kt_es.formats.queue import Verdict
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    current,
    mutation,
    new_epoch,
    next_mutation,
    p256_key,
    private_key,
    seed,
)

ALICE, NEW, MALLORY, P256 = (
    private_key("alice"),
    private_key("alice new"),
    private_key("mallory"),
    p256_key("alice"),
)
FIRST = mutation("alice")


def broken(good: Mutation) -> Mutation:
    """``good`` with a signature of the right key that is not valid."""
    first = good.signatures[0]
    bad = Signature(first.key_id, first.value[:-1] + bytes((first.value[-1] ^ 1,)))
    return replace(good, signatures=(bad, *good.signatures[1:]))


PROPOSED = {
    "first": FIRST,
    "first, forged": mutation("alice", signed_by=[MALLORY]),
    "first, broken": broken(FIRST),
    "first, signed for another directory": mutation("alice", origin=OTHER_ORIGIN),
    "first, signed by one more": mutation("alice", signed_by=[ALICE, MALLORY]),
    "first, of two keys": mutation("alice", keys=[ALICE, P256]),
    "another first": mutation("alice", commits_to=bytes(32)),
    "next": next_mutation("alice", FIRST),
    "next, broken": broken(next_mutation("alice", FIRST)),
    "next, taken over": next_mutation("alice", FIRST, keys=[MALLORY]),
    "next, rotated": next_mutation("alice", FIRST, keys=[NEW], signed_by=[ALICE, NEW]),
    "next, rotated and broken": broken(next_mutation("alice", FIRST, keys=[NEW], signed_by=[ALICE, NEW])),
    "next, stale": next_mutation("alice", mutation("alice", commits_to=bytes(32))),
    "bob": mutation("bob", keys=[P256]),
}
MUTATIONS = list(PROPOSED.values())
FACTS = [about for made in MUTATIONS for about in facts_about(made, ORIGIN)]


def verdicts(queue: list[Mutation], held: Mutation | None, verified: frozenset[bytes]) -> list[Verdict]:
    epoch = new_epoch()
    before = None if held is None else current(held)
    return [decide(epoch, made, before, None, verified) for made in queue]


@given(
    st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=8),
    st.sampled_from([None, FIRST]),
    st.frozensets(st.sampled_from(FACTS) | st.binary(min_size=32, max_size=32)),
)
def test_the_verdicts_are_the_same_with_any_facts_that_are_true(
    queue: list[Mutation], held: Mutation | None, verified: frozenset[bytes]
) -> None:
    alone = verdicts(queue, held, frozenset())
    assert verdicts(queue, held, verified) == alone
    assert verdicts(queue, held, frozenset(FACTS)) == alone


@pytest.mark.parametrize("name", [name for name in PROPOSED if "forged" in name or "broken" in name])
def test_a_signature_that_is_not_valid_has_no_fact(name: str) -> None:
    made = PROPOSED[name]
    keys = (*made.entry.authorized_keys, *FIRST.entry.authorized_keys)
    assert not {fact(key, made.signatures[0], made.entry_hash, ORIGIN) for key in keys} & set(FACTS)


def test_a_fact_depends_on_everything_that_the_validity_depends_on() -> None:
    key, signature = FIRST.entry.authorized_keys[0], FIRST.signatures[0]
    names = [
        fact(key, signature, FIRST.entry_hash, ORIGIN),
        fact(PublicKey(2, key.raw), signature, FIRST.entry_hash, ORIGIN),
        fact(PublicKey(1, seed("other")), signature, FIRST.entry_hash, ORIGIN),
        fact(key, Signature(bytes(8), signature.value), FIRST.entry_hash, ORIGIN),
        fact(key, Signature(signature.key_id, bytes(64)), FIRST.entry_hash, ORIGIN),
        fact(key, signature, seed("other"), ORIGIN),
        fact(key, signature, FIRST.entry_hash, OTHER_ORIGIN),
    ]
    assert len(set(names)) == len(names)
    assert {len(name) for name in names} == {FACT_SIZE}


def test_a_signature_with_a_fact_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    verified = facts_about(FIRST, ORIGIN)
    assert len(verified) == 1

    def verifies(*_: object) -> bool:
        raise AssertionError("it was verified again")

    monkeypatch.setattr(PublicKey, "verifies", verifies)
    assert is_authorized(FIRST, None, ORIGIN, verified)
    with pytest.raises(AssertionError, match="verified again"):
        is_authorized(FIRST, None, ORIGIN)


@pytest.mark.parametrize("name", list(PROPOSED))
def test_facts_are_exactly_the_valid_signatures_by_keys_of_the_entry(name: str) -> None:
    made = PROPOSED[name]
    message = signed_message("entry", ORIGIN, made.entry_bytes)
    expected = {
        fact(key, signature, made.entry_hash, ORIGIN)
        for key in made.entry.authorized_keys
        for signature in made.signatures
        if key.id == signature.key_id and key.verifies(message, signature.value)
    }
    assert set(facts_about(made, ORIGIN)) == expected
