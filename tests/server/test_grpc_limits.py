"""What one gRPC client may take: rates, calls, streams, messages, time; by raw frames where it has to be."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from kt_es._proto import kt_v1
from kt_es.server import limits as server_limits
from kt_es.server.grpc import calls
from kt_es.server.limits import ClientLimits
from tests import builders as b
from tests.reference.frontends import front_with_alice, until
from tests.reference.grpc_doors import Door, Stub, channel_to, failure_of, grpc_door
from tests.reference.http2 import (
    DATA,
    END_STREAM,
    HEADERS,
    MAX_CONCURRENT_STREAMS,
    RST_STREAM,
    SETTINGS,
    frame,
    http2,
    message,
)

LOOKUP = "/kt.v1.DirectoryService/Lookup"
ALICE = b.label_of("alice")
REQUEST = kt_v1.LookupRequest(label=ALICE).SerializeToString()
LIMITED = ClientLimits(exempt=(), address_rate=0, network_rate=0)
RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED = b"8", b"4"


@contextmanager
def limited(room: int = 100, **changed: Any) -> Iterator[Door]:
    """A server of a front end whose clients have limits, also those of this machine."""
    with front_with_alice(replace(LIMITED, **changed)) as made, grpc_door(made, room=room) as door:
        yield door
        slots = made.running.frontend.slots
        until(lambda: slots.requests == slots.large == 0)
        accounts = slots.clients._accounts.values()
        door.channel.close()
        until(lambda: all(account.idle for account in accounts))
        assert not made.errors


def stop_the_clock(door: Door) -> None:
    """Let no rate recover."""
    door.front.running.clients._clock = lambda: 0.0


def test_one_rate_over_both_interfaces() -> None:
    with limited(address_rate=2.0) as door:
        stop_the_clock(door)
        for _ in range(8):
            door.call("Lookup", label=ALICE)
        failure = door.failure("Lookup", label=ALICE)
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "too-many-requests",
        )
        assert failure.retry_after is not None
        assert failure.retry_after >= 1
        assert door.count("rate") == 1
        # The accounts are the same: HTTP refuses this client, too.
        assert door.front.running.clients.owes("127.0.0.1") > 0


def test_a_submission_costs_more_than_a_lookup_and_its_bytes_as_well() -> None:
    with limited(address_rate=100.0) as door:
        clients = door.front.running.clients
        (account, _), _ = clients._of("127.0.0.1")
        before = account.balance
        door.failure("Submit", label=ALICE, profile=bytes(160 * 1024))
        assert before - account.balance > 5


def test_a_client_in_debt_is_refused_before_its_message_is_read() -> None:
    with limited(address_rate=0.5) as door, http2(door.port) as raw:
        stop_the_clock(door)
        for stream in (1, 3):
            raw.send(raw.call(stream, LOOKUP, REQUEST))
            raw.ended(stream)
        raw.send(raw.headers(7, LOOKUP))
        assert b"too often" in raw.ended(7)
        assert door.count("rate") == 1


def test_a_message_has_a_deadline_also_if_it_comes_in_parts() -> None:
    with limited(body_seconds=0.2) as door, http2(door.port) as raw:
        raw.send(raw.headers(1, LOOKUP))
        assert b"took too long" in raw.ended(1)
        raw.send(raw.headers(3, LOOKUP) + frame(DATA, 0, 3, message(REQUEST)[:-1]))
        raw.ended(3)
        assert door.count("slow-body") == 2
        # Its connection serves others meanwhile and afterwards.
        raw.send(raw.call(5, LOOKUP, REQUEST))
        assert b"alice 1" in raw.ended(5)


def test_slow_messages_take_no_slots_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the calls that may wait for their messages, the oldest one is given up."""
    monkeypatch.setattr(calls, "MAX_ARRIVING", 3)
    monkeypatch.setattr(server_limits, "MAX_REQUESTS", 2)
    with limited() as door, http2(door.port) as raw:
        raw.send(b"".join(raw.headers(stream, LOOKUP) for stream in (1, 3, 5)))
        assert door.call("Lookup", label=ALICE).profile
        until(lambda: door.count("displaced") == 1)
        assert b"took too long" in raw.ended(1)
        assert door.count("busy") == 0


def test_an_answer_that_is_not_read_counts_until_its_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with limited(answer_seconds=0.1) as door:
        clients = door.front.running.clients
        with http2(door.port, window=0) as raw:
            raw.send(raw.call(1, LOOKUP, REQUEST))
            until(lambda: door.count("unread") == 1)
            (account, _), _ = clients._of("127.0.0.1")
            assert (account.requests, account.held > 0) == (1, True)
            # Others have its slot.
            assert door.front.running.frontend.slots.requests == 0
            monkeypatch.setattr("kt_es.server.clients.ADDRESS_REQUESTS", 1)
            assert door.failure("Lookup", label=ALICE).reason == "too-many-requests"
        until(lambda: (account.requests, account.held) == (0, 0))
        assert door.call("Lookup", label=ALICE).profile


def test_a_client_that_keeps_too_many_answers_unread_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_es.server.clients.ADDRESS_BYTES", 1000)
    with limited() as door, http2(door.port, window=0) as raw:
        raw.send(raw.call(1, LOOKUP, REQUEST) + raw.call(3, LOOKUP, REQUEST))
        until(lambda: door.count("address-bytes") == 1)
        assert b"too often" in raw.ended(3)


def test_more_calls_than_all_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_OPEN", 1)
    with limited() as door, http2(door.port) as raw:
        raw.send(raw.headers(1, LOOKUP))
        until(lambda: door.front.running.clients._of("127.0.0.1")[0][0].requests == 1)
        failure = door.failure("Lookup", label=ALICE)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "unavailable")
        raw.send(frame(RST_STREAM, 0, 1, struct.pack(">I", 8)))


def test_streams_of_a_connection_are_bounded() -> None:
    with limited() as door, http2(door.port) as raw:
        kind, _, _, payload = next(item for item in raw.frames() if item[0] == SETTINGS and not item[1])
        assert kind == SETTINGS
        settings = dict(struct.unpack(">HI", payload[at : at + 6]) for at in range(0, len(payload), 6))
        assert settings[MAX_CONCURRENT_STREAMS] == 100


def test_connections_are_bounded() -> None:
    with limited(room=2) as door:
        door.call("Lookup", label=ALICE)
        with http2(door.port) as second:
            second.send(second.call(1, LOOKUP, REQUEST))
            second.ended(1)
            with http2(door.port) as third:
                third.closed()
        # There is room again.
        until(lambda: _answers(door.port))


def _answers(port: int) -> bool:
    try:
        with http2(port) as raw:
            raw.send(raw.call(1, LOOKUP, REQUEST))
            return b"alice 1" in raw.ended(1)
    except (AssertionError, OSError):
        return False


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_connection_that_does_not_begin_is_closed(sent: bytes) -> None:
    with limited(head_seconds=0.2) as door, socket.create_connection(("127.0.0.1", door.port), 20) as raw:
        raw.sendall(sent)
        try:
            while raw.recv(4096):
                pass
        except ConnectionError:
            pass


def test_an_idle_connection_is_closed() -> None:
    with limited(idle_seconds=0.3) as door, http2(door.port) as raw:
        raw.send(raw.call(1, LOOKUP, REQUEST))
        raw.ended(1)
        raw.closed()


def test_a_message_above_the_limit_and_a_compressed_one_are_refused() -> None:
    with limited() as door:
        with pytest.raises(grpc.RpcError) as caught:
            door.call("Submit", label=ALICE, profile=bytes(calls.MAX_MESSAGE + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for stream, data in ((1, message(REQUEST, compressed=True)),):
            with http2(door.port) as raw:
                raw.send(raw.headers(stream, LOOKUP, ("grpc-encoding", "gzip")))
                raw.send(frame(DATA, END_STREAM, stream, data))
                assert b"12" in raw.ended(stream)  # UNIMPLEMENTED
        with pytest.raises(grpc.RpcError) as caught:
            door.send("Lookup", door.request("Lookup", label=ALICE), metadata=[("long", "x" * 20_000)])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert door.call("Lookup", label=ALICE).profile


def test_a_call_without_a_message_is_refused() -> None:
    with limited() as door, http2(door.port) as raw:
        raw.send(raw.headers(1, LOOKUP) + frame(DATA, END_STREAM, 1))
        assert b"send one" in raw.ended(1)


def test_streams_that_are_reset_at_once_leave_nothing_behind() -> None:
    """Rapid reset (CVE-2023-44487): another client is still served, and the accounts are empty afterwards."""
    with limited() as door:
        stop = threading.Event()

        def attack() -> None:
            reset = struct.pack(">I", 8)
            # No more than these: without an end, the calls below would wait for the attack on a busy machine.
            for _ in range(6):
                if stop.is_set():
                    return
                try:
                    with http2(door.port, source="127.0.0.2") as raw:
                        for stream in range(1, 4001, 2):
                            raw.send(raw.headers(stream, LOOKUP) + frame(RST_STREAM, 0, stream, reset))
                except OSError:
                    # The server has had enough of this connection.
                    continue

        attacking = threading.Thread(target=attack)
        attacking.start()
        try:
            answers = [door.call("Lookup", label=ALICE).profile for _ in range(50)]
        finally:
            stop.set()
            attacking.join(30)
        assert len(answers) == 50


def test_watches_count_as_connections_of_their_address() -> None:
    with limited(address_connections=2) as door:
        watches = [door.call("WatchHeads") for _ in range(2)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError) as caught:
            next(door.call("WatchHeads"))
        assert failure_of(caught.value).reason == "too-many-requests"
        # A watch has no slot: lookups go on.
        assert door.front.running.frontend.slots.requests == 0
        assert door.call("Lookup", label=ALICE).profile
        for watch in watches:
            watch.cancel()


def test_a_trusted_proxy_names_the_client() -> None:
    from kt_es.server.limits import networks_of

    with limited(proxies=networks_of("127.0.0.1")) as door:
        request = door.request("Lookup", label=ALICE)
        door.send("Lookup", request, metadata=[("x-forwarded-for", "192.0.2.7")])
        addresses = {str(network.network_address) for network in door.front.running.clients._accounts}
        assert "192.0.2.7" in addresses
        assert "127.0.0.1" not in addresses


def test_the_address_of_a_peer_is_read() -> None:
    assert calls._address("ipv4:192.0.2.1:80") == "192.0.2.1"
    assert calls._address("ipv6:%5B2001:db8::1%5D:80") == "2001:db8::1"
    assert calls._address("ipv6:[::1]:80") == "::1"


def test_a_stub_of_another_channel_has_its_own_connection() -> None:
    with limited() as door:
        channel = channel_to(door.port)
        assert Stub(channel).call("Lookup", label=ALICE).profile
        channel.close()


def test_frames_of_headers_alone_do_not_end_the_server() -> None:
    with limited() as door:
        with http2(door.port) as raw:
            raw.send(frame(HEADERS, 4, 2, b"\xff" * 40))
            raw.closed()
        assert door.call("Lookup", label=ALICE).profile
