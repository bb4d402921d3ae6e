"""Finds other forms of the bytes of a file: the results of undoing encodings.

A private key may be in a file as UTF-16 text, as base64 in a configuration, or as binary data that a shell
treated as text. Each form is examined like the file itself.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterator

# Encodings in which shells read binary data: Latin-1, Windows and two code pages of its console.
_CODE_PAGES = ("latin-1", "cp1252", "cp437", "cp850")
_MAX_DEPTH = 3
_MAX_FORMS = 64

# Lines that are only base64, and single words of base64. The shortest key has 32 bytes.
_LINE = re.compile(rb"[ \t>]*([A-Za-z0-9+/_-]+={0,2})[ \t\\]*")
_WORD = re.compile(rb"[A-Za-z0-9+/_-]{40,}")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}[:\s]{0,8}){32,}+")
_NO_HEX = re.compile(rb"[^0-9A-Fa-f]")


def utf8_text(data: bytes) -> bytes:
    """Return text in UTF-8, UTF-16 or UTF-32 as UTF-8 without byte order mark; other ``data`` unchanged."""
    if data.startswith(codecs.BOM_UTF8):
        return data.removeprefix(codecs.BOM_UTF8)
    encoding = _wide_encoding(data)
    if encoding:
        try:
            return data.decode(encoding).removeprefix("\ufeff").encode()
        except UnicodeError:
            pass
    return data


def _wide_encoding(data: bytes) -> str:
    """Return the encoding of ``data`` if it is UTF-16 or UTF-32; otherwise an empty string."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(data) >= 4 and len(data) % 2 == 0:
        if not any(data[1::2]) and any(data[0::2]):
            return "utf-16-le"
        if not any(data[0::2]) and any(data[1::2]):
            return "utf-16-be"
    return ""


def forms(data: bytes) -> Iterator[bytes]:
    """Yield ``data`` and its other forms, each form once, at most 64 of them."""
    seen: set[bytes] = set()
    pending = [(data, 0)]
    while pending and len(seen) < _MAX_FORMS:
        form, depth = pending.pop(0)
        if form in seen or not form:
            continue
        seen.add(form)
        yield form
        if depth < _MAX_DEPTH:
            pending += [(inner, depth + 1) for inner in _undone(form)]


def _undone(data: bytes) -> Iterator[bytes]:
    if b"\x00" in data:
        # This undoes UTF-16 and UTF-32 of ASCII, at any offset and in any byte order.
        yield data.replace(b"\x00", b"")
    text = utf8_text(data)
    if text != data:
        yield text
    if not text.isascii():
        yield from _as_binary(text)
        return
    yield from _from_base64(text)
    for match in _HEX.finditer(text):
        digits = _NO_HEX.sub(b"", match[0])
        yield binascii.unhexlify(digits[: len(digits) // 2 * 2])


def _as_binary(text: bytes) -> Iterator[bytes]:
    """Yield the bytes from which ``text`` was made if they were read as text in one of the code pages."""
    try:
        characters = text.decode()
    except UnicodeDecodeError:
        return
    for page in _CODE_PAGES:
        try:
            yield characters.encode(page)
        except UnicodeEncodeError:
            continue


def _from_base64(text: bytes) -> Iterator[bytes]:
    group: list[bytes] = []
    for line in [*re.split(rb"\r?\n|\r|\\n", text), b""]:
        match = _LINE.fullmatch(line)
        if match is not None:
            group.append(match[1])
            continue
        yield from _decoded_group(group)
        group = []
    for word in _WORD.finditer(text):
        yield _decoded(word[0])


def _decoded_group(lines: list[bytes]) -> Iterator[bytes]:
    """Decode consecutive lines of base64. Up to three short lines before them may be words of text."""
    for start in range(min(4, len(lines) - 1)):
        yield _decoded(b"".join(lines[start:]))
        if len(lines[start]) >= 40:
            return


def _decoded(text: bytes) -> bytes:
    digits = text.translate(bytes.maketrans(b"-_", b"+/"), b"=")
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    return base64.b64decode(digits + b"=" * (-len(digits) % 4))
