"""Labels: what users are looked up by. FORMATS, "Labels".

The rule decides bytes that are hashed, so it is spelled out here and not left to a library whose
next release could normalize differently (DECISIONS, "Labels").
"""

from __future__ import annotations

import re
import unicodedata

from kt_es.errors import MalformedError

MAX_LABEL = 255
TEXT = "text"
EMAIL = "email"
LABEL_POLICIES = (EMAIL, TEXT)

# Control, surrogate, unassigned and private characters stand in no label. An address has no invisible
# ones either (joiners, bidirectional marks): it would look like somebody else's.
_FORBIDDEN = {TEXT: ("Cc", "Cs", "Cn", "Co"), EMAIL: ("Cc", "Cs", "Cn", "Co", "Cf")}

_ATEXT = r"[^\s\x00-\x20\x7f()<>\[\]:;@\\,.\"]+"
_LOCAL = re.compile(rf"{_ATEXT}(\.{_ATEXT})*")
_DOMAIN_LABEL = re.compile(r"[^\W_]([\w\-]*[^\W_])?")


def normalize_label(label: str, policy: str) -> str:
    """``label`` as the directory knows it: NFC, at most 255 bytes; an address is lower-cased.

    Raises ``MalformedError`` naming the field ``label``.
    """
    try:
        text = unicodedata.normalize("NFC", label)
        if policy == EMAIL:
            # Lower-casing can leave NFC, for instance with combining marks.
            text = unicodedata.normalize("NFC", text.lower())
        data = text.encode()
    except UnicodeEncodeError:
        raise MalformedError("label", "must be valid Unicode") from None
    if not 1 <= len(data) <= MAX_LABEL:
        raise MalformedError("label", f"must have 1 to {MAX_LABEL} bytes of UTF-8")
    if any(unicodedata.category(character) in _FORBIDDEN[policy] for character in text):
        raise MalformedError("label", "must not contain control, invisible or unassigned characters")
    if policy == EMAIL and not _is_address(text):
        raise MalformedError("label", "must be an e-mail address such as alice@example.org")
    return text


def _is_address(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    labels = domain.split(".")
    return (
        at == "@"
        and len(local.encode()) <= 64
        and _LOCAL.fullmatch(local) is not None
        and len(labels) >= 2
        and all(len(label.encode()) <= 63 and _DOMAIN_LABEL.fullmatch(label) for label in labels)
    )
