"""Whatever a server sends and whatever stands in a file, the client's readers raise ``MalformedError``."""

from __future__ import annotations

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


def model(body: Any) -> tuple[Callable[[Any], object], dict[str, Any]]:
    """The reader of ``body``'s type, which answers with the members that it read, and ``body`` as JSON."""
    return lambda received: encode_model(decode_model(type(body), received)), encode_model(body)


def directory_members(body: Any) -> object:
    answer, configs = read_directory(body)
    return {**encode_model(answer), "configs": text(encode_configs(configs))}


def history_members(body: Any) -> object:
    versions = [
        {"version": one.mutation.entry.version, "epoch": one.epoch, "mutation": text(one.mutation.encode())}
        for one in read_history(body)
    ]
    return {"versions": versions}


def receipt_members(body: Any) -> object:
    receipt = read_receipt(body)
    return {
        "mutation": receipt.mutation,
        "verdict": receipt.verdict,
        "epoch": receipt.epoch,
        "registration": receipt.registration,
    }


# Each reader, which answers with the members that the client takes, encoded again; and an answer.
READERS: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "directory": (
        directory_members,
        encode_model(DirectoryBody(b.ORIGIN, "people", "email", encode_configs([b.signed_config()]))),
    ),
    "lookup": model(LookupBody(1, b.lookup_answer("alice").encode(), b.profile("alice"), HASHES)),
    "range": model(RangeBody(1, 2, b"x", HASHES)),
    "consistency": model(ConsistencyBody(HASHES)),
    "erasure": model(ErasureBody("ab", "cd", 1)),
    "head": (
        lambda body: encode_model(read_head(body)),
        encode_model(HeadBody(1, b.signed_map_head().encode(), "x", "y", HASHES, "z")),
    ),
    "page of a history": model(HistoryBody((VersionBody(1, 1, MUTATION.encode(), None, None),), False)),
    "history": (
        history_members,
        encode_model(HistoryBody((VersionBody(1, 1, MUTATION.encode(), None, None),), False)),
    ),
    "receipt": (
        receipt_members,
        encode_model(VerdictBody(MUTATION.entry_hash.hex(), "accepted", 1, None, "tokens")),
    ),
}
# Members that may be missing, because they may be null or the client ignores them.
OPTIONAL = {
    "lookup": {"profile"},
    "erasure": {"event", "epoch"},
    "receipt": {"record", "verdict", "epoch", "registration"},
}
BODIES = st.dictionaries(st.sampled_from(["reason", "detail", "field"]), VALUES)


@pytest.mark.parametrize("name", READERS)
def test_an_answer_without_a_member_is_malformed(name: str) -> None:
    read, good = READERS[name]
    read(good)
    for member in good.keys() - OPTIONAL.get(name, set()):
        with pytest.raises(MalformedError):
            read({key: value for key, value in good.items() if key != member})


def is_what_was_sent(read: Any, sent: Any) -> bool:
    """Whether each member that was read stands in ``sent``, with the same type; a null one may be missing."""
    if isinstance(read, dict):
        return isinstance(sent, dict) and all(is_what_was_sent(read[name], sent.get(name)) for name in read)
    if isinstance(read, list):
        return isinstance(sent, list) and len(read) == len(sent) and all(map(is_what_was_sent, read, sent))
    return type(read) is type(sent) and read == sent


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_what_is_accepted_of_json_of_any_shape_is_what_was_sent(name: str, data: st.DataObject) -> None:
    read, good = READERS[name]
    member = data.draw(st.sampled_from(sorted(good)))
    objects = st.dictionaries(st.sampled_from(MEMBERS), VALUES)
    value = data.draw(VALUES | st.lists(VALUES | objects, max_size=2))
    sent = {**good, member: value}
    try:
        members = read(sent)
    except MalformedError:
        return
    assert is_what_was_sent(members, sent)


@pytest.mark.parametrize("other", [None, True, 1, 1.5, "AA==", [], {}], ids=repr)
@pytest.mark.parametrize("name", READERS)
def test_a_member_of_another_type_is_malformed(name: str, other: Any) -> None:
    read, good = READERS[name]
    for member in good.keys() - {"record"}:
        if type(other) is type(good[member]) or (other is None and member in OPTIONAL.get(name, ())):
            continue
        with pytest.raises(MalformedError):
            read({**good, member: other})


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
