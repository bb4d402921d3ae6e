"""The HTTP server against clients that are slow, greedy, silent or wrong, by raw sockets."""

from __future__ import annotations

import json

import pytest

from kt_es.api.operations import MAX_MUTATION_REQUEST
from tests.reference.doors import App, Door, answer, is_closed, request
from tests.reference.frontends import until


def test_requests_on_one_connection_are_answered_in_their_order(patient: Door) -> None:
    client = patient.connect(request("/a") + request("/b", b"{}") + request("/c", None, "Connection: close"))
    assert [answer(client)[2] for _ in range(3)] == [b"/a ", b"/b {}", b"/c "]
    assert is_closed(client)


def test_chunked_bodies_and_continue_are_understood(patient: Door) -> None:
    client = patient.connect(request("/a", None, "Transfer-Encoding: chunked", method="POST"))
    client.sendall(b"2\r\n{}\r\n0\r\n\r\n")
    assert answer(client)[2] == b"/a {}"
    client.sendall(request("/b", None, "Expect: 100-continue", "Content-Length: 2", method="POST"))
    assert answer(client)[0] == 100
    client.sendall(b"{}")
    assert answer(client)[2] == b"/b {}"


def test_an_older_client_and_a_head_request_are_answered(patient: Door) -> None:
    old = patient.connect(b"GET /old HTTP/1.0\r\n\r\n")
    assert answer(old)[1]["connection"] == "close"
    assert is_closed(old)
    head = patient.connect(request("/h", method="HEAD") + request("/after"))
    first = b""
    while b"\r\n\r\n" not in first:
        first += head.recv(1)
    assert answer(head)[2] == b"/after "


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2",
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: +2",
        b"Content-Length : 2",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"X: a\r\n b",
        b"X: a\nContent-Length: 2",
        b"Host: another",
        b"Content-Length: 02",
        b"Expect: 100-continue, more\r\nContent-Length: 2",
    ],
)
def test_framing_that_can_be_read_in_two_ways_is_refused_and_closed(
    patient: Door, app: App, headers: bytes
) -> None:
    smuggled = b"0\r\n\r\n" + request("/smuggled")
    client = patient.connect(b"POST / HTTP/1.1\r\nHost: kt.test\r\n" + headers + b"\r\n\r\n" + smuggled)
    status, told, body = answer(client)
    assert status in (400, 501)
    assert (told["content-type"], told["connection"]) == ("application/problem+json", "close")
    assert b"reason" in body
    assert is_closed(client)
    assert not app.asked


@pytest.mark.parametrize(
    "line",
    [
        b"GET /a",
        b"GET /a HTTP/2.0",
        b"GET /a#b HTTP/1.1",
        b"GET /%61 HTTP/1.1",
        b"GET /a%2fb HTTP/1.1",
        b"GET ftp://kt.test/a HTTP/1.1",
        b"GET http://user@kt.test/a HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
    ],
)
def test_a_target_has_one_meaning_or_is_refused(patient: Door, app: App, line: bytes) -> None:
    client = patient.connect(line + b"\r\nHost: kt.test\r\n\r\n")
    assert answer(client)[0] == 400
    assert is_closed(client)
    assert not app.asked


@pytest.mark.parametrize("host", [b"", b"a b", b"a/b", b"user@a", b"a:b", b"[::1"])
def test_a_host_is_a_host(patient: Door, app: App, host: bytes) -> None:
    client = patient.connect(b"GET /a HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert answer(client)[0] == 400
    assert not app.asked


@pytest.mark.parametrize("host", ["a.example:8080", "[::1]:80", "127.0.0.1", "xn--a-b"])
def test_other_forms_of_a_target_and_a_host_are_taken(patient: Door, host: str) -> None:
    assert answer(patient.connect(f"GET http://{host}/a HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()))[0] == 200


def test_many_small_chunks_are_refused_and_what_follows_them_is_not_read(patient: Door, app: App) -> None:
    """Each chunk costs the parser a call, in the loop that serves everybody."""
    head = request("/v1/mutations", None, "Transfer-Encoding: chunked", method="POST")
    client = patient.connect(head + b"1\r\na\r\n" * 60_000)
    status, _, body = answer(client)
    assert (status, json.loads(body)["reason"]) == (413, "oversize")
    assert not app.asked
    client.close()
    until(lambda: patient.connections.held == 0)
    pieces = b"".join(b"400\r\n" + bytes(1024) + b"\r\n" for _ in range(1000)) + b"0\r\n\r\n"
    assert len(answer(patient.connect(head + pieces))[2]) > 1000 * 1024


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000, 431),
        (b"GET / HTTP/1.1\r\nHost: kt.test\r\n" + b"A: b\r\n" * 200, 431),
        (b"GET / HTTP/1.1\r\nHost: kt.test\r\nA: " + b"b" * 20_000, 431),
        (b"\r\n" * 10_000, 431),
        (request("/v1/lookup", None, "Content-Length: 8193", method="POST"), 413),
        (request("/v1/range", None, "Content-Length: 8193", method="POST"), 413),
        (request("/", None, "Content-Length: 99999999999999999999", method="POST"), 400),
        (request("/v1/mutations", None, f"Content-Length: {MAX_MUTATION_REQUEST + 1}", method="POST"), 413),
        (
            request("/v1/lookup", None, "Transfer-Encoding: chunked", method="POST")
            + b"2000\r\n"
            + bytes(8192)
            + b"\r\n1\r\n",
            413,
        ),
        (
            request("/v1/lookup", None, "Transfer-Encoding: chunked", method="POST")
            + b"1;" + b"e" * 2_000_000,
            413,
        ),
    ],
)  # fmt: skip
def test_what_is_too_large_or_no_http_is_refused_before_it_is_whole(
    patient: Door, app: App, sent: bytes, status: int
) -> None:
    client = patient.connect(sent + b"x" * (status == 413))
    assert answer(client)[0] == status
    assert is_closed(client)
    assert not app.asked
