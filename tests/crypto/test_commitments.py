"""Commitments: pinned vectors, what they bind, and their limits."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.hashes import MAX_PROFILE_SIZE, commit, opens
from kt_es.errors import MalformedError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "commitments.json").read_text())
KC = bytes.fromhex("d821f8790d97709796b4d7903357c3f5")

OPENING = bytes(range(16))
LABEL = "alice@example.org"
PROFILE = b"profile"
COMMITMENT = commit(OPENING, LABEL, 7, PROFILE)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["case"])
def test_known_answers(vector: dict[str, Any]) -> None:
    committed = bytes.fromhex(vector["committed"])
    assert hmac.digest(KC, committed, hashlib.sha256).hex() == vector["commitment"]
    values = (
        bytes.fromhex(vector["opening"]),
        vector["label"],
        vector["version"],
        bytes.fromhex(vector["profile"]),
    )
    commitment = commit(*values)
    assert commitment.hex() == vector["commitment"]
    assert opens(commitment, *values)


def test_every_changed_bit_is_refused() -> None:
    def flip(value: bytes, position: int) -> bytes:
        return (int.from_bytes(value, "big") ^ 1 << position).to_bytes(len(value), "big")

    assert opens(COMMITMENT, OPENING, LABEL, 7, PROFILE)
    for n in range(256):
        assert not opens(flip(COMMITMENT, n), OPENING, LABEL, 7, PROFILE)
    for n in range(128):
        assert not opens(COMMITMENT, flip(OPENING, n), LABEL, 7, PROFILE)
    for n in range(len(PROFILE) * 8):
        assert not opens(COMMITMENT, OPENING, LABEL, 7, flip(PROFILE, n))
    for n in range(32):
        assert not opens(COMMITMENT, OPENING, LABEL, 7 ^ 1 << n, PROFILE)
    for n in range(len(LABEL)):
        changed = LABEL[:n] + chr(ord(LABEL[n]) ^ 1) + LABEL[n + 1 :]
        assert not opens(COMMITMENT, OPENING, changed, 7, PROFILE)


values = st.tuples(
    st.binary(min_size=16, max_size=16),
    st.text(max_size=20),
    st.integers(1, 2**32 - 1),
    st.binary(max_size=40),
)


@given(one=values, other=values)
def test_a_commitment_opens_to_its_own_values_alone(
    one: tuple[bytes, str, int, bytes], other: tuple[bytes, str, int, bytes]
) -> None:
    assert opens(commit(*one), *one)
    assert opens(commit(*one), *other) == (one == other)


def test_bytes_cannot_move_between_label_and_profile() -> None:
    """Without the lengths, both of these would be committed to by the same bytes."""
    first = commit(OPENING, "a", 1, b"b")
    second = commit(OPENING, "ab", 1, b"")
    assert first != second


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("opening", (bytes(15), LABEL, 1, PROFILE)),
        ("opening", (bytes(17), LABEL, 1, PROFILE)),
        ("label", (OPENING, "x" * 256, 1, PROFILE)),
        ("label", (OPENING, "\u00e4" * 128, 1, PROFILE)),
        ("label", (OPENING, "\ud800", 1, PROFILE)),
        ("version", (OPENING, LABEL, 0, PROFILE)),
        ("version", (OPENING, LABEL, -1, PROFILE)),
        ("version", (OPENING, LABEL, 2**32, PROFILE)),
        ("profile", (OPENING, LABEL, 1, bytes(MAX_PROFILE_SIZE + 1))),
    ],
)
def test_limits(field: str, arguments: tuple[bytes, str, int, bytes]) -> None:
    with pytest.raises(MalformedError) as caught:
        commit(*arguments)
    assert caught.value.what == field
    assert not opens(COMMITMENT, *arguments)


def test_largest_values() -> None:
    arguments = (OPENING, "\u00e4" * 127 + "x", 2**32 - 1, bytes(MAX_PROFILE_SIZE))
    assert opens(commit(*arguments), *arguments)


@pytest.mark.parametrize("commitment", [b"", COMMITMENT[:-1], COMMITMENT + b"\x00"])
def test_commitments_of_another_length(commitment: bytes) -> None:
    assert not opens(commitment, OPENING, LABEL, 7, PROFILE)
