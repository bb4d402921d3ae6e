"""JSON from an enemy: one meaning each, bounded while it is read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kt_es.api.codec import MAX_VALUES, decode_json
from kt_es.errors import MalformedError


def test_a_character_may_be_written_as_a_pair() -> None:
    assert decode_json(b'{"a": "\\ud83d\\ude00"}', "answer") == {"a": "\U0001f600"}


def test_an_object_is_read() -> None:
    assert decode_json(b'{"a": [1, null, true, "b", {"c": 2.5}]}', "answer") == {
        "a": [1, None, True, "b", {"c": 2.5}]
    }


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"a": 1', "is not JSON"),
        (b'{"a": 1} x', "is not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b'{"a": 1, "a": 1}', "a member twice"),
        (b'{"b": [{"a": 1, "a": 2}]}', "a member twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 0.' + b"1" * 5_000 + b"}", "too long"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": ["\\uDC00x"]}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "more than 20 digits"),
        (b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "is not JSON"),
        (b'{"a": [' + b"0," * MAX_VALUES + b"0]}", "more than 100000 values"),
        (b'{"a": [' + b"{}," * MAX_VALUES + b"0]}", "more than 100000 values"),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem) as refused:
        decode_json(data, "answer to /")
    assert refused.value.what == "answer to /"


WORST = {
    "empty lists": "b'{\"a\":[' + b'[],' * 49_000 + b'0]}'",
    "members": "b'{' + b','.join(b'\"%d\":{}' % n for n in range(49_000)) + b',\"z\":0}'",
    "one text of wide characters": "('{\"a\":\"' + chr(0x10000) + 'x' * 4_190_000 + '\"}').encode()",
    "escapes": "b'{\"a\":\"' + b'\\\\u00e9' * 690_000 + b'\"}'",
}


@pytest.mark.parametrize("kind", WORST)
def test_the_worst_answer_that_is_taken_stays_small(kind: str) -> None:
    """In a process of its own: the peak of this one says nothing."""
    program = (
        "import resource\n"
        "from kt_es.api.codec import decode_json\n"
        "from kt_es.api.operations import MAX_ANSWER\n"
        f"data = {WORST[kind]}\n"
        "assert len(data) <= MAX_ANSWER\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "value = decode_json(data, 'answer')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # KiB
