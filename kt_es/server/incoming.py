"""The parser that makes requests of a connection's bytes: HTTP/1.1 by llhttp (httptools), within limits.

This module uses no clock and no socket. It refuses framing that two parsers may read differently;
llhttp itself refuses Content-Length with Transfer-Encoding, repeated lengths, bare LF and folded headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import httptools

from kt_es.api.operations import ProblemReason
from kt_es.server.limits import FREE_CHUNKS, MAX_HEAD, MAX_HEADERS, SMALLEST_CHUNK, Route, route_of
from kt_es.server.responses import Problem, http_problem, too_many

# RFC 3986, reg-name and IP literals, with a port; nothing that a proxy may take for a path or a user.
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%-]+(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")


@dataclass(slots=True)
class IncomingRequest:
    """A request as it arrives. The fields after ``headers`` are set when its head is whole.

    ``client`` is the address of the client, which a trusted proxy may have named. With ``keep_alive``
    another request may follow.
    """

    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    method: str = ""
    version: str = "1.1"
    keep_alive: bool = False
    raw_path: bytes = b""
    path: str = ""
    query: bytes = b""
    client: str = ""
    route: Route = field(default_factory=Route)
    # One buffer: a body may arrive as single bytes, and a list would hold an object for each.
    body: bytearray = field(default_factory=bytearray)

    def values(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in self.headers if key == name]

    @property
    def scope(self) -> dict[str, Any]:
        """ASGI's ``scope``."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self.version,
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.raw_path,
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "client": (self.client, 0),
            "server": None,
        }


def _ambiguity(request: IncomingRequest) -> str | None:
    """Return the ambiguity in the head of a request, None if there is none."""
    hosts = request.values(b"host")
    if request.version not in ("1.0", "1.1"):
        return "the version of the request is neither HTTP/1.1 nor HTTP/1.0"
    if len(hosts) > 1 or (request.version == "1.1" and not hosts):
        return "a request needs one Host header"
    if hosts and not _HOST.fullmatch(hosts[0]):
        return "the Host header is no host; send a name or an address, with or without a port"
    # No path of this interface needs encodings, and some proxies check a path before they decode it.
    if b"%" in request.raw_path or b"#" in request.target:
        return "the path has percent-encodings or a fragment; no path of this interface needs them"
    if not request.target.startswith(b"/") and not _is_absolute(request.target):
        return "the target of the request is not a path"
    lengths = request.values(b"content-length")
    if any(length != str(int(length)) for length in lengths if length.isdecimal()):
        return "Content-Length has leading zeros; leave them out"
    if any(value.lower() != "100-continue" for value in request.values(b"expect")):
        return "the only expectation is 100-continue"
    return None


def _is_absolute(target: bytes) -> bool:
    scheme, _, rest = target.partition(b"://")
    return scheme.lower() in (b"http", b"https") and b"@" not in rest.partition(b"/")[0]


class _EndedError(Exception):
    """Raised inside the parser, so that it reads nothing after a refused request."""


class Owner(Protocol):
    """Receives the events of one connection. ``refuse`` is the last one."""

    def begun(self) -> None:
        """Note that the first bytes of a request have arrived."""

    def expects(self, request: IncomingRequest, size: int) -> None:
        """Note that the head of ``request`` is whole. Up to ``size`` bytes of body follow."""

    def keep(self, size: int) -> bool:
        """Count ``size`` more bytes that are kept. Return False if that is too much for this client."""

    def whole(self, request: IncomingRequest) -> None:
        """Take a request that has arrived whole."""

    def refuse(self, why: str, problem: Problem) -> None:
        """Answer with ``problem``. No later request of this connection is answered."""


class Incoming:
    """The parser of one connection.

    Once it has ``ended``, nothing more is read. ``origin`` gives the client's address from the values of
    ``X-Forwarded-For``. ``owes`` gives the seconds for which that client should send no request.
    """

    def __init__(
        self, owner: Owner, origin: Callable[[list[str]], str], owes: Callable[[str], float]
    ) -> None:
        self._owner = owner
        self._origin = origin
        self._owes = owes
        self._parser = httptools.HttpRequestParser(self)
        self._request: IncomingRequest | None = None
        self._in_head = False
        self.ended = False
        self._size_of_head = 0
        self._chunks = 0
        # Bytes since the end of the last head or of the last request.
        self._unparsed = 0

    @property
    def part(self) -> str | None:
        """The part of a request that is arriving: ``head``, ``body``, or None."""
        if self._request is None:
            return None
        return "head" if self._in_head else "body"

    def end(self) -> None:
        """Read nothing more."""
        self.ended = True
        self._request = None

    def feed(self, data: bytes) -> None:
        if self.ended:
            return
        self._unparsed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request is answered, but the protocol stays HTTP/1.1.
            self.end()
        except httptools.HttpParserError:
            self._refuse("malformed", http_problem(400, "the request is not well-formed HTTP/1.1"))
        else:
            self._check_unparsed()

    def _check_unparsed(self) -> None:
        if self._request is None or self._in_head:
            if self._unparsed > MAX_HEAD:
                self._refuse_head()
        elif self._unparsed > 8 * self._request.route.body + MAX_HEAD:
            self._refuse_chunks()

    # Called by the parser, which reads all of its input unless one of these raises.

    def on_message_begin(self) -> None:
        if self.ended:
            raise _EndedError
        self._request = IncomingRequest()
        self._in_head = True
        self._size_of_head = self._chunks = 0
        self._owner.begun()

    def on_url(self, part: bytes) -> None:
        self._current.target += part
        self._count_head(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._current
        # After the body it is a trailer, which is ignored.
        if self._in_head:
            request.headers.append((name.lower(), value))
        self._count_head(len(name) + len(value))

    def on_chunk_header(self) -> None:
        request = self._current
        self._chunks += 1
        if self._chunks > FREE_CHUNKS + len(request.body) // SMALLEST_CHUNK:
            self._refuse_chunks()

    def on_headers_complete(self) -> None:
        request = self._current
        self._in_head = False
        self._unparsed = 0
        request.method = self._parser.get_method().decode("ascii")
        request.version = self._parser.get_http_version()
        request.keep_alive = self._parser.should_keep_alive()
        try:
            url = httptools.parse_url(request.target)
        except httptools.HttpParserInvalidURLError:
            self._refuse("malformed", http_problem(400, "the target of the request is not a path"))
            return
        request.raw_path = url.path or b"/"
        request.path = request.raw_path.decode("ascii", "replace")
        request.query = url.query or b""
        request.route = route_of(request.path)
        request.client = self._origin(request.values(b"x-forwarded-for"))
        self._check_head(request)

    def on_body(self, part: bytes) -> None:
        request = self._current
        if len(request.body) + len(part) > request.route.body:
            self._refuse_body(request)
            return
        request.body += part
        if not self._owner.keep(len(part)):
            self._refuse("address-bytes", too_many(1.0))

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        self._unparsed = 0
        if request is not None:
            self.ended = not request.keep_alive
            self._owner.whole(request)

    @property
    def _current(self) -> IncomingRequest:
        """The request that is arriving."""
        if self._request is None:
            raise _EndedError
        return self._request

    def _check_head(self, request: IncomingRequest) -> None:
        """Refuse what the head alone shows to be wrong, before the body arrives."""
        wrong = _ambiguity(request)
        if wrong is not None:
            self._refuse("malformed", http_problem(400, wrong))
            return
        codings = request.values(b"transfer-encoding")
        if codings and (request.version == "1.0" or [coding.lower() for coding in codings] != ["chunked"]):
            self._refuse("malformed", http_problem(501, "the only transfer coding is chunked"))
            return
        # llhttp accepts one length only, made of digits.
        length = "".join(request.values(b"content-length")) or "0"
        if len(length) > 9 or int(length) > request.route.body:
            self._refuse_body(request)
            return
        size = request.route.body if codings else int(length)
        wait = self._owes(request.client) if size > MAX_HEAD else 0.0
        if wait:
            self._refuse("rate", too_many(wait))
        elif size:
            self._owner.expects(request, size)

    def _count_head(self, size: int) -> None:
        self._size_of_head += size + 4
        too_many_headers = self._request is not None and len(self._request.headers) > MAX_HEADERS
        if self._size_of_head > MAX_HEAD or too_many_headers:
            self._refuse_head()

    def _refuse_head(self) -> None:
        limit = f"the head must have at most {MAX_HEAD} bytes and {MAX_HEADERS} headers"
        self._refuse("oversize", http_problem(431, limit))

    def _refuse_chunks(self) -> None:
        problem = "the chunks of the body are too small; send larger chunks, or a Content-Length"
        self._refuse("oversize", Problem(413, ProblemReason.OVERSIZE, problem))

    def _refuse_body(self, request: IncomingRequest) -> None:
        limit = f"the body must have at most {request.route.body} bytes"
        self._refuse("oversize", Problem(413, ProblemReason.OVERSIZE, limit))

    def _refuse(self, why: str, problem: Problem) -> None:
        if not self.ended:
            self.end()
            self._owner.refuse(why, problem)
