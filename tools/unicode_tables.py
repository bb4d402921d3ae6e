"""Writes kt_es/formats/unicode14.py: ``python -m tools.unicode_tables > kt_es/formats/unicode14.py``.

The definition of labels uses Unicode 14.0.0 permanently (FORMATS, "Labels"). So the tables are made once, by
an interpreter that has this version: CPython 3.11.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator

VERSION = "14.0.0"
_WIDTH = 104

# The one unconditional mapping of SpecialCasing.txt for a small letter; UnicodeData.txt has this instead.
_CAPITAL_I_WITH_DOT = "\u0130"

_TEMPLATE = '''"""The part of Unicode 14.0.0 that labels need. Made by tools/unicode_tables.py; do not edit.

Ranges of code points in hexadecimal, ``first-last`` or one alone.
"""

from __future__ import annotations

ASSIGNED = """
{assigned}
"""
"""All general categories but Cc, Cs, Cn and Co."""

FORMAT = """
{format}
"""
"""General category Cf."""

SPACE = """
{space}
"""
"""General categories Zs, Zl and Zp."""

MARK = """
{mark}
"""
"""General categories Mn, Mc and Me."""

IDNA = """
{idna}
"""
"""PVALID by RFC 5892, and the digits that are CONTEXTO there (U+0660 to U+0669, U+06F0 to U+06F9)."""

LOWER = """
{lower}
"""
"""Simple_Lowercase_Mapping: ``first-last:offset``, or ``first-last/2:offset`` for every second code point."""
'''


def ranges(holds: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """Yield the maximal ranges of code points for whose characters ``holds`` is true."""
    first: int | None = None
    for point in range(sys.maxunicode + 2):
        if point <= sys.maxunicode and holds(chr(point)):
            first = point if first is None else first
        elif first is not None:
            yield first, point - 1
            first = None


def simple_lower(character: str) -> str:
    """Return the mapping of UnicodeData.txt. ``str.lower`` is the full mapping: only U+0130 differs."""
    return "i" if character == _CAPITAL_I_WITH_DOT else character.lower()


def lower_runs() -> Iterator[tuple[int, int, int, int]]:
    """Yield ``(first, last, step, offset)`` of code points with a small letter. The step is 1 or 2."""
    pairs = [
        (point, ord(simple_lower(chr(point))) - point)
        for point in range(sys.maxunicode + 1)
        if simple_lower(chr(point)) != chr(point)
    ]
    at = 0
    while at < len(pairs):
        first, offset = pairs[at]
        end, step = at + 1, 1
        if end < len(pairs) and pairs[end] == (first + 2, offset):
            step = 2
        while end < len(pairs) and pairs[end] == (first + step * (end - at), offset):
            end += 1
        yield first, first + step * (end - at - 1), step, offset
        at = end


def _span(first: int, last: int) -> str:
    return f"{first:x}" if first == last else f"{first:x}-{last:x}"


def _wrapped(words: Iterator[str]) -> str:
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) >= _WIDTH:
            lines.append(line)
            line = ""
        line += f" {word}" if line else word
    return "\n".join([*lines, line])


def _of(holds: Callable[[str], bool]) -> str:
    return _wrapped(_span(first, last) for first, last in ranges(holds))


def _points(table: str) -> frozenset[int]:
    spans = [word.partition("-") for word in table.split()]
    return frozenset(
        point for first, _, last in spans for point in range(int(first, 16), int(last or first, 16) + 1)
    )


# RFC 5892, 2.6: exceptions. Of the characters that depend on the context, only the digits are included.
_VALID = _points("df 3c2 660-669 6f0-6f9 6fd-6fe f0b 3007")
_INVALID = _points("b7 375 5f3-5f4 640 7fa 302e-302f 3031-3035 303b 30fb")
# 2.3, Default_Ignorable_Code_Point: the letters and marks among them.
_IGNORABLE = _points("34f 115f-1160 17b4-17b5 180b-180d 180f 3164 fe00-fe0f ffa0 e0100-e01ef")
# 2.4, the blocks of combining marks for symbols and of musical notation; 2.9, old Hangul Jamo.
_BLOCKS = _points("20d0-20ff 1d100-1d24f")
_JAMO = _points("1100-11ff a960-a97c d7b0-d7c6 d7cb-d7fb")
_NEVER = _INVALID | _IGNORABLE | _BLOCKS | _JAMO


def is_idna(character: str) -> bool:
    """Return whether a label of an internationalized domain may contain ``character`` (RFC 5892, 3)."""
    point = ord(character)
    if point in _VALID or character == "-":
        return True
    if point in _NEVER:
        return False
    nfkc = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", character).casefold())
    is_letter_or_digit = unicodedata.category(character) in ("Ll", "Lu", "Lo", "Nd", "Lm", "Mn", "Mc")
    return is_letter_or_digit and nfkc == character


def module() -> str:
    """Return the text of kt_es/formats/unicode14.py."""
    category = unicodedata.category
    return _TEMPLATE.format(
        assigned=_of(lambda character: category(character) not in ("Cc", "Cs", "Cn", "Co")),
        format=_of(lambda character: category(character) == "Cf"),
        space=_of(lambda character: category(character)[0] == "Z"),
        mark=_of(lambda character: category(character)[0] == "M"),
        idna=_of(is_idna),
        lower=_wrapped(
            _span(first, last) + ("/2" if step == 2 else "") + f":{offset:x}"
            for first, last, step, offset in lower_runs()
        ),
    )


if __name__ == "__main__":
    if unicodedata.unidata_version != VERSION:
        sys.exit(
            f"this interpreter has Unicode {unicodedata.unidata_version}, not {VERSION}: use CPython 3.11"
        )
    sys.stdout.write(module())
