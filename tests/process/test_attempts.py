"""Attempts are repeated until they are stopped, and the pauses between them double up to a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import structlog
from structlog.testing import capture_logs

from kt_es.errors import AccessDeniedError, DivergenceError, KtError, UnavailableError
from kt_es.process.outage import Backoff, Outage, keep_trying, patiently

AWAY = UnavailableError("nobody there")
DENIED = AccessDeniedError("may not read")


def test_pauses_double_up_to_the_bound() -> None:
    backoff = Backoff(0.25, 1.5)
    assert [backoff.pause() for _ in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]


def test_a_success_brings_back_the_shortest_pause() -> None:
    backoff = Backoff(0.25, 1.5)
    backoff.pause()
    backoff.pause()
    backoff.reset()
    assert [backoff.pause(), backoff.pause()] == [0.25, 0.5]


class Waits(threading.Event):
    """An event that is set after ``count`` waits, and notes their lengths instead of waiting."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self._count = count

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        if len(self.pauses) == self._count:
            self.set()
        return self.is_set()


def trying(
    attempt: Callable[[], None],
    stop: threading.Event,
    *passing: type[KtError],
    backoff: Backoff | None = None,
) -> tuple[list[KtError], list[str]]:
    """Try until ``stop``; return the errors of the outages, and what was logged."""
    failures: list[KtError] = []
    with capture_logs() as said:
        keep_trying(
            attempt,
            stop,
            Outage("part", structlog.get_logger()),
            backoff or Backoff(1.0, 4.0),
            on_failure=failures.append,
            passing=passing or (UnavailableError,),
        )
    return failures, [line["event"] for line in said]


def test_each_outage_is_waited_out_with_a_longer_pause() -> None:
    def attempt() -> None:
        raise AWAY

    stop = Waits(4)
    assert trying(attempt, stop) == ([AWAY] * 4, ["the event log cannot be reached"])
    assert stop.pauses == [1.0, 2.0, 4.0, 4.0]


def test_progress_of_an_attempt_brings_back_the_shortest_pause() -> None:
    backoff, stop = Backoff(1.0, 4.0), Waits(4)

    def attempt() -> None:
        if len(stop.pauses) == 2:
            backoff.reset()
        raise AWAY

    trying(attempt, stop, backoff=backoff)
    assert stop.pauses == [1.0, 2.0, 1.0, 2.0]


def test_an_attempt_that_ends_by_itself_is_repeated_after_a_pause() -> None:
    stop, attempts = Waits(2), []
    assert trying(lambda: attempts.append(1), stop) == ([], [])
    assert (len(attempts), stop.pauses) == (2, [1.0, 2.0])


@pytest.mark.parametrize("error", [DENIED, DivergenceError("another head"), ValueError("a bug")])
def test_every_other_error_ends_the_attempts(error: Exception) -> None:
    def attempt() -> None:
        raise error

    stop = Waits(1)
    with pytest.raises(type(error)) as raised:
        trying(attempt, stop)
    assert raised.value is error
    assert stop.pauses == []


def test_the_caller_names_which_errors_pass() -> None:
    errors = [DENIED, AWAY]

    def attempt() -> None:
        raise errors.pop(0)

    assert trying(attempt, Waits(2), UnavailableError, AccessDeniedError)[0] == [DENIED, AWAY]


def test_what_fails_because_of_the_stop_is_no_outage() -> None:
    stop = Waits(9)

    def attempt() -> None:
        stop.set()
        raise AWAY

    # The caller hears of the failure: whatever waits for the attempt has to be released.
    assert trying(attempt, stop) == ([AWAY], [])


def test_nothing_is_attempted_after_the_stop() -> None:
    stop = Waits(9)
    stop.set()
    assert trying(lambda: pytest.fail("an attempt after the stop"), stop) == ([], [])


def made_patiently(make: Callable[[], object], stop: threading.Event) -> tuple[object, list[str]]:
    with capture_logs() as said:
        made = patiently(make, stop, Outage("part", structlog.get_logger()))
    return made, [line["event"] for line in said]


def test_what_an_outage_keeps_from_being_made_is_made_after_it() -> None:
    errors, stop = [AWAY, AWAY], Waits(9)

    def make() -> str:
        if errors:
            raise errors.pop()
        return "made"

    assert made_patiently(make, stop) == (
        "made",
        ["the event log cannot be reached", "the event log can be reached again"],
    )
    assert stop.pauses == [1.0, 1.0]


def test_nothing_is_made_after_the_stop() -> None:
    def make() -> str:
        raise AWAY

    assert made_patiently(make, Waits(2)) == (None, ["the event log cannot be reached"])
