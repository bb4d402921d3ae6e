"""Whatever a server sends and whatever stands in a file, the client's readers raise ``MalformedError``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.api.codec import decode_model, encode_model, read_problem
from kt_es.api.models import (
    ConsistencyBody,
    DirectoryBody,
    ErasureBody,
    HeadBody,
    HistoryBody,
    LookupBody,
    RangeBody,
    VerdictBody,
    VersionBody,
)
from kt_es.client.directory import read_directory, read_head
from kt_es.client.history import read_history
from kt_es.client.publishing import read_receipt
from kt_es.client.trusted import Pinned, Trusted, begin
from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.heads import heads_origin
from kt_es.formats.proofs import encode_configs
from tests import builders as b
from tests.reference.directory import text

TRUSTED = Trusted(
    b.ORIGIN,
    b.SIGNER_KEY,
    begin(Pinned(b.ORIGIN, b.SIGNER_KEY), [b.signed_config()]).configs,
    0,
    b.checkpoint(heads_origin(b.ORIGIN)),
)

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        2**64,
        1.5,
        float("nan"),
        "",
        "x",
        "\ud800",
        "\x1b[2J",
        "AA==",
        "AB==",
        [],
        {},
        [1],
        ["AA=="],
    ]
    + [
        text(data)
        for data in (b"\x80", b"\0" * 32, b.mutation("alice").encode(), b.signed_map_head().encode())
    ]
    + [b.ORIGIN, "people", "email"]
)
MEMBERS = ("version", "epoch", "mutation", "opening", "profile", "smh")
HASHES = (b"\0" * 32,)
MUTATION = b.mutation("alice")
# Each reader, and an answer that it accepts.
READERS: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "directory": (
        read_directory,
        encode_model(DirectoryBody(b.ORIGIN, "people", "email", encode_configs([b.signed_config()]))),
    ),
    "lookup": (
        lambda body: decode_model(LookupBody, body),
        encode_model(LookupBody(1, b.lookup_answer("alice").encode(), b.profile("alice"), HASHES)),
    ),
    "range": (lambda body: decode_model(RangeBody, body), encode_model(RangeBody(1, 2, b"x", HASHES))),
    "consistency": (
        lambda body: decode_model(ConsistencyBody, body),
        encode_model(ConsistencyBody(HASHES)),
    ),
    "erasure": (lambda body: decode_model(ErasureBody, body), encode_model(ErasureBody("ab", None, 1))),
    "head": (
        read_head,
        encode_model(HeadBody(1, b.signed_map_head().encode(), "x", "y", HASHES, "z")),
    ),
    "history": (
        read_history,
        encode_model(HistoryBody((VersionBody(1, 1, MUTATION.encode(), None, None),), False)),
    ),
    "receipt": (read_receipt, encode_model(VerdictBody(MUTATION.entry_hash.hex(), "accepted", 1, None))),
}
# Members that may be missing, because they may be null or the client ignores them.
OPTIONAL = {"lookup": {"profile"}, "erasure": {"event", "epoch"}, "receipt": {"record", "verdict", "epoch"}}
BODIES = st.dictionaries(st.sampled_from(["reason", "detail", "field"]), VALUES)


@pytest.mark.parametrize("name", READERS)
def test_an_answer_without_a_member_is_malformed(name: str) -> None:
    read, good = READERS[name]
    read(good)
    for member in good.keys() - OPTIONAL.get(name, set()):
        with pytest.raises(MalformedError):
            read({key: value for key, value in good.items() if key != member})


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_json_of_any_shape(name: str, data: st.DataObject) -> None:
    read, good = READERS[name]
    member = data.draw(st.sampled_from(sorted(good)))
    objects = st.dictionaries(st.sampled_from(MEMBERS), VALUES)
    value = data.draw(VALUES | st.lists(VALUES | objects, max_size=2))
    with contextlib.suppress(MalformedError):
        read({**good, member: value})


@pytest.mark.parametrize("name", READERS)
def test_a_member_of_another_type_is_malformed(name: str) -> None:
    read, good = READERS[name]
    for member in good.keys() - {"record"}:
        with pytest.raises(MalformedError):
            read({**good, member: 1.5})


@settings(deadline=None, max_examples=30)
@given(st.integers(400, 599), st.binary() | BODIES.map(lambda body: json.dumps(body).encode()))
def test_problems_can_always_be_shown(status: int, data: bytes) -> None:
    problem = read_problem(status, data)
    assert problem.reason.isprintable()
    assert problem.detail.isprintable()


def test_a_trusted_state_has_one_encoding() -> None:
    good = TRUSTED.encode()
    for changed in b.every_changed_byte(good):
        try:
            read = Trusted.decode(changed)
        except MalformedError:
            continue
        assert read != TRUSTED
        assert read.encode() == changed


@settings(deadline=None)
@given(st.text() | st.text().map(lambda tail: Pinned(b.ORIGIN, b.SIGNER_KEY).vkey + tail))
def test_a_verifier_key_has_one_spelling(vkey: str) -> None:
    try:
        pinned = Pinned.parse(vkey)
    except ConfigError:
        return
    assert pinned.vkey == vkey.strip()
