"""Verdicts on mutations: steps 3 to 7 of docs/DESIGN.md, section 4, each alone and in their order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.crypto.signatures import PrivateKey
from kt_es.epochs import Epoch, decide, is_authorized
from kt_es.errors import MalformedError
from kt_es.formats.entries import Mutation, Signature
from kt_es.formats.queue import Verdict
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    accepted,
    current,
    entry,
    every_changed_byte,
    index,
    item,
    mutation,
    new_epoch,
    next_mutation,
    p256_key,
    private_key,
    public,
    seed,
    verdict_of,
)

FIRST = mutation("alice")
SECOND = next_mutation("alice", FIRST)
ALICE, NEW, MALLORY = private_key("alice"), private_key("alice new"), private_key("mallory")


def verdict(of: Mutation, before: Mutation | None = None, epoch: Epoch | None = None) -> Verdict:
    return verdict_of(epoch or new_epoch(), item(of), before)


def test_first_entry_is_accepted_and_noted() -> None:
    epoch = new_epoch()
    assert verdict(FIRST, epoch=epoch) is Verdict.ACCEPTED
    assert epoch.accepted == {index("alice"): FIRST.entry_hash}


def test_next_entry_is_accepted() -> None:
    assert verdict(SECOND, FIRST) is Verdict.ACCEPTED


def test_nothing_but_accepted_entries_is_noted() -> None:
    epoch = new_epoch()
    for refused in (SECOND, mutation("alice", signed_by=[MALLORY])):
        assert not verdict(refused, epoch=epoch).succeeded
    assert accepted(epoch) == {}


def test_current_entry_again_is_a_replay() -> None:
    assert verdict(FIRST, FIRST) is Verdict.REPLAY


def test_replay_is_decided_before_signatures_are_looked_at() -> None:
    assert verdict(replace(FIRST, signatures=(Signature(bytes(8), bytes(64)),)), FIRST) is Verdict.REPLAY


STALE = {
    "first entry of version 2": (mutation("alice", 2), None),
    "first entry that names a previous one": (mutation("alice", 1, seed("nothing")), None),
    "second entry where nothing stands": (SECOND, None),
    "version repeated": (mutation("alice", 1, FIRST.entry_hash), FIRST),
    "version skipped": (mutation("alice", 3, FIRST.entry_hash), FIRST),
    "previous missing": (mutation("alice", 2), FIRST),
    "previous of another entry": (mutation("alice", 2, SECOND.entry_hash), FIRST),
    "another first entry": (mutation("alice", keys=[ALICE, NEW], signed_by=[ALICE]), FIRST),
    "older entry": (FIRST, SECOND),
    "largest version": (mutation("alice", 2**32 - 1, FIRST.entry_hash), FIRST),
}


@pytest.mark.parametrize(("of", "before"), STALE.values(), ids=STALE.keys())
def test_stale(of: Mutation, before: Mutation | None) -> None:
    assert verdict(of, before) is Verdict.STALE


def test_stale_is_decided_before_signatures_are_looked_at() -> None:
    assert verdict(mutation("alice", 3, signed_by=[MALLORY]), FIRST) is Verdict.STALE


def rotation(*signed_by: PrivateKey, keys: tuple[PrivateKey, ...] = (NEW,)) -> Mutation:
    return next_mutation("alice", FIRST, keys=keys, signed_by=signed_by)


UNAUTHORIZED = {
    "first entry signed by nobody's key": (mutation("alice", signed_by=[MALLORY]), None),
    "rotation without the new key": (rotation(ALICE), FIRST),
    "rotation without the old key": (rotation(NEW), FIRST),
    "rotation by strangers": (rotation(MALLORY), FIRST),
    "foreign signature rides along": (rotation(ALICE, NEW, MALLORY), FIRST),
    "foreign signature rides along a first entry": (mutation("alice", signed_by=[ALICE, MALLORY]), None),
    "for another directory": (mutation("alice", origin=OTHER_ORIGIN), None),
    "one of two for another directory": (
        replace(
            rotation(ALICE, NEW),
            signatures=rotation(ALICE).signatures
            + next_mutation("alice", FIRST, keys=[NEW], origin=OTHER_ORIGIN).signatures,
        ),
        FIRST,
    ),
    "signatures of another entry": (replace(SECOND, signatures=FIRST.signatures), FIRST),
    "key id of another key": (
        replace(FIRST, signatures=(Signature(public(MALLORY).id, FIRST.signatures[0].value),)),
        None,
    ),
    "one valid, one broken signature by the same key": (
        replace(FIRST, signatures=(*FIRST.signatures, Signature(public(ALICE).id, bytes(64)))),
        None,
    ),
    "key of the entry before the last": (
        mutation("alice", 3, rotation(ALICE, NEW).entry_hash, keys=[ALICE], signed_by=[ALICE]),
        rotation(ALICE, NEW),
    ),
}


@pytest.mark.parametrize(("of", "before"), UNAUTHORIZED.values(), ids=UNAUTHORIZED.keys())
def test_unauthorized(of: Mutation, before: Mutation | None) -> None:
    assert verdict(of, before) is Verdict.UNAUTHORIZED


AUTHORIZED = {
    "rotation by both keys": (rotation(ALICE, NEW), FIRST),
    "rotation in the other order": (rotation(NEW, ALICE), FIRST),
    "key added, one signature is both": (rotation(ALICE, keys=(ALICE, NEW)), FIRST),
    "same signature twice": (rotation(ALICE, ALICE, keys=(ALICE,)), FIRST),
    "all keys sign": (rotation(ALICE, NEW, keys=(ALICE, NEW)), FIRST),
    "first entry by one of its keys": (mutation("alice", keys=[ALICE, NEW], signed_by=[NEW]), None),
    "P-256": (mutation("alice", keys=[p256_key("alice")]), None),
    "from Ed25519 to P-256": (rotation(ALICE, p256_key("alice"), keys=(p256_key("alice"),)), FIRST),
    "as many keys and signatures as there may be": (
        mutation("alice", keys=[private_key(f"key {number}") for number in range(32)]),
        None,
    ),
}


@pytest.mark.parametrize(("of", "before"), AUTHORIZED.values(), ids=AUTHORIZED.keys())
def test_authorized(of: Mutation, before: Mutation | None) -> None:
    assert verdict(of, before) is Verdict.ACCEPTED


def test_rotation_takes_the_old_key_its_power() -> None:
    rotated = rotation(ALICE, NEW)
    assert verdict(next_mutation("alice", rotated, keys=[NEW]), rotated) is Verdict.ACCEPTED
    assert verdict(next_mutation("alice", rotated, keys=[ALICE]), rotated) is Verdict.UNAUTHORIZED


def test_same_entry_again_in_its_epoch_is_a_duplicate() -> None:
    epoch = new_epoch()
    assert verdict(FIRST, epoch=epoch) is Verdict.ACCEPTED
    assert verdict(FIRST, epoch=epoch) is Verdict.DUPLICATE
    assert Verdict.DUPLICATE.succeeded
    assert epoch.accepted == {index("alice"): FIRST.entry_hash}


def test_same_entry_with_other_signatures_is_a_duplicate() -> None:
    epoch = new_epoch()
    both = mutation("alice", keys=[ALICE, NEW])
    assert verdict(both, epoch=epoch) is Verdict.ACCEPTED
    assert verdict(replace(both, signatures=both.signatures[1:]), epoch=epoch) is Verdict.DUPLICATE


def test_other_entry_in_the_same_epoch_conflicts_and_the_first_stays() -> None:
    epoch = new_epoch()
    other = mutation("alice", keys=[ALICE, NEW], signed_by=[ALICE])
    assert verdict(FIRST, epoch=epoch) is Verdict.ACCEPTED
    assert verdict(other, epoch=epoch) is Verdict.CONFLICT
    assert epoch.accepted == {index("alice"): FIRST.entry_hash}


def test_conflict_is_decided_after_signatures() -> None:
    epoch = new_epoch()
    verdict(FIRST, epoch=epoch)
    assert verdict(mutation("alice", commits_to=seed("x"), signed_by=[MALLORY]), epoch=epoch) is (
        Verdict.UNAUTHORIZED
    )
    assert verdict(replace(FIRST, signatures=(Signature(bytes(8), bytes(64)),)), epoch=epoch) is (
        Verdict.UNAUTHORIZED
    )


def test_entries_of_one_epoch_are_not_judged_by_each_other() -> None:
    epoch = new_epoch()
    assert verdict(FIRST, epoch=epoch) is Verdict.ACCEPTED
    assert verdict(SECOND, epoch=epoch) is Verdict.STALE


def test_users_do_not_get_into_each_others_way() -> None:
    epoch = new_epoch()
    assert verdict(FIRST, epoch=epoch) is Verdict.ACCEPTED
    assert verdict(mutation("bob"), epoch=epoch) is Verdict.ACCEPTED
    assert set(accepted(epoch)) == {index("alice"), index("bob")}


def test_every_changed_byte_of_a_mutation_is_seen() -> None:
    good = rotation(ALICE, NEW).encode()
    before = current(FIRST)
    for changed in every_changed_byte(good):
        try:
            of = Mutation.decode(changed)
        except MalformedError:
            continue
        assert not is_authorized(of, before, ORIGIN)
        assert decide(new_epoch(), of, before) in (Verdict.STALE, Verdict.UNAUTHORIZED)


def test_an_entry_takes_no_key_twice() -> None:
    twice = replace(entry("alice"), authorized_keys=(public(ALICE), public(ALICE)))
    assert verdict(Mutation.sign(twice, ORIGIN, [ALICE])) is Verdict.MALFORMED
