"""A client of HTTP/2 that does what no library does: it sends single frames, and reads only when told to."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS = 4, 3
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 20.0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _integer(value: int, bits: int) -> bytes:
    """An integer of HPACK (RFC 7541, 5.1), whose prefix has ``bits`` bits, all other bits 0."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    encoded, rest = [most], value - most
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes([*encoded, rest])


def header_block(*pairs: tuple[str, str]) -> bytes:
    """Literal fields that are never indexed (RFC 7541, 6.2.2), without Huffman coding."""
    block = b""
    for name, value in pairs:
        block += b"\x00" + _integer(len(name), 7) + name.encode() + _integer(len(value), 7) + value.encode()
    return block


def message(data: bytes, *, compressed: bool = False) -> bytes:
    """A message of gRPC with its prefix."""
    return bytes([compressed]) + struct.pack(">I", len(data)) + data


class Http2:
    """One connection. Streams have odd numbers, from 1."""

    def __init__(self, port: int, window: int = 65_535, source: str = "127.0.0.1") -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._data = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def headers(self, stream: int, path: str, *more: tuple[str, str], flags: int = END_HEADERS) -> bytes:
        block = header_block(
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "127.0.0.1"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *more,
        )
        return frame(HEADERS, flags, stream, block)

    def call(self, stream: int, path: str, data: bytes) -> bytes:
        """The frames of a whole call."""
        return self.headers(stream, path) + frame(DATA, END_STREAM, stream, message(data))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The frames that arrive, until the connection ends. Settings and pings are acknowledged."""
        while True:
            while len(self._data) < 9 or len(self._data) < 9 + int.from_bytes(self._data[:3]):
                try:
                    received = self.socket.recv(1 << 16)
                except ConnectionError:
                    return
                if not received:
                    return
                self._data += received
            size = 9 + int.from_bytes(self._data[:3])
            head, payload, self._data = self._data[:9], self._data[9:size], self._data[size:]
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:]) & 0x7FFFFFFF
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
            yield kind, flags, stream, payload

    def ended(self, stream: int) -> bytes:
        """Wait until ``stream`` ends; the payloads of its frames, in which the trailers can be found."""
        seen = b""
        for kind, flags, number, payload in self.frames():
            if number == stream and kind in (DATA, HEADERS):
                seen += payload
            if number == stream and (kind == RST_STREAM or (flags & END_STREAM and kind in (DATA, HEADERS))):
                return seen
        raise AssertionError("the connection ended before the stream")

    def closed(self) -> None:
        """Wait until the server closes the connection."""
        for _ in self.frames():
            pass


@contextmanager
def http2(port: int, window: int = 65_535, source: str = "127.0.0.1") -> Iterator[Http2]:
    made = Http2(port, window, source)
    with made.socket:
        yield made
