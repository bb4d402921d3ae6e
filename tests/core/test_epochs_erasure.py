"""The decision about erasures, one fault each."""

from __future__ import annotations

import pytest

from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import PrivateKey
from kt_es.epochs import Current, Epoch, Standing, decide, parse
from kt_es.formats.codec import encode
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.queue import ERASURE, Digest, Item, ItemKind, Verdict, items_of
from tests import builders as b

OWNER = b.private_key("alice")
ALICE = b.mutation("alice")
HELD = Current(ALICE.entry, ALICE.entry_hash)


def erasure(
    key: PrivateKey = b.SIGNER,
    *,
    index: bytes = ALICE.entry.index,
    entry_hash: bytes = ALICE.entry_hash,
    origin: str = b.ORIGIN,
) -> Erasure:
    return Erasure.sign(index, entry_hash, ErasureReason.OWNER, origin, key)


def verdict(made: Erasure, held: Current | None = HELD) -> Verdict:
    epoch = Epoch.after(Standing(b.ORIGIN, b.SIGNER_KEY, config=b.signed_config()))
    return decide(epoch, made, held)


def test_the_operator_may_erase() -> None:
    assert verdict(erasure()) is Verdict.ERASED


def test_the_owner_may_erase() -> None:
    assert verdict(erasure(OWNER)) is Verdict.ERASED


def test_an_earlier_entry_of_the_account_may_be_named() -> None:
    assert verdict(erasure(OWNER, entry_hash=sha256(b"an earlier one"))) is Verdict.ERASED


def test_repeating_it_is_no_fault() -> None:
    epoch = Epoch.after(Standing(b.ORIGIN, b.SIGNER_KEY, config=b.signed_config()))
    assert [decide(epoch, erasure(), HELD) for _ in range(2)] == [Verdict.ERASED] * 2


@pytest.mark.parametrize("stranger", ["mallory", "successor"])
def test_nobody_else_may(stranger: str) -> None:
    assert verdict(erasure(b.private_key(stranger))) is Verdict.FOREIGN_ERASURE


def test_an_account_that_never_was_cannot_be_erased() -> None:
    assert verdict(erasure(), None) is Verdict.FOREIGN_ERASURE


def test_a_signature_for_another_directory_does_not_count() -> None:
    assert verdict(erasure(origin=b.OTHER_ORIGIN)) is Verdict.FOREIGN_ERASURE


def test_a_changed_payload_does_not_count() -> None:
    made = erasure()
    payload = encode([made.index, sha256(b"another"), int(made.reason)])
    forged = Erasure.decode(encode([payload, made.key.fields(), made.signature]))
    assert verdict(forged) is Verdict.FOREIGN_ERASURE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        encode([encode([ALICE.entry.index, ALICE.entry_hash, 4]), b.SIGNER_KEY.fields(), bytes(64)]),
        encode([encode([ALICE.entry.index[:31], ALICE.entry_hash, 0]), b.SIGNER_KEY.fields(), bytes(64)]),
        encode([encode([ALICE.entry.index, ALICE.entry_hash]), b.SIGNER_KEY.fields(), bytes(64)]),
        encode([encode([ALICE.entry.index, ALICE.entry_hash, 0]), b.SIGNER_KEY.fields(), bytes(63)]),
        erasure().encode() + b"\0",
    ],
    ids=["empty", "no-array", "reason", "index", "fields", "signature", "trailing"],
)
def test_what_cannot_be_decoded_is_malformed(data: bytes) -> None:
    (item,) = items_of(7, ERASURE, data)
    assert item == Item(7, 0, ItemKind.ERASURE, data)
    assert parse(item) is Verdict.MALFORMED


def test_a_large_one_is_oversize() -> None:
    (item,) = items_of(7, ERASURE, bytes(20_000))
    assert isinstance(item.content, Digest)
    assert parse(item) is Verdict.OVERSIZE
