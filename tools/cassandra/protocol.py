"""As much of Cassandra's native protocol, version 4, as tells whether a node is ready."""

from __future__ import annotations

import socket
import ssl
import struct
from io import BufferedRWPair

_STARTUP, _READY, _AUTHENTICATE, _QUERY, _RESULT = 0x01, 0x02, 0x03, 0x07, 0x08
_ONE = 1  # consistency
_SKIP_METADATA = 0x02  # flag of a query: the result has the values alone
_ROWS = 2  # kind of a result
_HEADER = struct.Struct(">BBhBI")  # version, flags, stream, opcode, length of the body
_PEERS = b"SELECT peer FROM system.peers_v2"
_TIMEOUT = 5.0  # seconds for each step


def peers(address: str, port: int, *, secured: bool = False) -> set[str] | None:
    """Return the addresses of the other nodes of the ring that the node at ``address`` knows.

    Returns None if the node does not answer. A ``secured`` node, with TLS and passwords, names no others.
    """
    startup = struct.pack(">H", 1) + _string(b"CQL_VERSION") + _string(b"3.0.0")
    try:
        with socket.create_connection((address, port), _TIMEOUT) as connection:
            if secured:
                with _tls().wrap_socket(connection) as encrypted, encrypted.makefile("rwb") as stream:
                    _ask(stream, _STARTUP, startup, _AUTHENTICATE)
                return set()
            with connection.makefile("rwb") as stream:
                _ask(stream, _STARTUP, startup, _READY)
                return _known(stream)
    except OSError:
        return None


def _known(stream: BufferedRWPair) -> set[str]:
    query = struct.pack(">I", len(_PEERS)) + _PEERS + struct.pack(">HB", _ONE, _SKIP_METADATA)
    rows = _ask(stream, _QUERY, query, _RESULT)
    kind, _, _, count = struct.unpack_from(">iiii", rows)
    # Each row is one value: the length 4 and an IPv4 address.
    values = struct.unpack_from(">" + "i4s" * count, rows, 16) if kind == _ROWS else ()
    return {socket.inet_ntoa(value) for value in values[1::2]}


def _tls() -> ssl.SSLContext:
    """A context that accepts any certificate: nothing secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _string(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def _ask(stream: BufferedRWPair, opcode: int, body: bytes, expected: int) -> bytes:
    """Send a request and return the body of the answer.

    Raises:
        ConnectionError: The connection ended, or the answer has another opcode than ``expected``.
    """
    stream.write(_HEADER.pack(0x04, 0, 0, opcode, len(body)) + body)
    stream.flush()
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ConnectionError("the connection ended")
    *_, answered, length = _HEADER.unpack(header)
    answer = stream.read(length)
    if answered != expected or len(answer) < length:
        raise ConnectionError(f"the answer to {opcode} is {answered}: {answer!r}")
    return answer
