"""Whatever a server sends and whatever stands in a file, the client's readers raise ``MalformedError``."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.client import wire
from kt_es.client.trusted import Pinned, Trusted, begin
from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.checkpoints import heads_origin
from tests import builders as b
from tests.reference.directory import text

TRUSTED = Trusted(
    b.ORIGIN,
    b.SIGNER_KEY,
    begin(Pinned(b.ORIGIN, b.SIGNER_KEY), [b.signed_config()]).configs,
    0,
    b.checkpoint(heads_origin(b.ORIGIN)),
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary().map(text)
    | st.just(text(b.mutation("alice").encode()))
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4)
FIELDS = st.sampled_from(
    [
        "origin",
        "directory",
        "label_policy",
        "configs",
        "epoch",
        "answer",
        "profile",
        "consistency",
        "hashes",
        "smh",
        "heads_checkpoint",
        "mutations_checkpoint",
        "versions",
        "version",
        "mutation",
        "opening",
        "verdict",
        "reason",
        "detail",
        "field",
    ]
)
BODIES = st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON)))
READERS = [
    wire.read_directory,
    wire.read_lookup,
    wire.read_consistency,
    wire.read_head,
    wire.read_history,
    wire.read_receipt,
]


@pytest.mark.parametrize("reader", READERS)
@given(body=BODIES)
@settings(deadline=None, max_examples=50)
def test_json_of_any_shape(reader: Any, body: dict[str, Any]) -> None:
    with contextlib.suppress(MalformedError):
        reader(body)


@settings(deadline=None, max_examples=30)
@given(st.integers(400, 599), st.binary() | BODIES.map(lambda body: repr(body).encode()))
def test_problems_can_always_be_shown(status: int, data: bytes) -> None:
    problem = wire.read_problem(status, data)
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
