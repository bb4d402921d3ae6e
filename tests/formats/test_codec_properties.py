"""The codec has one encoding per value, and whatever it accepts it writes back unchanged."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from kt_es.errors import MalformedError
from kt_es.formats.codec import UINT_MAX, Value, decode, encode

SCALARS = st.one_of(
    st.integers(0, 30),
    st.integers(0, UINT_MAX),
    st.binary(max_size=300),
    st.text(max_size=80),
    st.none(),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5), max_leaves=12).filter(
    lambda value: depth(value) <= 8
)

# Random bytes seldom get far, so half of the bytes begin like something the codec knows.
ALLOWED = bytes.fromhex("000117 1818 1900 1a 1b 40 41 43 58 59 60 61 63 78 80 81 82 83 98 f6")
FORBIDDEN = bytes.fromhex("20 5f 7f 9f ff a0 a1 c0 c1 c2 c4 c5 d81c d81d d9 1c f4 f5 f7 f8 f9 fa fb")
HEADS = st.sampled_from(ALLOWED + FORBIDDEN)
NEARLY_CBOR = st.lists(st.one_of(HEADS, st.integers(0, 255)), max_size=24).map(bytes)


def depth(value: Value) -> int:
    if not isinstance(value, list):
        return 0
    return 1 + max(map(depth, value), default=0)


def accepted_only_in_one_form(data: bytes) -> None:
    try:
        value = decode(data, "test")
    except MalformedError:
        return
    assert encode(value) == data


@given(VALUES)
def test_what_was_encoded_is_read_again(value: Value) -> None:
    assert decode(encode(value), "test") == value


@given(VALUES)
def test_tuples_are_arrays(value: Value) -> None:
    def as_tuples(inner: Value) -> Value:
        return tuple(map(as_tuples, inner)) if isinstance(inner, list) else inner

    assert encode(as_tuples(value)) == encode(value)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused_or_are_the_one_encoding(data: bytes) -> None:
    accepted_only_in_one_form(data)


@given(NEARLY_CBOR)
@example(bytes.fromhex("d81c81d81d00"))
@example(bytes.fromhex("a18000"))
@example(bytes.fromhex("a1a00000"))
def test_nearly_cbor_is_refused_or_is_the_one_encoding(data: bytes) -> None:
    accepted_only_in_one_form(data)


@given(VALUES, st.data())
def test_changed_encodings_are_refused_or_mean_something_else(value: Value, data: st.DataObject) -> None:
    good = encode(value)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        other = decode(bad, "test")
    except MalformedError:
        return
    assert other != value
    assert encode(other) == bad


@given(VALUES, st.binary(min_size=1, max_size=8))
def test_nothing_may_follow(value: Value, more: bytes) -> None:
    try:
        decode(encode(value) + more, "test")
    except MalformedError:
        return
    raise AssertionError("bytes after the value were accepted")


@given(VALUES, st.data())
def test_nothing_may_be_missing(value: Value, data: st.DataObject) -> None:
    good = encode(value)
    try:
        decode(good[: data.draw(st.integers(0, len(good) - 1))], "test")
    except MalformedError:
        return
    raise AssertionError("a prefix of an encoding was accepted")
