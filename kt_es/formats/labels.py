"""Labels: the names under which users are looked up. FORMATS, "Labels".

A normalized label is hashed, so the rules must give the same bytes with every interpreter and library.
General categories, lower-casing and the characters of domains come from the tables of Unicode 14.0.0 in
``unicode14``. NFC comes from the standard library: Unicode never changes it for assigned code points, and
labels contain only assigned ones.
"""

from __future__ import annotations

import functools
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

from kt_es.errors import LabelError
from kt_es.formats import unicode14

MAX_LABEL = 255
MAX_LOCAL_PART = 64
MAX_DOMAIN_LABEL = 63
TEXT = "text"
EMAIL = "email"
LABEL_POLICIES = (EMAIL, TEXT)

# Characters outside category Cf that are blank or not displayed. Labels that differ only in them look alike.
_INVISIBLE = """
34f 115f-1160 17b4-17b5 180b-180d 180f 2800 3164 fe00-fe0f ffa0 16fe4 1d159 e0100-e01ef
"""
_A_LABEL = "xn--"
# Arabic-Indic digits and extended ones look alike, so one label cannot have both (RFC 5892, A.8 and A.9).
_DIGITS = frozenset(map(chr, range(0x660, 0x66A)))
_EXTENDED_DIGITS = frozenset(map(chr, range(0x6F0, 0x6FA)))
_NOT_IN_LOCAL_PART = frozenset('()<>[]:;@\\,."')


class _Points:
    """A set of code points, stored as the sorted bounds of its ranges."""

    def __init__(self, table: str) -> None:
        self._ends: list[int] = []
        for word in table.split():
            first, _, last = word.partition("-")
            self._ends += [int(first, 16), int(last or first, 16) + 1]

    def __contains__(self, character: str) -> bool:
        return bisect_right(self._ends, ord(character)) % 2 == 1


def _lower_pairs(table: str) -> Iterator[tuple[int, int]]:
    for word in table.split():
        points, _, offset = word.partition(":")
        span, _, step = points.partition("/")
        first, _, last = span.partition("-")
        for point in range(int(first, 16), int(last or first, 16) + 1, int(step or "1")):
            yield point, point + int(offset, 16)


_ASSIGNED = _Points(unicode14.ASSIGNED)
_FORMAT = _Points(unicode14.FORMAT)
_SPACE = _Points(unicode14.SPACE)
_MARK = _Points(unicode14.MARK)
_IDNA = _Points(unicode14.IDNA)
_UNSEEN = _Points(_INVISIBLE)
_LOWER = dict(_lower_pairs(unicode14.LOWER))
# Only Cherokee has capital letters in domains (RFC 5892, 2.2: its case folding yields capital letters).
_CAPITAL_IN_DOMAINS = {small: capital for capital, small in _LOWER.items() if chr(capital) in _IDNA}


def normalize_label(label: str, policy: str) -> str:
    """Return the form of ``label`` that the directory uses: NFC and at most 255 bytes of UTF-8.

    With the policy ``EMAIL``, the address is also lower-cased, and A-labels are replaced by U-labels.
    Raises ``LabelError``.
    """
    # This check precedes NFC: newer interpreters normalize characters that Unicode 14.0.0 does not have.
    if not all(map(_is_allowed, label)):
        raise LabelError("must not contain control, invisible or unassigned characters")
    text = unicodedata.normalize("NFC", label)
    if policy == EMAIL and text:
        # The result of lower-casing may not be in NFC, for instance with combining marks.
        text = _address(unicodedata.normalize("NFC", text.translate(_LOWER)))
    if not 1 <= len(text.encode()) <= MAX_LABEL:
        raise LabelError(f"must have 1 to {MAX_LABEL} bytes of UTF-8")
    if text != text.strip(" "):
        raise LabelError("must not begin or end with a space")
    return text


def is_white_space(character: str) -> bool:
    """Return whether ``character`` has the property White_Space in Unicode 14.0.0."""
    # These are the characters of the categories Z, U+0085 and U+0009 to U+000D.
    return character in _SPACE or character in "\t\n\v\f\r\x85"


@functools.lru_cache(4096)
def _is_allowed(character: str) -> bool:
    """Return whether a label may contain ``character``: an assigned, visible character or U+0020."""
    return (
        character in _ASSIGNED
        and character not in _UNSEEN
        and character not in _FORMAT
        and (character == " " or character not in _SPACE)
    )


def _address(text: str) -> str:
    """Return the address ``text`` with its domain normalized."""
    local, at, domain = text.rpartition("@")
    labels = [_domain_label(label) for label in domain.split(".")]
    if at != "@" or not _is_local_part(local) or len(labels) < 2 or None in labels:
        raise LabelError("must be an e-mail address such as alice@example.org")
    return f"{local}@{'.'.join(filter(None, labels))}"


def _is_local_part(local: str) -> bool:
    return len(local.encode()) <= MAX_LOCAL_PART and all(
        run and all(character not in _NOT_IN_LOCAL_PART and character not in _SPACE for character in run)
        for run in local.split(".")
    )


def _domain_label(label: str) -> str | None:
    """Return the normalized form of one label of a domain, or None if the label is not valid.

    An A-label is returned as its U-label in lower case. Other labels are returned unchanged.
    """
    if not label.isascii():
        return label if _is_u_label(label.translate(_CAPITAL_IN_DOMAINS)) else None
    if not (
        1 <= len(label) <= MAX_DOMAIN_LABEL
        and label[0].isalnum()
        and label[-1].isalnum()
        and all(character.isalnum() or character in "_-" for character in label)
    ):
        return None
    if not label.startswith(_A_LABEL):
        return label
    try:
        decoded = label.removeprefix(_A_LABEL).encode().decode("punycode")
    except (ValueError, OverflowError):
        return None
    # A U-label has only one A-label. Other spellings that decode to the same U-label are refused.
    return decoded.translate(_LOWER) if _is_u_label(decoded) and _a_label(decoded) == label else None


def _is_u_label(label: str) -> bool:
    """Return whether ``label`` is a U-label (RFC 5890).

    There are two deviations. Of the characters that depend on their context, only digits are allowed. The
    direction of characters (RFC 5893) is not checked. See FORMATS, "Labels".
    """
    return (
        not label.isascii()
        and len(label) <= MAX_DOMAIN_LABEL
        and all(character in _IDNA and character not in _UNSEEN for character in label)
        and label[0] not in _MARK
        and "-" not in (label[0], label[-1])
        and label[2:4] != "--"
        and unicodedata.normalize("NFC", label) == label
        and not (_DIGITS.intersection(label) and _EXTENDED_DIGITS.intersection(label))
        and len(_a_label(label)) <= MAX_DOMAIN_LABEL
    )


def _a_label(label: str) -> str:
    return _A_LABEL + label.encode("punycode").decode()
