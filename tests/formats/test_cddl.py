"""docs/formats.cddl and the code accept the same bytes: the examples, and the same ones damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pycddl  # type: ignore[import-untyped]
import pytest

from kt_es.errors import KtError, MalformedError
from kt_es.formats.codec import Value, decode, encode
from kt_es.formats.queue import ItemKind, Verdict
from tests.examples import EXAMPLES, Example
from tests.reference.cddl import Schema

TEXT = (Path(__file__).parents[2] / "docs" / "formats.cddl").read_text()
SCHEMA = Schema(TEXT)

# What CDDL leaves to FORMATS, as damaged by ``damaged``: intervals in order, the form of an origin,
# keys that are points, sizes and numbers that belong together.
BEYOND_CDDL = {
    "config",
    "signed-config",
    "configs",
    "proof-file",
    "receipt-file",
    "standing",
    "committed",
    "range-answer",
    "evidence",
}


def accepted(example: Example, data: bytes) -> bool:
    try:
        again = example.again(data)
    except KtError:
        return False
    assert again == data
    return True


def damaged(value: Value) -> Iterator[Value]:
    """``value`` with one thing in it missing, added, of another type, size or range."""
    if isinstance(value, list):
        yield from ([*value[:at], *value[at + 1 :]] for at in range(len(value)))
        yield from ([*value, extra] for extra in (None, 0, b""))
        yield from (
            [*value[:at], bad, *value[at + 1 :]] for at in range(len(value)) for bad in damaged(value[at])
        )
        yield b""
    elif isinstance(value, bytes):
        yield from (value[:-1], value + b"\x00", b"", None, 0, [], value.hex())
        inner = content(value)
        if inner is not None:
            yield from (encode(bad) for bad in damaged(inner))
    elif isinstance(value, str):
        yield from ("", value + "x", value.encode(), None, 0, "x" * 300, "\u20ac")
    elif isinstance(value, int):
        yield from (0, value + 1, 7, 300, 2**32, 2**64 - 1, None, b"", "")
    else:
        yield from (0, b"", bytes(16), bytes(31), bytes(32), "", [], [bytes(32), bytes(32)])


def content(data: bytes) -> Value:
    """The array in a byte string, or None: data that only looks like one is too rare to matter."""
    try:
        inner = decode(data, "content")
    except MalformedError:
        return None
    return inner if isinstance(inner, list) else None


def test_the_schema_is_cddl_to_others_too() -> None:
    pycddl.Schema(TEXT)


@pytest.mark.parametrize("rule", ["entry", "map-head", "marker-payload"])
def test_others_validate_flat_formats_with_it(rule: str) -> None:
    # Choices in arrays and nested ``.cbor`` are beyond this validator (pycddl 0.6).
    (data,) = (made.data for made in EXAMPLES.values() if made.rule == rule)
    pycddl.Schema(f"start = {rule}\n{TEXT}").validate_cbor(data)
    with pytest.raises(pycddl.ValidationError):
        pycddl.Schema(f"start = {rule}\n{TEXT}").validate_cbor(encode([*content(data), 0]))  # type: ignore[misc]


def test_every_rule_is_a_format_or_a_part_of_one() -> None:
    formats = {made.rule for made in EXAMPLES.values()}
    assert set(SCHEMA.names) - SCHEMA.used <= formats


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_examples_match_their_rule(example: Example) -> None:
    assert SCHEMA.valid(example.rule, example.data)


@pytest.mark.parametrize(("name", "example"), EXAMPLES.items(), ids=EXAMPLES.keys())
def test_code_and_schema_refuse_the_same_damage(name: str, example: Example) -> None:
    refused = 0
    for bad in damaged(content(example.data)):
        data = encode(bad)
        by_code, by_schema = accepted(example, data), SCHEMA.valid(example.rule, data)
        if by_schema and not by_code and example.rule in BEYOND_CDDL:
            continue
        assert by_code == by_schema, f"code {by_code}, schema {by_schema}: {data.hex()}"
        refused += not by_code
    assert refused >= 10


def test_enumerations_are_complete() -> None:
    sequence, revision, position, _, _, item = decode(EXAMPLES["record-malformed"].data, "record")  # type: ignore[misc]
    for kind in range(300):
        for verdict in [*Verdict] if kind < 7 else [Verdict.ACCEPTED]:
            data = encode([sequence, revision, position, kind, int(verdict), item])
            assert SCHEMA.valid("record", data) == (kind in set(ItemKind))
    for number in range(300):
        data = encode([sequence, revision, position, 0, number, item])
        assert SCHEMA.valid("record", data) == (number in set(Verdict))
