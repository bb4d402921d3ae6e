"""Which requests of a front end hold a place among those under way, and for how long."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from dataclasses import replace

import pytest

from kt_es.crypto.hashes import commit
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.entries import OPENING, Opening, ProfileKey, encode_profile
from kt_es.formats.queue import MUTATIONS
from kt_es.server import limits
from kt_es.server.limits import ADDRESS_LARGE, DEFAULT_LIMITS
from tests import builders as b
from tests.reference.doors import answer, connected, listening, request
from tests.reference.frontends import Front, front, submission, until
from tests.reference.signed_streams import SignedStreams

SMALL = 4096
# No rates: only the requests under way are counted.
COUNTED = replace(DEFAULT_LIMITS, exempt=(), address_rate=0.0, network_rate=0.0)
HEAD = request("/v1/heads/latest")
HISTORY = request("/v1/history", json.dumps({"label": b.label_of("large"), "profiles": True}).encode())


def status(port: int, asked: bytes, source: str = "127.0.0.2") -> int:
    with connected(port, asked, source=source) as client:
        return answer(client)[0]


def test_waiting_for_a_verdict_holds_no_place(
    streams: SignedStreams, running: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 1)
    body = json.dumps(submission("bob", wait=60)).encode()
    with (
        listening(running.running) as port,
        connected(port, request("/v1/mutations", body)) as client,
    ):
        until(lambda: any(event.type == MUTATIONS for event in streams.log.read(streams.names.queue, 3)))
        until(lambda: status(port, HEAD) == 200)
        streams.epoch()
        code, _, told = answer(client)
    assert (code, json.loads(told)["verdict"]) == (200, "accepted")


@pytest.fixture
def large() -> SignedStreams:
    """A directory in which an account has a profile that no buffer of the kernel has room for."""
    streams = SignedStreams()
    user, opening = "large", b.opening("large")
    profile = encode_profile([ProfileKey("laptop", "raw", bytes(400_000))])
    made = b.mutation(user, commits_to=commit(opening, b.label_of(user), 1, profile))
    stream = streams.names.openings(made.entry.index)
    opened = Opening(made.entry_hash, opening, profile).encode()
    streams.log.append(stream, ANY, [content_event(stream, OPENING, opened)])
    streams.put(made)
    streams.epoch()
    return streams


def unread(port: int, source: str = "127.0.0.2") -> socket.socket:
    """A connection that has read the first byte of a large answer, and reads no more."""
    client = connected(port, HISTORY, source=source, buffer=SMALL)
    assert client.recv(1) == b"H"
    return client


def test_a_large_answer_holds_a_place_among_the_large_ones_until_it_is_read(
    large: SignedStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 1)
    monkeypatch.setattr(limits, "MAX_LARGE", 1)
    with front(large) as made, listening(made.running, SMALL) as port, unread(port) as reader:
        assert reader.recv(11) == b"TTP/1.1 200"
        assert status(port, HISTORY) == 503
        # Others have all places among the requests under way.
        assert status(port, HEAD) == 200
        reader.close()
        until(lambda: status(port, HISTORY) == 200)


def test_an_address_has_few_large_answers_at_a_time(large: SignedStreams) -> None:
    with (
        front(large, made=Front(large, limits=COUNTED)) as made,
        listening(made.running, SMALL) as port,
        ExitStack() as clients,
    ):
        readers = [clients.enter_context(unread(port)) for _ in range(ADDRESS_LARGE)]
        assert status(port, HISTORY) == 429
        assert status(port, HEAD) == 200
        assert status(port, HISTORY, "127.0.0.3") == 200
        readers[0].close()
        until(lambda: status(port, HISTORY) == 200)


def test_a_refused_body_is_counted(running: Front) -> None:
    members = {f"member {number}": 1 for number in range(limits.MAX_MEMBERS + 1)}
    with (
        listening(running.running) as port,
        connected(port, request("/v1/lookup", json.dumps(members).encode())) as client,
    ):
        code, _, told = answer(client)
    assert (code, json.loads(told)["detail"]) == (400, "the body has more than 32 members")
    assert 'kt_refused_total{why="malformed"} 1.0' in running.get("/metrics").text
