"""What a label is, and the one form of it that is looked up: tests/vectors/labels.json, for others, too."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.errors import MalformedError
from kt_es.formats import unicode14
from kt_es.formats.labels import _ASSIGNED, _LOWER, _UNSEEN, EMAIL, LABEL_POLICIES, TEXT, normalize_label
from tools import unicode_tables

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "labels.json").read_text())


def _named(vectors: list[dict[str, Any]]) -> dict[str, Any]:
    return {"argvalues": vectors, "ids": [vector["name"] for vector in vectors]}


@pytest.mark.parametrize("vector", **_named(VECTORS["normalized"]))
def test_labels_are_normalized(vector: dict[str, Any]) -> None:
    made = normalize_label(vector["label"], vector["policy"])
    assert made == vector["normalized"]
    assert made.encode().hex() == vector["utf8"]
    assert normalize_label(made, vector["policy"]) == made


@pytest.mark.parametrize("vector", **_named(VECTORS["refused"]))
def test_what_is_no_label(vector: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        normalize_label(vector["label"], vector["policy"])
    assert (caught.value.what, caught.value.problem) == ("label", vector["problem"])


@pytest.mark.parametrize("policy", LABEL_POLICIES)
def test_a_label_has_no_surrogates(policy: str) -> None:
    with pytest.raises(MalformedError, match="label: must not contain control"):
        normalize_label("al\ud800ice@example.org", policy)


@pytest.mark.skipif(unicodedata.unidata_version != unicode_tables.VERSION, reason="another Unicode version")
def test_the_tables_are_those_of_unicode_14() -> None:
    assert Path(unicode14.__file__).read_text() == unicode_tables.module()


def test_the_tables_agree_with_every_later_unicode() -> None:
    """The categories of assigned code points may change between versions; these did not change for labels."""
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        if character in _ASSIGNED:
            assert unicodedata.category(character) not in ("Cc", "Cs", "Cn", "Co"), hex(point)


def test_normalizing_and_lower_casing_lead_to_nothing_that_is_refused() -> None:
    """Hence characters are checked once, before both."""
    for point in range(sys.maxunicode + 1):
        if chr(point) not in _ASSIGNED or chr(point) in _UNSEEN:
            continue
        made = [unicodedata.normalize(form, chr(point)) for form in ("NFC", "NFD")]
        made.append(chr(_LOWER.get(point, point)))
        for character in "".join(made):
            assert character in _ASSIGNED, hex(point)
            assert character not in _UNSEEN, hex(point)


def test_what_the_lists_hold() -> None:
    assert len(_LOWER) == 1433
    assert _LOWER[0x130] == ord("i")
    assert sum(chr(point) in _UNSEEN for point in range(sys.maxunicode + 1)) == 270


ADDRESSES = st.builds("{}@{}.org".format, st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))


@given(st.one_of(st.text(max_size=40), ADDRESSES), st.sampled_from(LABEL_POLICIES))
def test_the_form_that_is_looked_up_is_its_own_form(label: str, policy: str) -> None:
    try:
        once = normalize_label(label, policy)
    except MalformedError:
        return
    assert normalize_label(once, policy) == once
    assert 1 <= len(once.encode()) <= 255


@given(st.text(max_size=12))
def test_text_that_is_canonically_equivalent_is_one_label(label: str) -> None:
    try:
        once = normalize_label(label, TEXT)
    except MalformedError:
        return
    assert normalize_label(unicodedata.normalize("NFD", label), TEXT) == once


@given(st.text(min_size=1, max_size=8))
def test_an_address_keeps_no_letter_that_has_a_small_one(local: str) -> None:
    try:
        once = normalize_label(f"{local}@example.org", EMAIL)
    except MalformedError:
        return
    assert "".join(chr(_LOWER.get(ord(letter), ord(letter))) for letter in once) == once
