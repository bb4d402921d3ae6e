"""The checks of the torture find what they are there for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kt_es.eventstore.streams import ANY, content_event
from tests.reference.memory_log import MemoryLog
from tools.torture.checks import Unchanged
from tools.torture.directory import TortureError


def log_of(*names: str) -> MemoryLog:
    log = MemoryLog()
    for name in names:
        log.append("s", ANY, [content_event("s", "T", name.encode())])
    return log


def test_a_stream_that_only_grows_is_good() -> None:
    unchanged = Unchanged(["s"])
    for end in range(6):
        unchanged.check(log_of(*"abcdef"[:end]))
        unchanged.check(log_of(*"abcdef"[:end]))


@pytest.mark.parametrize(
    "changed",
    [
        lambda: log_of("x", "b", "c", "d"),
        lambda: log_of("a", "b", "x", "d"),
        lambda: log_of("a", "b", "x"),
        lambda: log_of("a", "b"),
        log_of,
        lambda: log_of("b", "a", "c"),
    ],
)
def test_what_was_checked_and_is_another_now_is_found(changed: Callable[[], MemoryLog]) -> None:
    unchanged = Unchanged(["s"])
    unchanged.check(log_of("a", "b", "c"))
    with pytest.raises(TortureError, match="not what they were"):
        unchanged.check(changed())
