"""Whatever a server sends and whatever stands in a file, the client's readers raise ``MalformedError``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.api.codec import decode_model, read_problem
from kt_es.api.models import ConsistencyBody, ErasureBody, LookupBody, RangeBody
from kt_es.client.directory import read_directory, read_head
from kt_es.client.history import read_history
from kt_es.client.publishing import read_receipt
from kt_es.client.trusted import Pinned, Trusted, begin
from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.heads import heads_origin
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
BODIES = st.dictionaries(FIELDS, VALUES | st.lists(st.dictionaries(FIELDS, VALUES), max_size=2))
READERS: list[Callable[[Any], object]] = [
    read_directory,
    lambda body: decode_model(LookupBody, body),
    lambda body: decode_model(RangeBody, body),
    lambda body: decode_model(ConsistencyBody, body),
    lambda body: decode_model(ErasureBody, body),
    read_head,
    read_history,
    read_receipt,
]


@given(BODIES)
@settings(deadline=None)
def test_json_of_any_shape(body: dict[str, Any]) -> None:
    for reader in READERS:
        with contextlib.suppress(MalformedError):
            reader(body)


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
