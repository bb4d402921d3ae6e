"""A client follows the heads of a real front end, and believes no event that is not as it is signed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from kt_es.api.codec import encode_model
from kt_es.api.heads import MAX_EVENT_DATA, HeadEventBody
from kt_es.api.operations import HEAD_EVENTS
from kt_es.client.client import Client
from kt_es.client.following import EventReader
from kt_es.client.state import MemoryStateStore
from kt_es.errors import (
    EquivocationError,
    KtError,
    MalformedError,
    RefusedError,
    StaleHeadError,
    UnavailableError,
    VerificationError,
)
from kt_es.formats.heads import SignedMapHead
from kt_es.server.endpoints import following
from kt_es.server.endpoints.following import HeadEvents
from kt_es.server.streams import KEEP_ALIVE, event
from tests import builders as b
from tests.reference.doors import listening
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

Change = Callable[[HeadEventBody], HeadEventBody]


@pytest.fixture
def running() -> Iterator[Front]:
    streams = SignedStreams()
    streams.put_user("alice")
    for _ in range(3):
        streams.epoch()
    with front(streams) as made:
        yield made


def publish(running: Front, count: int = 1) -> None:
    for _ in range(count):
        running.streams.epoch()
    until(running.caught_up)


def now_of(running: Front) -> int:
    return b.START + 1_000 * (running.ledger.committed.epoch + 1)


def client_at(running: Front, port: int) -> Client:
    return Client(f"http://127.0.0.1:{port}", MemoryStateStore(), now=lambda: now_of(running))


def taken(heads: Iterator[Any], count: int) -> list[int]:
    return [head.head.epoch for head in itertools.islice(heads, count)]


class TestRealServer:
    def test_the_latest_head_and_each_new_one(self, running: Front) -> None:
        with listening(running.running) as port, client_at(running, port) as client:
            heads = client.following.heads()
            assert taken(heads, 1) == [3]
            publish(running, 2)
            assert taken(heads, 2) == [4, 5]
            assert client.trusted().size == 5
            heads.close()

    def test_what_was_missed_comes_first(self, running: Front) -> None:
        with listening(running.running) as port, client_at(running, port) as client:
            assert taken(client.following.heads(0), 3) == [1, 2, 3]

    def test_what_the_server_leaves_out_is_fetched(
        self, running: Front, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following, "MAX_MISSED", 1)
        with listening(running.running) as port, client_at(running, port) as client:
            assert taken(client.following.heads(0), 3) == [1, 2, 3]

    def test_a_stream_that_ends_is_opened_again(
        self, running: Front, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following, "STREAM_SECONDS", 0.02)
        with listening(running.running) as port, client_at(running, port) as client:
            heads = client.following.heads()
            assert taken(heads, 1) == [3]
            later = threading.Timer(0.2, publish, [running])
            later.start()
            assert taken(heads, 1) == [4]
            later.join()

    def test_lookups_of_the_same_client_go_on_beside_it(self, running: Front) -> None:
        """They advance the trusted log while an event is under way."""
        with listening(running.running) as port, client_at(running, port) as client:
            heads = client.following.heads(0)
            assert taken(heads, 1) == [1]
            publish(running)
            assert client.lookup(b.label_of("alice")).epoch == 4
            assert taken(heads, 3) == [2, 3, 4]


def client_of(running: Front, parts: Callable[[int | None], Iterator[bytes]], *, later: int = 0) -> Client:
    """A client whose stream has ``parts``, given ``since``, and all else from ``running``."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == HEAD_EVENTS.path:
            since = request.url.params.get("since")
            return httpx.Response(200, content=parts(None if since is None else int(since)))
        answer = running.request(request.method, request.url.raw_path.decode(), content=request.content)
        return httpx.Response(answer.status_code, content=answer.content)

    transport = httpx.MockTransport(handle)
    return Client(
        "http://kt.test",
        MemoryStateStore(),
        transport=transport,
        now=lambda: now_of(running) + later,
        timeout=5.0,
    )


def told(running: Front, change: Change = lambda body: body) -> Callable[[int | None], Iterator[bytes]]:
    """The true events of ``running``, the last of them changed."""

    def parts(since: int | None) -> Iterator[bytes]:
        made = HeadEvents(running.directory)
        latest = running.ledger.committed.epoch
        size = since
        for epoch in range(latest if since is None else since + 1, latest + 1):
            body, size = made.body(epoch, size)
            body = change(body) if epoch == latest else body
            yield event("head", body.epoch, encode_model(body))

    return parts


def forged(body: HeadEventBody, **changes: object) -> HeadEventBody:
    head = replace(SignedMapHead.decode(body.smh).head, **changes)  # type: ignore[arg-type]
    return replace(body, smh=SignedMapHead.sign(head, b.SIGNER).encode())


LIES: dict[str, tuple[Change, str]] = {
    "a forged head": (lambda body: forged(body, map_size=9), "map head: "),
    "another epoch": (lambda body: replace(body, epoch=body.epoch + 1), "map head: "),
    "an epoch again": (lambda body: replace(body, epoch=2), "map head: epoch 2 comes after epoch 2"),
    "no inclusion": (lambda body: replace(body, inclusion=()), "map head: "),
    "another consistency": (lambda body: replace(body, consistency=(bytes(32),)), "consistency: "),
    "another checkpoint": (
        lambda body: replace(body, latest_checkpoint=body.latest_checkpoint.replace("\n3\n", "\n4\n")),
        "checkpoint: ",
    ),
    "another log of mutations": (
        lambda body: replace(body, mutations_checkpoint=body.heads_checkpoint),
        "checkpoint: ",
    ),
}


@pytest.mark.parametrize(("change", "says"), LIES.values(), ids=LIES.keys())
def test_a_lie_is_refused(running: Front, change: Change, says: str) -> None:
    client = client_of(running, told(running, change))
    heads = client.following.heads(1)
    assert taken(heads, 1) == [2]
    with pytest.raises(VerificationError, match=f"^{says}"):
        taken(heads, 2)


def test_a_head_that_contradicts_a_trusted_one_convicts(running: Front) -> None:
    client = client_of(running, told(running, lambda body: forged(body, map_root=bytes(32))))
    client.head()
    with pytest.raises((EquivocationError, VerificationError)):
        next(client.following.heads())


BAD: dict[str, bytes] = {
    "no JSON": b"event: head\nid: 3\ndata: {\n\n",
    "no head": b"event: head\nid: 3\ndata: {}\n\n",
    "no data": b"event: head\nid: 3\n\n",
    "no UTF-8": b"event: head\nid: 3\ndata: \xff\n\n",
    "no end": b"data: " + b"x" * (MAX_EVENT_DATA + 1),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_event_is_refused(running: Front, data: bytes) -> None:
    with pytest.raises(MalformedError):
        next(client_of(running, lambda _: iter([data])).following.heads())


def test_another_id_is_refused(running: Front) -> None:
    body, _ = HeadEvents(running.directory).body(3, None)
    with pytest.raises(MalformedError, match="an id that is not its epoch"):
        next(client_of(running, lambda _: iter([event("head", 4, encode_model(body))])).following.heads())


def test_a_server_that_keeps_silent_about_new_heads_is_noticed(running: Front) -> None:
    late = [0]

    def parts(since: int | None) -> Iterator[bytes]:
        yield from told(running)(since)
        late[0] = 10**9
        yield KEEP_ALIVE

    client = client_of(running, parts)
    client._session.now = lambda: now_of(running) + late[0]
    heads = client.following.heads()
    assert taken(heads, 1) == [3]
    with pytest.raises(StaleHeadError):
        next(heads)


@pytest.mark.parametrize(
    ("status", "error"), [(503, UnavailableError), (500, UnavailableError), (404, RefusedError)]
)
def test_a_server_without_a_stream(running: Front, status: int, error: type[KtError]) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == HEAD_EVENTS.path:
            return httpx.Response(status, json={"reason": "x", "detail": "not now"})
        answer = running.request(request.method, request.url.raw_path.decode(), content=request.content)
        return httpx.Response(answer.status_code, content=answer.content)

    client = Client("http://kt.test", MemoryStateStore(), transport=httpx.MockTransport(handle))
    with pytest.raises(error, match="not now"):
        next(client.following.heads(patience=0.2))


def test_events_are_read_whatever_parts_they_come_in() -> None:
    data = b"retry: 2000\r\n\r\n:\n\nevent: head\nid: 7\ndata: a\ndata:b\n\n: c\n\n"
    expected = [{"retry": "2000"}, {}, {"event": "head", "id": "7", "data": "a\nb"}, {}]
    for size in (1, 2, 3, 7, len(data)):
        reader = EventReader()
        found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
        assert found == expected, size
