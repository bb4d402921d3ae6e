"""What a label is, and the one form of it that is looked up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.errors import MalformedError
from kt_es.formats.labels import EMAIL, LABEL_POLICIES, TEXT, normalize_label

NORMALIZED = {
    "alice@example.org": "alice@example.org",
    "Alice@Example.ORG": "alice@example.org",
    "alice+kt@example.org": "alice+kt@example.org",
    "a.b-c_d@sub.example-1.org": "a.b-c_d@sub.example-1.org",
    "!#$%&'*+/=?^_`{|}~-@example.org": "!#$%&'*+/=?^_`{|}~-@example.org",
    "JU\u0308RGEN@exa\u0301mple.org": "j\u00fcrgen@ex\u00e1mple.org",
    # Lower-casing leaves NFC: the capital has no composed form, the small letter has.
    "J\u030c@example.org": "\u01f0@example.org",
    "\u212b@example.org": "\u00e5@example.org",
    "\u039f\u0394\u039f\u03a3@example.org": "\u03bf\u03b4\u03bf\u03c2@example.org",
    "用户@例子.广告": "用户@例子.广告",
    "x" * 64 + "@example.org": "x" * 64 + "@example.org",
}

NO_ADDRESS = {
    "nothing": "",
    "no at sign": "alice.example.org",
    "two at signs": "alice@b@example.org",
    "no local part": "@example.org",
    "no domain": "alice@",
    "one domain label": "alice@localhost",
    "dot at the start": ".alice@example.org",
    "dot at the end": "alice.@example.org",
    "two dots": "al..ice@example.org",
    "dot at the domain's end": "alice@example.org.",
    "two dots in the domain": "alice@example..org",
    "hyphen at the start of a domain label": "alice@-example.org",
    "hyphen at the end of a domain label": "alice@example-.org",
    "space": "al ice@example.org",
    "space around": " alice@example.org",
    "no-break space": "al\u00a0ice@example.org",
    "line break": "alice@example.org\n",
    "quoted": '"alice"@example.org',
    "comment": "alice(x)@example.org",
    "name beside it": "Alice <alice@example.org>",
    "address literal": "alice@[192.0.2.1]",
    "local part of 65 bytes": "x" * 65 + "@example.org",
    "domain label of 64 bytes": "alice@" + "x" * 64 + ".org",
    "256 bytes": "a@" + "x." * 125 + "orgs",
    "null byte": "al\x00ice@example.org",
    "unassigned character": "al\u0378ice@example.org",
    "private character": "al\ue000ice@example.org",
    "zero-width space": "al\u200bice@example.org",
    "bidirectional mark": "al\u202eice@example.org",
    "soft hyphen": "al\u00adice@example.org",
    "surrogate": "al\ud800ice@example.org",
}


@pytest.mark.parametrize(("label", "wanted"), NORMALIZED.items())
def test_addresses_are_normalized(label: str, wanted: str) -> None:
    assert normalize_label(label, EMAIL) == wanted


@pytest.mark.parametrize("label", NO_ADDRESS.values(), ids=NO_ADDRESS.keys())
def test_what_is_no_address(label: str) -> None:
    with pytest.raises(MalformedError) as caught:
        normalize_label(label, EMAIL)
    assert caught.value.what == "label"


def test_text_keeps_its_case_and_is_composed() -> None:
    assert normalize_label("Ju\u0308rgen M.", TEXT) == "J\u00fcrgen M."
    assert normalize_label("x" * 255, TEXT) == "x" * 255


@pytest.mark.parametrize("label", ["", "x" * 256, "é" * 128, "a\tb", "a\nb", "\ud800", "\u0378", "\ue000"])
def test_what_is_no_text_label(label: str) -> None:
    with pytest.raises(MalformedError) as caught:
        normalize_label(label, TEXT)
    assert caught.value.what == "label"


ADDRESSES = st.builds("{}@{}.org".format, st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))


@given(st.one_of(st.text(max_size=40), ADDRESSES), st.sampled_from(LABEL_POLICIES))
def test_the_form_that_is_looked_up_is_its_own_form(label: str, policy: str) -> None:
    try:
        once = normalize_label(label, policy)
    except MalformedError:
        return
    assert normalize_label(once, policy) == once
    assert 1 <= len(once.encode()) <= 255
