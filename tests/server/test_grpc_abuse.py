"""Clients of gRPC that do what no honest one does, or stop reading: others are served, and nothing stays."""

from __future__ import annotations

import struct
from contextlib import suppress

import grpc
import pytest

from kt_es._proto import kt_v1
from tests.reference.frontends import submission, until
from tests.reference.grpc_doors import PATIENCE, members
from tests.reference.http2 import (
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    Http2,
    frame,
    header_block,
    http2,
)
from tests.server.test_grpc_limits import ALICE, LOOKUP, REQUEST, limited

CONTINUATION = 9
FLOOD = 64 << 20
ENHANCE_YOUR_CALM = 11
WATCH = "/kt.v1.DirectoryService/WatchHeads"


def _goaway(raw: Http2) -> int:
    """Wait for the end of the connection; the error code that it was given."""
    code = -1
    with suppress(OSError):
        for kind, _, _, payload in raw.frames():
            if kind == GOAWAY:
                code = struct.unpack(">II", payload[:8])[1]
    return code


def test_pings_in_masses_end_the_connection() -> None:
    with limited() as door:
        with http2(door.port) as raw:
            try:
                for number in range(1000):
                    raw.send(frame(PING, 0, 0, struct.pack(">Q", number)))
            except OSError:
                pass  # it has ended already
            assert _goaway(raw) in (ENHANCE_YOUR_CALM, -1)
        assert door.call("Lookup", label=ALICE).profile


def test_headers_without_an_end_do_not_stop_others() -> None:
    """CONTINUATION flood (CVE-2024-27316): 64 MiB of headers in one block that never ends."""
    with limited() as door, http2(door.port) as raw:
        raw.send(raw.headers(1, LOOKUP, flags=0))
        block = frame(CONTINUATION, 0, 1, header_block(("x", "y" * 8000)))
        answered = 0
        try:
            for number in range(FLOOD // len(block)):
                raw.send(block)
                if number % 1000 == 0:
                    answered += bool(door.call("Lookup", label=ALICE).profile)
        except OSError:
            pass  # the server has had enough of this connection
        # The block was never a request: it has no slot and no account.
        assert answered
        assert door.front.running.frontend.slots.requests == 0
        assert door.call("Lookup", label=ALICE).profile


def test_many_small_metadata_are_refused() -> None:
    with limited() as door:
        metadata = [(f"k{number}", "") for number in range(2000)]
        with pytest.raises(grpc.RpcError) as caught:
            door.send("Lookup", door.request("Lookup", label=ALICE), metadata=metadata, timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert door.call("Lookup", label=ALICE).profile


def test_a_watch_that_is_not_read_keeps_one_head_and_no_epoch_waits_for_it() -> None:
    with limited() as door:
        clients = door.front.running.clients
        with http2(door.port, window=0) as raw:
            request = kt_v1.WatchHeadsRequest().SerializeToString()
            raw.send(raw.call(1, WATCH, request))
            (account, _), _ = clients._of("127.0.0.1")
            until(lambda: account.held > 0)
            before = account.held
            for _ in range(5):
                door.front.streams.epoch()
            until(door.front.caught_up)
            # Another watch gets all of them meanwhile.
            seen = door.call("WatchHeads", since=2)
            assert [next(seen).head.epoch for _ in range(5)] == [3, 4, 5, 6, 7]
            seen.cancel()
            # What the other watch had under way is given back, and the one head of this watch stays.
            until(lambda: account.held == before)
            assert door.call("Lookup", label=ALICE).epoch == 7
        until(lambda: account.held == 0)


def test_a_cancelled_wait_and_a_cancelled_watch_leave_nothing() -> None:
    with limited() as door:
        given = members(submission("bob"))
        assert door.call("Submit", **given).WhichOneof("outcome") == "queued"
        request = door.request("SubmitAndWait", submission=given)
        calls = [door.method("SubmitAndWait").future(request) for _ in range(2)]
        watches = [door.call("WatchHeads", since=2) for _ in range(3)]
        (account, _), _ = door.front.running.clients._of("127.0.0.1")
        until(lambda: account.connections == 5)
        for call in (*calls, *watches):
            call.cancel()
        until(lambda: account.connections == 0)
        # The mutation is in the queue all the same.
        door.front.streams.epoch()
        until(door.front.caught_up)
        decided = door.call("SubmitAndWait", submission=given, wait={"seconds": 20}).decided
        assert decided.verdict == "accepted"


def test_waits_of_an_address_are_bounded_and_the_next_one_gets_a_receipt() -> None:
    with limited(address_connections=2) as door:
        request = door.request("SubmitAndWait", submission=members(submission("bob")))
        waits = [door.method("SubmitAndWait").future(request) for _ in range(2)]
        (account, _), _ = door.front.running.clients._of("127.0.0.1")
        until(lambda: account.connections == 2)
        answer = door.send("SubmitAndWait", request, timeout=PATIENCE)
        assert answer.WhichOneof("outcome") == "queued"
        for wait in waits:
            wait.cancel()


def test_a_deadline_that_is_over_costs_no_answer() -> None:
    with limited() as door:
        with pytest.raises(grpc.RpcError) as caught:
            next(door.call("WatchHeads", since=2, timeout=0.2))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with http2(door.port) as raw:
            raw.send(raw.headers(1, LOOKUP, ("grpc-timeout", "1n")) + raw.call(3, LOOKUP, REQUEST))
            assert b"alice 1" in raw.ended(3)
            raw.send(frame(RST_STREAM, 0, 1, struct.pack(">I", 8)))


def test_a_whole_batch_is_below_what_clients_take_by_default() -> None:
    labels = [ALICE, *(f"nobody{number}@example.org" for number in range(999))]
    with limited() as door:
        answer = door.call("LookupMany", labels=labels, timeout=3 * PATIENCE)
        assert answer.count == len(answer.profiles) == 1000
        assert answer.ByteSize() < 4 << 20


def test_a_header_block_that_is_cut_off_ends_only_its_connection() -> None:
    with limited() as door:
        with http2(door.port) as raw:
            raw.send(frame(HEADERS, END_HEADERS, 1, header_block((":method", "POST"))[:-2]))
            raw.closed()
        assert door.call("Lookup", label=ALICE).profile
