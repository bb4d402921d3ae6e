"""Labels: what users are looked up by. FORMATS, "Labels".

The rule decides bytes that are hashed, so it depends on no interpreter and no library. General categories,
lower-casing and what a domain may hold come from the carried tables of Unicode 14.0.0 alone. NFC comes from
the standard library: Unicode never changes it for code points that are assigned, and a label has no others.
"""

from __future__ import annotations

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

# What is blank or not shown at all, and of another category than Cf: two labels that differ in it look alike.
_INVISIBLE = """
34f 115f-1160 17b4-17b5 180b-180d 180f 2800 3164 fe00-fe0f ffa0 16fe4 1d159 e0100-e01ef
"""
_A_LABEL = "xn--"
# Arabic-Indic digits and the extended ones, which look alike, do not stand in one label (RFC 5892, A.8, A.9).
_DIGITS = frozenset(map(chr, range(0x660, 0x66A)))
_EXTENDED_DIGITS = frozenset(map(chr, range(0x6F0, 0x6FA)))
_NOT_IN_LOCAL_PART = frozenset('()<>[]:;@\\,."')


class _Points:
    """A set of code points, kept as the sorted ends of its ranges."""

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
# Cherokee alone has its capital letters in domains (RFC 5892, 2.2: case folding leads to them).
_CAPITAL_IN_DOMAINS = {small: capital for capital, small in _LOWER.items() if chr(capital) in _IDNA}


def normalize_label(label: str, policy: str) -> str:
    """``label`` as the directory knows it: NFC, at most 255 bytes; an address is lower-cased, its domain of
    U-labels.

    Raises ``LabelError``.
    """
    # Before NFC, which newer interpreters define for characters that Unicode 14.0.0 does not know.
    if not all(map(_is_allowed, label)):
        raise LabelError("must not contain control, invisible or unassigned characters")
    text = unicodedata.normalize("NFC", label)
    if policy == EMAIL and text:
        # Lower-casing can leave NFC, for instance with combining marks.
        text = _address(unicodedata.normalize("NFC", text.translate(_LOWER)))
    if not 1 <= len(text.encode()) <= MAX_LABEL:
        raise LabelError(f"must have 1 to {MAX_LABEL} bytes of UTF-8")
    if text != text.strip(" "):
        raise LabelError("must not begin or end with a space")
    return text


def is_space(character: str) -> bool:
    """Whether ``character`` is of a general category Z."""
    return character in _SPACE


def _is_allowed(character: str) -> bool:
    """Whether ``character`` may stand in a label: it is assigned, and is seen. The one blank is U+0020."""
    return (
        character in _ASSIGNED
        and character not in _UNSEEN
        and character not in _FORMAT
        and (character == " " or character not in _SPACE)
    )


def _address(text: str) -> str:
    """The address ``text``, its domain in the one form that it has here; ``LabelError`` if it is none."""
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
    """``label`` as a U-label in small letters if it is an A-label; None if no domain has such a label."""
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
    # One A-label for one U-label: what decodes to it in another spelling is refused.
    return decoded.translate(_LOWER) if _is_u_label(decoded) and _a_label(decoded) == label else None


def _is_u_label(label: str) -> bool:
    """Whether ``label`` is a U-label (RFC 5890), but for the rules on context and direction; see FORMATS."""
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
