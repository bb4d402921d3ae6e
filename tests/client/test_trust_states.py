"""What a client trusts: stored, read again, and merged with what another process has stored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.client.heads import merge
from kt_es.client.trusted import Pinned, Trusted
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.codec import encode
from kt_es.formats.proofs import encode_configs
from tests import builders as b
from tests.client.lookups import OTHER, PINNED
from tests.reference.directory import Directory


def test_it_is_stored_and_read_again(trusted: Trusted) -> None:
    assert Trusted.decode(trusted.encode()) == trusted
    with_head = replace(trusted, smh=b.signed_map_head().encode())
    assert Trusted.decode(with_head.encode()) == with_head
    begun = replace(trusted, checkpoint=None)
    assert Trusted.decode(begun.encode()) == begun


def test_a_state_of_version_1_is_read_and_begins_at_its_key() -> None:
    directory = Directory()
    directory.advance()
    directory.rotate(OTHER)
    directory.advance()
    directory.advance()
    configs = encode_configs(directory.configs)
    for key, in_force in ((b.SIGNER, 0), (OTHER, 1)):
        fields = ["kt-es trusted v1", b.ORIGIN, b.public(key).fields(), configs, 0]
        trusted = Trusted.decode(encode([*fields, directory.heads_checkpoint(3)]))
        assert (trusted.in_force, trusted.smh, trusted.size) == (in_force, None, 3)
        with pytest.raises(MalformedError):
            Trusted.decode(encode([*fields, directory.heads_checkpoint(3), None]))


def test_a_pin_is_passed_on_as_a_verifier_key() -> None:
    assert PINNED.vkey.startswith(f"{b.ORIGIN}/heads+")
    assert Pinned.parse(PINNED.vkey + "\n") == PINNED


def test_two_states_reached_at_once_merge_into_the_later(directory: Directory, trusted: Trusted) -> None:
    later = replace(trusted, checkpoint=directory.heads_checkpoint(5))
    proof = directory.consistency(2, 5)
    assert merge(trusted, later, proof) == merge(later, trusted, proof) == later
    with pytest.raises(VerificationError, match=r"^consistency:"):
        merge(trusted, later, proof[:-1])
