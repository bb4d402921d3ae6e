"""Openings on a server with other tenants: a node with TLS, users of other groups, and their default rights.

The front ends' own log notes at the moment of each append of an opening whether a stranger could read it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest
from structlog.testing import capture_logs

from kt_es.errors import KtError
from kt_es.eventstore.driver import NewEvent as NewMetadata
from kt_es.eventstore.driver import StreamState
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.rights import openings_acl, stream_acls
from kt_es.eventstore.streams import ANY, Append, NewEvent, content_event
from kt_es.formats.entries import OPENING, OPENING_ERASED, Mutation, Opening
from kt_es.server.privacy import PrivateStreams, sweep_stream
from tests import builders as b
from tests.contracts.tenants import (
    ALL_RIGHTS,
    BOTH,
    EVERYTHING,
    NAMES,
    TENANT,
    Server,
    denials,
)
from tests.reference.frontends import Front, front, submission, until
from tests.reference.signed_streams import SignedStreams


class Noting:
    """A front end's client that notes, at each append of an opening, which rights a stranger lacks."""

    def __init__(self, server: Server, user: str) -> None:
        self._log = server.log(user)
        self._eve = server.log("eve")
        self.missing_to_eve: list[set[str]] = []

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        self._log.append(stream, expected, events)
        if events[0].type == OPENING:
            self.missing_to_eve.append(denials(self._eve, stream))

    def append_all(self, appends: Sequence[Append]) -> Sequence[KtError | None]:
        outcomes = self._log.append_all(appends)
        for append in appends:
            if append.events and append.events[0].type == OPENING:
                self.missing_to_eve.append(denials(self._eve, append.stream))
        return outcomes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.fixture
def streams(server: Server) -> SignedStreams:
    """A directory with one account, and the rights that ``kt init --acl`` sets."""
    for stream, acl in stream_acls(NAMES, signer_truncates=False).items():
        server.set_acl(stream, acl)
    made = SignedStreams(server.log("root"))
    made.put_user("alice")
    made.epoch()
    return made


def front_of(streams: SignedStreams, connect_log: Callable[[], Any]) -> Front:
    return Front(streams, connect=connect_log)


def submit(running: Front, made: Mutation, wait: float = 0) -> Any:
    return running.post("/v1/mutations", submission("bob", made, wait=wait))


@pytest.mark.parametrize("defaults", [EVERYTHING, BOTH], ids=["everything", "both"])
def test_no_opening_is_ever_seen_by_a_stranger(
    server: Server, streams: SignedStreams, defaults: Mapping[str, object]
) -> None:
    server.set_defaults(defaults)
    client = Noting(server, "fe1")
    eve = server.log("eve")
    first = b.mutation("bob")
    stream = NAMES.openings(first.entry.index)
    # What she writes before takes nothing from the front end.
    eve.append(stream, ANY, [content_event(stream, "T", b"first")])
    with front(streams, made=front_of(streams, lambda: client)) as running, streams.signing():
        assert submit(running, first, 30).json()["verdict"] == "accepted"
        assert denials(eve, stream) == ALL_RIGHTS
        server.delete(stream)
        # No look at all rights here: a write of hers would bring the stream back.
        assert list(eve.read(stream, 0, 1)) == []
        second = b.next_mutation("bob", first)
        assert submit(running, second, 30).json()["verdict"] == "accepted"
        assert denials(eve, stream) == ALL_RIGHTS
        assert [event.type for event in server.log("root").read(stream)] == [OPENING_ERASED, OPENING]
        assert running.directory.lookup(b.label_of("bob")).profile == b.profile("bob", 2)
        assert running.errors == []
    assert client.missing_to_eve == [ALL_RIGHTS] * 2


def test_openings_that_are_truncated_stay_private(server: Server, streams: SignedStreams) -> None:
    """What an operator does where others have the default rights, rather than delete the stream."""
    server.set_defaults(EVERYTHING)
    client, root = Noting(server, "fe1"), server.log("root")
    first = b.mutation("bob")
    stream = NAMES.openings(first.entry.index)
    with front(streams, made=front_of(streams, lambda: client)) as running, streams.signing():
        assert submit(running, first, 30).json()["verdict"] == "accepted"
        held = root.metadata(stream)
        root.set_metadata(stream, {**held.values, "$tb": root.last_revision(stream) + 1}, held.revision)
        assert denials(server.log("eve"), stream) == ALL_RIGHTS
        assert list(root.read(stream)) == []
        assert submit(running, b.next_mutation("bob", first), 30).json()["verdict"] == "accepted"
        assert [event.type for event in root.read(stream)] == [OPENING]
    assert client.missing_to_eve == [ALL_RIGHTS] * 2


ContentType = Literal["application/json", "application/octet-stream"]

VOID: list[tuple[dict[str, object], ContentType]] = [
    ({"$acl": openings_acl(), "$maxCount": "2"}, "application/json"),
    ({"$acl": openings_acl(), "$cacheControl": None}, "application/json"),
    ({"$acl": {**openings_acl(), "$x": "eve"}}, "application/json"),
    ({"$acl": openings_acl()}, "application/octet-stream"),
]


@pytest.mark.parametrize(("values", "content_type"), VOID)
@pytest.mark.parametrize("deleted", [False, True])
def test_an_acl_that_the_stranger_has_made_void_does_not_count(
    server: Server,
    streams: SignedStreams,
    values: dict[str, object],
    content_type: ContentType,
    deleted: bool,
) -> None:
    """Servers take no metadata of which one field is of a wrong kind, or which are not marked as JSON."""
    server.set_defaults(EVERYTHING)
    client = Noting(server, "fe1")
    bob = b.mutation("bob")
    stream = NAMES.openings(bob.entry.index)
    if deleted:
        server.log("root").append(stream, ANY, [content_event(stream, OPENING, b"of before")])
        server.delete(stream)
    data = json.dumps(values).encode()
    event = NewMetadata(type="$metadata", data=data, content_type=content_type)
    server.log("eve")._client.append_to_stream(f"$${stream}", current_version=StreamState.ANY, events=event)
    with front(streams, made=front_of(streams, lambda: client)) as running:
        assert submit(running, bob).status_code == 202
        assert running.errors == []
    assert client.missing_to_eve == [ALL_RIGHTS]


def test_a_stream_that_the_stranger_has_taken_gets_no_opening(server: Server, streams: SignedStreams) -> None:
    server.set_defaults(EVERYTHING)
    bob, carol = b.mutation("bob"), b.mutation("carol")
    stream = NAMES.openings(bob.entry.index)
    server.log("eve").set_metadata(stream, {"$acl": {right: ["eve"] for right in EVERYTHING}}, -1)
    with front(streams, made=front_of(streams, lambda: server.log("fe1"))) as running:
        answer = submit(running, bob)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "the right $mr to a stream of the event log is missing" in answer.json()["detail"]
        assert "kt_" not in answer.text
        assert list(server.log("root").read(stream)) == []
        assert running.get("/readyz").status_code == 200
        refusing = running.get("/readyz").json()["submissions"]
        assert "a stream of the event log" in refusing
        assert "kt_" not in refusing
        # The other accounts go on.
        assert running.post("/v1/mutations", submission("carol", carol)).status_code == 202
        server.set_acl(stream, EVERYTHING)
        until(lambda: "submissions" not in running.get("/readyz").json())
        assert submit(running, bob).status_code == 202
        assert denials(server.log("eve"), stream) == ALL_RIGHTS


def test_default_rights_that_leave_front_ends_out(server: Server, streams: SignedStreams) -> None:
    server.set_defaults(TENANT)
    first = b.mutation("bob")
    stream = NAMES.openings(first.entry.index)
    with front(streams, made=front_of(streams, lambda: server.log("fe1"))) as running:
        answer = submit(running, first)
        assert "the right $mr to a stream of the event log is missing" in answer.json()["detail"]
        assert list(server.log("root").read(stream)) == []
        server.set_defaults(BOTH)
        until(lambda: "submissions" not in running.get("/readyz").json())
        assert submit(running, first).status_code == 202


def without_front_ends(stream: str, right: str) -> dict[str, list[str]]:
    acl = stream_acls(NAMES, signer_truncates=False)[stream]
    return {**acl, right: [name for name in acl[right] if name != "frontend"]}


def test_the_right_to_write_the_queue_is_lost_and_returns(server: Server, streams: SignedStreams) -> None:
    first = b.mutation("bob")
    with (
        capture_logs() as said,
        front(streams, made=front_of(streams, lambda: server.log("fe1"))) as running,
    ):
        server.set_acl(NAMES.queue, without_front_ends(NAMES.queue, "$w"))
        last = streams.log.last_revision(NAMES.queue)
        for _ in range(3):
            answer = submit(running, first)
            assert answer.status_code == 503
            assert "the right $w to a stream of the event log is missing" in answer.json()["detail"]
            assert "kt_" not in answer.text
        ready = running.get("/readyz")
        assert ready.status_code == 200
        assert "the right $w to a stream of the event log is missing" in ready.json()["submissions"]
        assert running.directory.lookup(b.label_of("alice")).profile == b.profile("alice")
        server.set_acl(NAMES.queue, stream_acls(NAMES, signer_truncates=False)[NAMES.queue])
        until(lambda: "submissions" not in running.get("/readyz").json())
        # Asking for the right has written nothing.
        assert streams.log.last_revision(NAMES.queue) == last
        assert submit(running, first).status_code == 202
        assert running.errors == []
    events = [(line["event"], line["stream"], line["right"]) for line in said if "right" in line]
    assert events == [("a right is missing", NAMES.queue, "$w"), ("a right is back", NAMES.queue, "$w")]


@pytest.mark.parametrize("stream", [NAMES.queue, NAMES.heads, NAMES.mutations, "$all"])
def test_the_right_to_read_is_lost_and_returns(server: Server, streams: SignedStreams, stream: str) -> None:
    made = front_of(streams, lambda: server.log("fe1"))
    with front(streams, made=made):
        pass
    server.set_acl(stream, without_front_ends(stream, "$r"))
    # Started anew over the same store: an open subscription goes on until it ends.
    streams.put_user("carol")
    again = Front(streams, made.store, connect=lambda: server.log("fe1"))
    with front(streams, made=again, wait=False) as running:
        # The problem document names none of the directory's streams.
        named = stream if stream == "$all" else "a stream of the event log"
        sentence = f"the right $r to {named} is missing"
        # ``$all`` and the queue are not needed for a new epoch, nor the mutations before there is one.
        if stream == NAMES.mutations:
            streams.epoch()
        until(lambda: sentence in running.get("/readyz").text)
        assert running.get("/readyz").status_code == 503
        assert running.directory.lookup(b.label_of("alice")).profile == b.profile("alice")
        server.set_acl(stream, stream_acls(NAMES, signer_truncates=False)[stream])
        until(lambda: running.get("/readyz").status_code == 200)
        until(running.caught_up)
        assert running.errors == []
        assert submit(running, b.mutation("bob")).status_code == 202


def test_front_ends_take_erased_openings_out_and_the_stream_stays_private(server: Server) -> None:
    """With the rights of the streams' ACL alone; both do it at the same time."""
    server.set_defaults(EVERYTHING)
    logs = [server.log(name) for name in ("fe1", "fe2")]
    stream = NAMES.openings(bytes(32))
    PrivateStreams(lambda: logs[0]).protect(stream, None)
    hashes = [bytes([n]) * 32 for n in range(4)]
    for entry_hash in hashes:
        made = Opening(entry_hash, entry_hash[:16], b"profile")
        logs[0].append(stream, ANY, [content_event(stream, OPENING, made.encode())])
    barrier = threading.Barrier(2)

    def sweep(log: EsdbLog) -> None:
        barrier.wait(30)
        sweep_stream(log, stream, {hashes[0], hashes[2]})

    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(sweep, log) for log in logs]:
            ended.result(60)
    there = [Opening.decode(event.data) for event in logs[1].read(stream) if event.type == OPENING]
    assert {one.entry_hash for one in there} == {hashes[1], hashes[3]}
    assert server.log("root").metadata(stream).values["$acl"] == openings_acl()
    assert denials(server.log("eve"), stream) == ALL_RIGHTS


def test_two_front_ends_begin_a_stream_at_once(server: Server) -> None:
    server.set_defaults(EVERYTHING)
    first, second = server.log("fe1"), server.log("fe2")
    both = [PrivateStreams(lambda: first), PrivateStreams(lambda: second)]
    names = [NAMES.openings(bytes([n]) * 32) for n in range(12)]
    barrier = threading.Barrier(2)

    def protect(private: PrivateStreams) -> None:
        for name in names:
            barrier.wait(30)
            private.protect(name, None)

    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(protect, private) for private in both]:
            ended.result(60)
    root = server.log("root")
    for name in names:
        held = root.metadata(name)
        assert (held.values, held.revision) == ({"$acl": openings_acl()}, 0)
