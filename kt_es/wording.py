"""Numbers in messages."""

from __future__ import annotations


def counted(number: int, things: str) -> str:
    """Return ``number`` with a noun: "1 entry", "2 entries". ``things`` is the regular plural of the noun."""
    if number != 1:
        return f"{number} {things}"
    return f"1 {things[:-3]}y" if things.endswith("ies") else f"1 {things[:-1]}"
