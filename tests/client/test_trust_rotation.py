"""The signer's key changes after epoch 2, in whose records the change stands: what a client accepts then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.client.trusted import Pinned, begin, extend
from kt_es.errors import EquivocationError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import heads_origin
from tests import builders as b
from tests.client.lookups import OTHER, PINNED, check
from tests.reference import naive_log
from tests.reference.directory import Directory


@pytest.fixture
def rotated() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    directory.rotate(OTHER)
    directory.advance()
    directory.advance()
    return directory


def test_the_new_key_is_accepted_with_the_longer_chain(rotated: Directory) -> None:
    short = replace(begin(PINNED, rotated.configs[:1]), checkpoint=rotated.heads_checkpoint(2))
    with pytest.raises(VerificationError, match=r"^config:"):
        check(rotated, short)
    after, _ = check(rotated, extend(short, rotated.configs))
    assert after.in_force == 1
    assert after.size == 3


def test_the_old_key_no_longer_speaks_for_newer_epochs(rotated: Directory) -> None:
    after, _ = check(rotated, begin(PINNED, rotated.configs))
    rotated.advance()
    honest = rotated.answer(b.label_of("alice"))
    root = naive_log.root(rotated.leaves(4))
    forged = replace(honest, heads_checkpoint=b.checkpoint(heads_origin(b.ORIGIN), 4, root, b.SIGNER))
    with pytest.raises(VerificationError, match=r"^checkpoint:"):
        check(rotated, after, forged)
    check(rotated, after, honest)


def test_past_epochs_verify_under_the_key_of_their_time(rotated: Directory) -> None:
    after, lookup = check(rotated, begin(PINNED, rotated.configs), epoch=1)
    assert lookup.entry == b.entry("alice")
    # The checkpoint is signed by the new key: the old one has nothing more to say.
    assert after.in_force == 1


def test_either_key_may_be_the_pinned_one(rotated: Directory) -> None:
    check(rotated, begin(Pinned(b.ORIGIN, b.public(OTHER)), rotated.configs))
    with pytest.raises(VerificationError, match=r"^config:"):
        begin(Pinned(b.ORIGIN, b.public(b.private_key("third"))), rotated.configs)


def test_another_successor_of_the_same_config_is_equivocation(rotated: Directory) -> None:
    fork = Directory()
    fork.rotate(b.private_key("third"))
    with pytest.raises(EquivocationError, match="two different configs that follow") as found:
        extend(begin(PINNED, rotated.configs), fork.configs)
    assert "two different configs" in convict(Evidence.decode(found.value.evidence or b""))


def test_another_first_config_by_the_same_key_is_equivocation(rotated: Directory) -> None:
    other = [b.signed_config(b.config(max_interval=61_000))]
    with pytest.raises(EquivocationError, match="two different configs that begin") as found:
        extend(begin(PINNED, rotated.configs), other)
    assert "begin" in convict(Evidence.decode(found.value.evidence or b""))


def test_another_first_config_by_another_key_is_another_directory(rotated: Directory) -> None:
    other = [b.signed_config(b.config(signer_keys=[OTHER]), [OTHER])]
    with pytest.raises(VerificationError, match=r"^config:") as refused:
        extend(begin(PINNED, rotated.configs), other)
    assert not isinstance(refused.value, EquivocationError)


def test_a_shorter_chain_changes_nothing(rotated: Directory) -> None:
    trusted = begin(PINNED, rotated.configs)
    assert extend(trusted, rotated.configs[:1]) == trusted


@pytest.mark.parametrize("broken", ["order", "origin", "unsigned"])
def test_a_broken_chain_is_refused(rotated: Directory, broken: str) -> None:
    first, second = rotated.configs
    chains = {
        "order": [second, first],
        "origin": [b.signed_config(b.config(b.OTHER_ORIGIN))],
        "unsigned": [first, b.signed_config(second.config, [b.SIGNER])],
    }
    with pytest.raises(VerificationError, match=r"^config:"):
        begin(PINNED, chains[broken])
