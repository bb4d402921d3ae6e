"""A refused request is told what it needs and what is missing, and nothing about other requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kt_es.errors import AccessDeniedError
from kt_es.server.availability import LogWatch
from kt_es.server.responses import NotNowError
from tests import builders as b
from tests.reference.frontends import Front, front, submission, until
from tests.reference.memory_log import MemoryLog
from tests.reference.sharing import SharedStreams, store_of


@pytest.fixture
def thin() -> Iterator[Front]:
    """A thin front end, whose log goes away before anybody has asked for the opening of alice."""
    streams = SharedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams, store_of(streams.replicas)) as running:
        assert isinstance(streams.log, MemoryLog)
        streams.log.away = True
        until(lambda: running.running.watch.problem is not None)
        yield running
        streams.log.away = False


def test_a_lookup_that_needs_the_log_is_not_told_that_lookups_go_on(thin: Front) -> None:
    refused = thin.post("/v1/lookup", {"label": b.label_of("alice")})
    assert (refused.status_code, refused.json()["detail"]) == (
        503,
        "the event log cannot be reached, and the opening of this entry is not in memory; try again later",
    )
    assert thin.post("/v1/lookup", {"label": b.label_of("nobody")}).status_code == 200


def test_a_submission_is_told_to_be_submitted_again(thin: Front) -> None:
    refused = thin.post("/v1/mutations", submission("bob"))
    assert (refused.status_code, refused.json()["detail"]) == (
        503,
        "the event log cannot be reached; submit again later",
    )


def test_a_queue_that_is_denied_refuses_submissions_and_no_opening() -> None:
    def denied() -> MemoryLog:
        raise AccessDeniedError("denied", "kt_queue-people", "$r")

    watch = LogWatch(denied, "kt_queue-people", lambda _: None)
    with pytest.raises(NotNowError, match="cannot be reached"):
        watch.check_readable()
    watch.probe()
    watch.check_readable()
    with pytest.raises(NotNowError) as refused:
        watch.check()
    assert str(refused.value) == "the right $r to a stream of the event log is missing; submit again later"
