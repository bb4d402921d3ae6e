"""Keys that a client names in an entry: it refuses those that the log accepts and nobody can have."""

from __future__ import annotations

import pytest

from kt_es.client.changes import build_submission
from kt_es.client.trust import verify_lookup
from kt_es.client.trusted import Pinned, begin
from kt_es.crypto.signatures import ECDSA_P256, ED25519
from kt_es.errors import MalformedError
from kt_es.formats.entries import PublicKey
from tests.builders import ORIGIN, SIGNER_KEY, START, label_of, opening, private_key, public, signed_config
from tests.example_directory import STORY

BAD = {
    "small order": PublicKey(ED25519, bytes(32)),
    "no canonical encoding": PublicKey(ED25519, b"\xff" * 32),
    "no point of P-256": PublicKey(ECDSA_P256, b"\x05" + bytes(32)),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_an_authorized_key_is_one_that_somebody_can_have(bad: PublicKey) -> None:
    trusted = begin(Pinned(ORIGIN, SIGNER_KEY), [signed_config()])
    label, answer = label_of("carol"), STORY.answer("carol")
    _, absent = verify_lookup(trusted, label, answer, None, (), now=START + 2_000)
    key = private_key("carol")
    made = build_submission(absent, [], [key], opening("carol"), [public(key)])
    assert made.mutation.entry.authorized_keys == (public(key),)
    with pytest.raises(MalformedError, match=rf"entry authorized key: {bad.id.hex()} is no valid"):
        build_submission(absent, [], [key], opening("carol"), [public(key), bad])
