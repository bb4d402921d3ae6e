"""Labels: what users are looked up by. FORMATS, "Labels".

The rule decides bytes that are hashed, so it depends on no interpreter and no library. General categories
and lower-casing come from the carried tables of Unicode 14.0.0 alone. NFC comes from the standard library:
Unicode never changes it for code points that are assigned, and a label has no others.
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
_ALPHANUMERIC = _Points(unicode14.ALPHANUMERIC)
_UNSEEN = _Points(_INVISIBLE)
_LOWER = dict(_lower_pairs(unicode14.LOWER))


def normalize_label(label: str, policy: str) -> str:
    """``label`` as the directory knows it: NFC, at most 255 bytes; an address is lower-cased.

    Raises ``LabelError``.
    """
    # Before NFC, which newer interpreters define for characters that Unicode 14.0.0 does not know.
    if not all(_is_allowed(character, policy) for character in label):
        raise LabelError("must not contain control, invisible or unassigned characters")
    text = unicodedata.normalize("NFC", label)
    if policy == EMAIL:
        # Lower-casing can leave NFC, for instance with combining marks.
        text = unicodedata.normalize("NFC", text.translate(_LOWER))
    if not 1 <= len(text.encode()) <= MAX_LABEL:
        raise LabelError(f"must have 1 to {MAX_LABEL} bytes of UTF-8")
    if policy == EMAIL and not _is_address(text):
        raise LabelError("must be an e-mail address such as alice@example.org")
    return text


def is_space(character: str) -> bool:
    """Whether ``character`` is of a general category Z."""
    return character in _SPACE


def _is_allowed(character: str, policy: str) -> bool:
    """Whether ``character`` may stand in a label; joiners and the like (Cf) stand in no address."""
    if character not in _ASSIGNED or character in _UNSEEN:
        return False
    return policy != EMAIL or character not in _FORMAT


def _is_address(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    labels = domain.split(".")
    return at == "@" and _is_local_part(local) and len(labels) >= 2 and all(map(_is_domain_label, labels))


def _is_local_part(local: str) -> bool:
    return len(local.encode()) <= MAX_LOCAL_PART and all(
        run and all(character not in _NOT_IN_LOCAL_PART and character not in _SPACE for character in run)
        for run in local.split(".")
    )


def _is_domain_label(label: str) -> bool:
    return (
        1 <= len(label.encode()) <= MAX_DOMAIN_LABEL
        and label[0] in _ALPHANUMERIC
        and label[-1] in _ALPHANUMERIC
        and all(character in _ALPHANUMERIC or character in "_-" for character in label)
    )
