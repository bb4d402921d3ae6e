"""Erasures over HTTP, and the openings that leave their streams once an epoch has accepted them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import AccessDeniedError, UnavailableError
from kt_es.eventstore.streams import ANY, Event, Metadata, NewEvent, content_event
from kt_es.formats.entries import OPENING, OPENING_ERASED, Mutation, Opening, decode_erased
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.queue import ERASURE
from kt_es.ledger.openings import Missing
from kt_es.server.privacy import sweep_stream
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams

ALICE = b.label_of("alice")
STREAM = "kt_openings-people." + b.index("alice").hex()


class TruncatedLog(MemoryLog):
    """Hides what lies before the ``$tb`` of a stream, as servers do."""

    def _visible(self, stream: str, start: int) -> list[Event]:
        before = self._metadata.get(stream, Metadata()).values.get("$tb", 0)
        assert isinstance(before, int)
        return super()._visible(stream, max(start, before))


class Story:
    """alice has three versions."""

    def __init__(self) -> None:
        self.streams = SignedStreams(TruncatedLog())
        self.versions: list[Mutation] = []
        for _ in range(3):
            before = self.versions[-1] if self.versions else None
            self.versions.append(self.streams.put_user("alice", before))
            self.streams.epoch()

    def openings(self) -> list[bytes]:
        """Entry hashes of the openings that stand in alice's stream."""
        return [one.entry_hash for one in openings_in(self.streams.log.read(STREAM))]


def openings_in(events: Iterator[Event]) -> list[Opening]:
    return [Opening.decode(event.data) for event in events if event.type == OPENING]


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def running(story: Story) -> Iterator[Front]:
    with front(story.streams) as made:
        yield made


def erasure(
    of: Mutation, key: PrivateKey | None = None, reason: ErasureReason = ErasureReason.OWNER, **changed: Any
) -> bytes:
    key = b.private_key("alice") if key is None else key
    index = changed.get("index", of.entry.index)
    return Erasure.sign(index, changed.get("entry_hash", of.entry_hash), reason, b.ORIGIN, key).encode()


def body(data: bytes) -> dict[str, str]:
    return {"erasure": base64.b64encode(data).decode()}


def erasures_queued(streams: SignedStreams) -> list[bytes]:
    return [event.data for event in streams.log.read(streams.names.queue) if event.type == ERASURE]


@pytest.mark.parametrize("key", [b.private_key("alice"), b.SIGNER], ids=["owner", "operator"])
def test_an_erasure_is_queued_and_takes_effect(story: Story, running: Front, key: PrivateKey) -> None:
    wanted = story.versions[2]
    data = erasure(wanted, key, ErasureReason.LAW)
    answer = running.post("/v1/erasures", body(data))
    assert answer.status_code == 202, answer.text
    assert answer.json()["entry"] == wanted.entry_hash.hex()
    assert erasures_queued(story.streams) == [data]
    assert running.directory.lookup(ALICE).result == "found"
    story.streams.epoch()
    until(running.caught_up)
    found = running.directory.lookup(ALICE)
    assert (found.result, found.profile) == ("erased", None)
    again = running.post("/v1/erasures", body(data))
    assert (again.status_code, again.json()["epoch"]) == (200, 4)
    assert len(erasures_queued(story.streams)) == 1


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (lambda v: erasure(v, b.private_key("mallory")), 403, "foreign-erasure"),
        (lambda v: erasure(v)[:-1] + b"\0", 403, "foreign-erasure"),
        (lambda v: erasure(v, b.SIGNER, index=b.index("bob")), 403, "foreign-erasure"),
        (lambda v: erasure(v, entry_hash=bytes(32)), 400, "malformed"),
        (lambda v: erasure(v) + b"\0", 400, "malformed"),
        (lambda v: bytes(1025), 413, "oversize"),
    ],
    ids=["another key", "signature", "no account", "no entry", "format", "size"],
)
def test_what_the_signer_would_refuse_is_not_queued(
    story: Story, running: Front, data: Any, status: int, reason: str
) -> None:
    answer = running.post("/v1/erasures", body(data(story.versions[0])))
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert erasures_queued(story.streams) == []


def test_the_opening_leaves_the_stream_and_the_others_stay(story: Story, running: Front) -> None:
    first, second, third = (version.entry_hash for version in story.versions)
    story.streams.erase(story.versions[1], b.private_key("alice"))
    assert story.openings() == [first, second, third]
    story.streams.epoch()
    until(lambda: story.openings() == [third, first])
    marks = [event for event in story.streams.log.read(STREAM) if event.type == OPENING_ERASED]
    assert [decode_erased(mark.data) for mark in marks] == [second]
    until(lambda: running.running.openings.get(b.index("alice"), second) is Missing.ERASED)
    for epoch, result in ((1, "found"), (2, "erased"), (3, "found")):
        assert running.directory.lookup(ALICE, epoch).result == result
    held = running.store.get("openings", b.index("alice") + second)
    assert held is not None
    assert b.profile("alice", 2) not in held


def test_a_front_end_that_was_away_sweeps_what_was_erased_meanwhile(story: Story) -> None:
    for version in story.versions:
        story.streams.erase(version)
    story.streams.epoch()
    with front(story.streams) as running:
        until(lambda: story.openings() == [])
        assert running.directory.lookup(ALICE).result == "erased"


class Failing:
    """A log whose call number ``at`` fails, after it was done or before."""

    def __init__(self, log: MemoryLog, at: int, *, done: bool) -> None:
        self._log, self._at, self._done, self.calls = log, at, done, 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._log, name)

        def failing(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls != self._at:
                return call(*arguments)
            if self._done:
                call(*arguments)
            raise UnavailableError("broken by the test")

        return failing


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("at", range(1, 9))
def test_a_sweep_that_was_interrupted_anywhere_is_continued(story: Story, at: int, done: bool) -> None:
    first, second, third = (version.entry_hash for version in story.versions)
    log = Failing(story.streams.log, at, done=done)  # type: ignore[arg-type]
    with pytest.raises(UnavailableError):
        sweep_stream(log, STREAM, {second})
    assert {first, third} <= set(story.openings())
    sweep_stream(story.streams.log, STREAM, {second})
    assert sorted(story.openings()) == sorted([first, third])
    sweep_stream(story.streams.log, STREAM, {second, first})
    assert story.openings() == [third]
    sweep_stream(story.streams.log, STREAM, {second, first, third})
    assert story.openings() == []


def test_every_opening_that_claims_to_be_one_is_kept(story: Story) -> None:
    """A faulty front end wrote another one of the first entry: which of both is true, readers say."""
    first, second, third = (version.entry_hash for version in story.versions)
    log = TruncatedLog()
    for entry_hash, opening in ((first, 0), (first, 1), (second, 2), (third, 3)):
        data = Opening(entry_hash, bytes([opening]) * 16, b"").encode()
        log.append(STREAM, ANY, [content_event(STREAM, OPENING, data)])
    sweep_stream(log, STREAM, {second})
    assert [(one.entry_hash, one.opening[0]) for one in openings_in(log.read(STREAM))] == [
        (third, 3),
        (first, 0),
        (first, 1),
    ]


def test_without_the_right_to_truncate_the_profile_is_not_shown_all_the_same(story: Story) -> None:
    class Denied(MemoryLog):
        def set_metadata(self, stream: str, values: Any, expected: int) -> None:
            raise AccessDeniedError("set the metadata", stream, "$mw")

    log = Denied()
    for name in (story.streams.names.queue, story.streams.names.mutations, story.streams.names.heads, STREAM):
        for event in story.streams.log.read(name):
            log.append(name, ANY, [NewEvent(event.type, event.data, event.id)])
    story.streams.log = log
    story.streams.erase(story.versions[2])
    story.streams.epoch()
    with front(story.streams) as running:
        until(lambda: any(event.type == OPENING_ERASED for event in log.read(STREAM)))
        assert running.directory.lookup(ALICE).result == "erased"
        assert running.running.directory.failure is None
    there = story.openings()
    assert set(there) == {version.entry_hash for version in story.versions}
    with pytest.raises(AccessDeniedError):
        sweep_stream(log, STREAM, {story.versions[2].entry_hash})
    assert story.openings() == there
