"""Numbers in sentences for people."""

from __future__ import annotations


def counted(number: int, things: str) -> str:
    """``number`` and the regular plural ``things``, in the singular for one: "1 entry", "2 entries"."""
    if number != 1:
        return f"{number} {things}"
    return f"1 {things[:-3]}y" if things.endswith("ies") else f"1 {things[:-1]}"
