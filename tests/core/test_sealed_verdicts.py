"""Of a verdict that one's own head seals, only what it says of a mutation's signatures is believed."""

from __future__ import annotations

import pytest

from kt_es.epochs import decide
from kt_es.formats.queue import Verdict
from tests.builders import START, current, marker, mutation, new_epoch, next_mutation, private_key

EVE = private_key("eve")
FORGED = mutation("alice", signed_by=[EVE])


@pytest.mark.parametrize("sealed", [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.CONFLICT])
def test_signatures_that_were_found_good_are_not_verified_again(sealed: Verdict) -> None:
    assert decide(new_epoch(), FORGED, None) is Verdict.UNAUTHORIZED
    assert decide(new_epoch(), FORGED, None, sealed) is Verdict.ACCEPTED


def test_signatures_that_were_found_bad_stay_bad() -> None:
    assert decide(new_epoch(), mutation("alice"), None, Verdict.UNAUTHORIZED) is Verdict.UNAUTHORIZED


@pytest.mark.parametrize("sealed", list(Verdict))
def test_everything_else_is_decided_again(sealed: Verdict) -> None:
    first = mutation("alice")
    assert decide(new_epoch(), first, current(first), sealed) is Verdict.REPLAY
    assert decide(new_epoch(), mutation("alice", 2, bytes(32)), current(first), sealed) is Verdict.STALE
    if sealed is not Verdict.UNAUTHORIZED:
        epoch = new_epoch()
        second = next_mutation("alice", first)
        other = next_mutation("alice", first, commits_to=bytes(32))
        assert decide(epoch, second, current(first), sealed) is Verdict.ACCEPTED
        assert decide(epoch, second, current(first), sealed) is Verdict.DUPLICATE
        assert decide(epoch, other, current(first), sealed) is Verdict.CONFLICT


@pytest.mark.parametrize("sealed", list(Verdict))
def test_markers_are_always_verified(sealed: Verdict) -> None:
    assert decide(new_epoch(), marker(START, key=EVE), None, sealed) is Verdict.FOREIGN_MARKER
    assert decide(new_epoch(), marker(START), None, sealed) is Verdict.EPOCH
