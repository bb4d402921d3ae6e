"""``GET /v1/heads/events`` over real sockets: each head once and in order, within limits, to a clean end."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kt_es.api.heads import MAX_MISSED
from kt_es.api.operations import HEAD_EVENTS
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.formats.heads import heads_origin, open_checkpoint
from kt_es.formats.notes import decode_base64
from kt_es.merkle.verify import log_root_from_consistency, log_root_from_inclusion
from kt_es.server import streams as limits_of_streams
from kt_es.server.endpoints import following
from kt_es.server.limits import ClientLimits
from tests import builders as b
from tests.reference.doors import answer, connected, listening, request
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

PATH = HEAD_EVENTS.path
ELSEWHERE = ClientLimits(exempt=())


class Reader:
    """A client that reads one stream event by event."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self._data = b""

    def block(self) -> str | None:
        """The next lines up to an empty one, None at the end of the stream."""
        while b"\n\n" not in self._data:
            part = self.client.recv(4096)
            if not part:
                return None
            self._data += part
        found, self._data = self._data.split(b"\n\n", 1)
        return found.decode()

    def event(self) -> dict[str, Any] | None:
        """The data of the next event of the type head, whose id is its epoch."""
        while (found := self.block()) is not None:
            fields = dict(line.split(": ", 1) for line in found.splitlines() if not line.startswith(":"))
            if "data" in fields:
                body: dict[str, Any] = json.loads(fields["data"])
                assert (fields["event"], fields["id"]) == ("head", str(body["epoch"]))
                return body
        return None

    def epochs(self, count: int) -> list[int]:
        found = [self.event() for _ in range(count)]
        return [one["epoch"] for one in found if one is not None]


def head_of(client: socket.socket) -> tuple[int, dict[str, str]]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(1)
        assert part, data
        data += part
    first, *lines = data.decode().split("\r\n")[:-2]
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines)


class Served:
    """A front end behind a real socket."""

    def __init__(self, running: Front, port: int) -> None:
        self.running = running
        self.port = port
        self.clients: list[socket.socket] = []

    def ask(self, path: str = PATH, *headers: str, buffer: int = 0) -> socket.socket:
        client = connected(self.port, request(path, None, *headers), buffer=buffer)
        self.clients.append(client)
        return client

    def follow(self, path: str = PATH, *headers: str) -> Reader:
        client = self.ask(path, *headers)
        status, told = head_of(client)
        assert (status, told["content-type"], told["cache-control"]) == (200, "text/event-stream", "no-store")
        assert "content-length" not in told
        return Reader(client)

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.running.streams.epoch()
        until(self.running.caught_up)

    @property
    def streams(self) -> int:
        return sum(endpoint._counts.total for endpoint in _ENDPOINTS)


_ENDPOINTS: list[following.FollowingEndpoints] = []


@pytest.fixture(autouse=True)
def endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember the endpoints that are made, to see what they count."""
    _ENDPOINTS.clear()
    begin = following.FollowingEndpoints.__init__

    def made(self: following.FollowingEndpoints, *args: Any) -> None:
        begin(self, *args)
        _ENDPOINTS.append(self)

    monkeypatch.setattr(following.FollowingEndpoints, "__init__", made)


@contextmanager
def serving(limits: ClientLimits = ClientLimits(), buffer: int = 0) -> Iterator[Served]:  # noqa: B008
    streams = SignedStreams()
    streams.put_user("alice")
    for _ in range(3):
        streams.epoch()
    with (
        front(streams, made=Front(streams, limits=limits)) as running,
        listening(running.running, buffer) as port,
    ):
        served = Served(running, port)
        try:
            yield served
        finally:
            for client in served.clients:
                client.close()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as made:
        yield made


def test_the_latest_head_and_then_each_new_one(served: Served) -> None:
    reader = served.follow()
    assert reader.epochs(1) == [3]
    served.publish(2)
    assert reader.epochs(2) == [4, 5]


@pytest.mark.parametrize(("path", "headers"), [(f"{PATH}?since=1", ()), (PATH, ("Last-Event-ID: 1",))])
def test_what_was_missed_comes_first(served: Served, path: str, headers: tuple[str, ...]) -> None:
    assert served.follow(path, *headers).epochs(2) == [2, 3]


def test_the_last_event_takes_precedence_over_the_address(served: Served) -> None:
    assert served.follow(f"{PATH}?since=0", "Last-Event-ID: 2").epochs(1) == [3]


def test_each_event_continues_the_log_of_the_one_before(served: Served) -> None:
    reader = served.follow(f"{PATH}?since=1")
    events = [reader.event(), reader.event()]
    served.publish(2)
    events += [reader.event(), reader.event()]
    first = served.running.directory.head(1)
    old = open_checkpoint(first.heads_checkpoint, heads_origin(b.ORIGIN), [b.SIGNER_KEY.raw])
    for epoch, event in enumerate(events, 2):
        assert event is not None
        new = open_checkpoint(event["latest_checkpoint"], heads_origin(b.ORIGIN), [b.SIGNER_KEY.raw])
        proof = [decode_base64(one, "hash") for one in event["consistency"]]
        assert log_root_from_consistency(old.size, new.size, old.root, proof) == new.root
        leaf = log_leaf_hash(decode_base64(event["smh"], "smh"))
        inclusion = [decode_base64(one, "hash") for one in event["inclusion"]]
        assert log_root_from_inclusion(epoch - 1, new.size, leaf, inclusion) == new.root
        old = new


def test_of_too_many_missed_heads_the_latest_comes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_MISSED >= 100
    monkeypatch.setattr(following, "MAX_MISSED", 1)
    with serving() as served:
        reader = served.follow(f"{PATH}?since=1")
        event = reader.event()
        assert event is not None
        assert (event["epoch"], len(event["consistency"])) == (3, 2)
        served.publish()
        assert reader.epochs(1) == [4]


@pytest.mark.parametrize("value", ["x", "-1", "01", "1.0", "", str(2**63), "9" * 30, "1, 2", "\u00b2"])
def test_a_last_event_that_is_none_is_refused(served: Served, value: str) -> None:
    status, _, body = answer(served.ask(PATH, f"Last-Event-ID: {value}"))
    assert (status, json.loads(body)["field"]) == (400, "last-event-id")


def test_a_client_that_is_ahead_of_this_front_end_comes_again(served: Served) -> None:
    status, headers, body = answer(served.ask(f"{PATH}?since=4"))
    assert (status, json.loads(body)["reason"]) == (503, "unavailable")
    assert "retry-after" in headers
    assert served.streams == 0


def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "KEEP_ALIVE_SECONDS", 0.01)
    with serving() as served:
        reader = served.follow()
        assert [reader.block() for _ in range(5)][2:] == [":"] * 3
        served.publish()
        assert reader.epochs(1) == [4]


def test_a_stream_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "STREAM_SECONDS", 0.05)
    with serving() as served:
        reader = served.follow()
        assert (reader.epochs(1), reader.event()) == ([3], None)
        until(lambda: served.streams == 0)


def test_a_client_that_leaves_is_forgotten(served: Served) -> None:
    reader = served.follow()
    reader.epochs(1)
    assert served.streams == 1
    reader.client.close()
    until(lambda: served.streams == 0)


def test_streams_hold_no_slots(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = [served.follow() for _ in range(4)]
    for reader in readers:
        reader.epochs(1)
    slots = served.running.running.frontend.slots
    until(lambda: slots.requests == 0)
    monkeypatch.setattr("kt_es.server.limits.MAX_REQUESTS", 1)
    assert answer(served.ask("/v1/heads/latest"))[0] == 200


def test_an_address_has_a_number_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_of_streams, "ADDRESS_STREAMS", 2)
    with serving(ELSEWHERE) as served:
        readers = [served.follow() for _ in range(2)]
        for reader in readers:
            reader.epochs(1)
        status, headers, _ = answer(served.ask())
        assert (status, "retry-after" in headers) == (429, True)
        readers[0].client.close()
        until(lambda: served.streams == 1)
        # The client was told to wait.
        until(lambda: head_of(served.ask())[0] == 200)


def test_all_clients_together_have_a_number_of_streams() -> None:
    with serving(ClientLimits(connections=8)) as served:
        for _ in range(2):
            served.follow().epochs(1)
        assert answer(served.ask())[0] == 429


def test_each_head_counts_as_a_lookup_of_its_client() -> None:
    """A client that missed many heads gets them as fast as its rate allows."""
    with serving(ClientLimits(exempt=(), address_rate=1.0)) as served:
        served.publish(4)
        clients = served.running.running.clients
        reader = served.follow(f"{PATH}?since=0")
        assert reader.epochs(3) == [1, 2, 3]
        assert 0 <= clients.owes("127.0.0.1") <= 2
        reader.client.close()


def test_a_client_that_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "KEEP_ALIVE_SECONDS", 0.0001)
    monkeypatch.setattr(following, "KEEP_ALIVE", b":" * 4096 + b"\n\n")
    with serving(ClientLimits(answer_seconds=0.05), buffer=4096) as served:
        served.ask(buffer=4096)
        until(lambda: served.streams == 1)
        until(lambda: served.streams == 0)
        unread = served.running.running.metrics.refused.labels("unread")._value.get()
        assert unread == 1


def test_what_a_client_sends_meanwhile_is_not_answered(served: Served) -> None:
    reader = served.follow()
    reader.epochs(1)
    reader.client.sendall(request("/healthz"))
    served.publish()
    assert reader.epochs(1) == [4]


def test_the_server_ends_its_streams_at_once(served: Served) -> None:
    running = served.running.running
    with listening(running) as port:
        reader = Reader(connected(port, request(PATH)))
        head_of(reader.client)
        assert reader.epochs(1) == [3]
    assert reader.event() is None
    reader.client.close()


def test_a_front_end_that_stops_serving_ends_its_streams(served: Served) -> None:
    from kt_es.errors import RollbackError

    reader = served.follow()
    reader.epochs(1)
    served.running.running._fail(RollbackError("the log was rolled back"))
    assert reader.event() is None
    assert answer(served.ask())[0] == 503


def test_the_time_of_streams_is_not_observed(served: Served) -> None:
    reader = served.follow()
    reader.epochs(1)
    reader.client.close()
    until(lambda: served.streams == 0)
    assert f'route="{PATH}"' not in served.running.running.metrics.render().decode()
