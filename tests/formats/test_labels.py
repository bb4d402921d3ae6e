"""What a label is, and the one form of it that is looked up: tests/vectors/labels.json, for others, too."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kt_es.errors import MalformedError
from kt_es.formats import labels, unicode14
from kt_es.formats.labels import _ASSIGNED, _LOWER, EMAIL, LABEL_POLICIES, TEXT, _is_allowed, normalize_label
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
        if not _is_allowed(chr(point)):
            continue
        made = [unicodedata.normalize(form, chr(point)) for form in ("NFC", "NFD")]
        made.append(chr(_LOWER.get(point, point)))
        for character in "".join(made):
            assert _is_allowed(character), hex(point)


def test_what_the_lists_hold() -> None:
    assert len(_LOWER) == 1433
    assert _LOWER[0x130] == ord("i")
    assert sum(chr(point) in labels._UNSEEN for point in range(sys.maxunicode + 1)) == 270


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


@pytest.mark.parametrize("policy", LABEL_POLICIES)
def test_nothing_invisible_stands_in_a_label(policy: str) -> None:
    """Whatever its category: format characters, blanks but U+0020, letters and marks without a shape."""
    domain = "@example.org" if policy == EMAIL else ""
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        hidden = unicodedata.category(character) in ("Cf", "Zs", "Zl", "Zp") and character != " "
        if hidden or character in labels._UNSEEN:
            with pytest.raises(MalformedError, match="invisible"):
                normalize_label(f"a{character}b{domain}", policy)
            if policy == EMAIL and not "\ud800" <= character <= "\udfff":
                encoded = f"xn--{f'a{character}b'.encode('punycode').decode()}"
                with pytest.raises(MalformedError):
                    normalize_label(f"a@{encoded}.org", policy)


DOMAIN_LABELS = st.text(st.characters(min_codepoint=0xA1, max_codepoint=0x2FFF), min_size=1, max_size=12)


@given(DOMAIN_LABELS)
@example("\u13a0")
def test_both_forms_of_a_domain_are_one_label(label: str) -> None:
    try:
        once = normalize_label(f"a@{label}.org", EMAIL)
    except MalformedError:
        # Then its A-label, where it has one, is refused, too: unless it is of another spelling.
        encoded = f"xn--{label.encode('punycode').decode()}"
        with pytest.raises(MalformedError):
            normalize_label(f"a@{encoded}.org", EMAIL)
        return
    inner = once.removeprefix("a@").removesuffix(".org")
    if not inner.isascii():
        # Cherokee has capital letters in domains, and small ones in a label.
        encoded = f"xn--{inner.translate(labels._CAPITAL_IN_DOMAINS).encode('punycode').decode()}"
        assert normalize_label(f"A@{encoded.upper()}.ORG", EMAIL) == once


def test_both_forms_of_each_letter_of_a_domain() -> None:
    """Cherokee has capital letters in domains, and small ones in a label. Han and Hangul are left out."""
    for point in (
        *range(0x80, 0x3400),
        *range(0xA000, 0xAC00),
        *range(0xF900, 0x17000),
        *range(0x1B170, 0x20000),
    ):
        if chr(point) not in labels._IDNA or chr(point) in labels._UNSEEN:
            continue
        letter = f"x{chr(point)}"
        if unicodedata.normalize("NFC", letter) != letter:
            continue
        once = normalize_label(f"a@{letter}.org", EMAIL)
        encoded = f"xn--{letter.encode('punycode').decode()}"
        assert normalize_label(f"a@{encoded}.org", EMAIL) == once, hex(point)
        assert normalize_label(once, EMAIL) == once, hex(point)
