"""A reader of C2SP tlog-tiles by its text alone: it fetches a whole log and finds its root again."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from tests.reference import naive_log


def place(number: int, width: int) -> str:
    parts = [f"{number % 1000:03d}"]
    while number := number // 1000:
        parts.insert(0, f"x{number % 1000:03d}")
    return "/".join(parts) + (f".p/{width}" if width < 256 else "")


def parts_of(size: int) -> list[tuple[int, int]]:
    """Numbers and widths of the tiles of a level with ``size`` hashes."""
    whole = [(number, 256) for number in range(size // 256)]
    return whole + ([(size // 256, size % 256)] if size % 256 else [])


def read_log(fetch: Callable[[str], bytes]) -> tuple[str, list[bytes]]:
    """The checkpoint of a log and all its entries; every tile and bundle was compared with them."""
    checkpoint = fetch("checkpoint").decode()
    _, size, root = checkpoint.split("\n")[:3]
    entries: list[bytes] = []
    for number, width in parts_of(int(size)):
        data = fetch(f"tile/entries/{place(number, width)}")
        for _ in range(width):
            length = int.from_bytes(data[:2], "big")
            assert len(data) >= 2 + length
            entries.append(data[2 : 2 + length])
            data = data[2 + length :]
        assert data == b""
    hashes = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    assert base64.b64decode(root) == naive_log.root(hashes)
    level = 0
    while hashes:
        for number, width in parts_of(len(hashes)):
            tile = b"".join(hashes[256 * number : 256 * number + width])
            assert fetch(f"tile/{level}/{place(number, width)}") == tile
        hashes = [naive_log.root(hashes[at : at + 256]) for at in range(0, len(hashes) // 256 * 256, 256)]
        level += 1
    return checkpoint, entries
