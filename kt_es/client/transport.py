"""HTTP for the client: answers of bounded size, calls of bounded time, and retries with the same bytes.

A deadline is a monotonic time in seconds. It bounds the whole call with its retries.
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from kt_es.api.codec import Json, decode_json, encode_request, printable, read_problem
from kt_es.api.operations import JSON_MEDIA, MAX_ANSWER
from kt_es.client.deadlines import Deadline, bound_transport
from kt_es.errors import ConfigError, MalformedError, MisfitError, RefusedError, UnavailableError
from kt_es.process.log_filters import keep_secret, without_password
from kt_es.process.network import proxy_for, speaks_tls, uses_proxies
from kt_es.process.outage import Backoff

_MAX_PROBLEM = 64 * 1024
_CONNECT = 10.0
_FIRST_PAUSE = 0.1
_SHORTEST_PAUSE = 0.05
_NOTICE_AFTER = 2.0
_LONGEST_PAUSE = 5.0
_SILENT = "Server disconnected without sending a response"
_PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
AGAIN: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same request is sent again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: its status, its bytes as received, and the object in them."""

    status: int
    data: bytes
    body: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class _Again:
    """No answer now.

    ``after`` is how many seconds the server asks the client to wait. ``cut`` means that the call's deadline
    ended the attempt.
    """

    problem: str
    after: float | None
    cut: bool = False


class Transport:
    """One server. Safe for threads: connections are pooled, and nothing else is shared."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 30.0,
        verify: ssl.SSLContext | bool = True,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        connections: int = 32,
        public: bool = False,
    ) -> None:
        """With ``public`` no address of a private network is asked, unless a proxy asks it."""
        self.timeout = timeout
        keep_secret(base_url)
        if "://" not in base_url or any(sign in base_url for sign in "?#"):
            # The message does not repeat the address, because it may hold a secret.
            raise ConfigError(
                "the server's address must begin with http:// or https://, and have neither ? nor #"
            )
        self._proxied = proxy_for(base_url) and transport is None
        try:
            address = urlsplit(base_url)
            self._http = httpx.Client(
                base_url=base_url,
                verify=verify,
                # The size of a compressed answer is unknown before it is decompressed.
                headers={**(headers or {}), "accept-encoding": "identity"},
                transport=transport,
                trust_env=uses_proxies(base_url),
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            )
        except ImportError as error:
            raise ConfigError(f"the proxy that the environment names cannot be used: {error}") from None
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            problem = str(error).replace(base_url, without_password(base_url))
            if _is_url(base_url) and uses_proxies(base_url):
                raise ConfigError(
                    f"the proxy that the environment names cannot be used: {without_password(problem)}"
                ) from None
            raise ConfigError(
                f"the server's address {without_password(base_url)!r} is unusable: {problem}"
            ) from None
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError(
                f"the server's address {without_password(base_url)!r} must begin with http:// or https://"
            )
        self.on_unavailable: Callable[[float], None] | None = None
        """Called once with the deadline of a call that has to be repeated. What it raises ends the call."""
        self.on_waiting: Callable[[str], None] | None = None
        """Called with the reason when a call has waited for 2 seconds. Several threads may call it."""
        self._deadline = Deadline()
        bound_transport(self._http, self._deadline, public=public and not self._proxied)

    @property
    def base_url(self) -> str:
        """The server's address without the password in it, for messages."""
        return without_password(str(self._http.base_url))

    def close(self) -> None:
        self._http.close()

    def deadline(self, timeout: float | None = None) -> float:
        """Return the deadline ``timeout`` seconds from now; by default the transport's own."""
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def get(self, path: str, deadline: float, *, limit: int = MAX_ANSWER, patient: bool = True) -> Answer:
        """Return the answer. A ``patient`` call repeats the request while the server is unavailable."""
        return self._until(deadline, "GET", path, None, limit, patient=patient)

    def fetch(self, path: str, deadline: float, *, limit: int, patient: bool = True) -> bytes:
        """Return the bytes of a file, whatever they are. Raises what ``get`` raises."""
        return self._until(deadline, "GET", path, None, limit, patient=patient, raw=True).data

    def post(self, path: str, request: object, deadline: float, *, limit: int = MAX_ANSWER) -> Answer:
        """Send ``request``, a model of ``kt_es.api``, and return the answer."""
        # Encoded once, so that every repetition sends the same bytes.
        return self._until(deadline, "POST", path, json.dumps(encode_request(request)).encode(), limit)

    def _until(
        self,
        deadline: float,
        method: str,
        path: str,
        content: bytes | None,
        limit: int,
        *,
        patient: bool = True,
        raw: bool = False,
    ) -> Answer:
        """Return the answer; repeat the request while the server is unavailable, until the deadline."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        problem = ""
        begun, waits = time.monotonic(), False
        while True:
            if time.monotonic() >= deadline:
                raise UnavailableError(problem or f"{self.base_url} takes too long")
            answer = self._once(deadline, method, path, content, limit, raw=raw)
            if isinstance(answer, Answer):
                return answer
            if not patient:
                raise UnavailableError(answer.problem)
            if not problem and self.on_unavailable is not None:
                self.on_unavailable(deadline)
            # An attempt that was cut short does not know why the attempts before it failed.
            problem = problem if problem and answer.cut else answer.problem
            # Random, so that clients that were refused together do not return together.
            pause = backoff.pause()
            wait = random.uniform(pause / 2, pause)  # noqa: S311
            if answer.after is not None:
                wait = max(answer.after, _SHORTEST_PAUSE)
            if time.monotonic() + wait >= deadline:
                raise UnavailableError(problem, wait)
            if not waits and self.on_waiting is not None and time.monotonic() + wait > begun + _NOTICE_AFTER:
                waits = True
                left = deadline - time.monotonic()
                self.on_waiting(f"waiting up to {max(left, 1):.0f} s more: {problem}")
            time.sleep(wait)

    def _once(
        self, deadline: float, method: str, path: str, content: bytes | None, limit: int, *, raw: bool
    ) -> Answer | _Again:
        timeout = httpx.Timeout(max(deadline - time.monotonic(), _SHORTEST_PAUSE), connect=_CONNECT)
        headers = None if content is None else {"content-type": JSON_MEDIA}
        try:
            with (
                self._deadline.until(deadline),
                self._http.stream(
                    method, path, content=content, headers=headers, timeout=timeout
                ) as response,
            ):
                status = response.status_code
                data = _read(response, path, limit if status < 300 else _MAX_PROBLEM, deadline)
        except httpx.TransportError as error:
            hint = _misfit(error, str(self._http.base_url))
            if hint is not None:
                raise MisfitError(f"{self.base_url}: {hint}") from None
            cause = without_password(str(error)) or type(error).__name__
            through = " (asked through the proxy that the environment names)" if self._proxied else ""
            # Timeouts of the network may fire a little before the deadline.
            cut = isinstance(error, httpx.TimeoutException) and time.monotonic() + _SHORTEST_PAUSE >= deadline
            return _Again(f"{self.base_url} does not answer: {cause}{through}", None, cut)
        if status in (200, 202):
            return Answer(status, data, {} if raw else decode_json(data, f"answer to {path}"))
        problem = read_problem(status, data)
        if status in AGAIN:
            after = _retry_after(response)
            return _Again(f"{self.base_url} is unavailable: {problem.detail}", after)
        if 400 <= status < 500:
            raise RefusedError(problem.reason, problem.detail, problem.field)
        if status >= 500:
            # The outcome is unknown, and repeating the request would only add to the server's trouble.
            raise UnavailableError(f"{self.base_url} failed with status {status}: {problem.detail}")
        detail = problem.detail
        if leads := response.headers.get("location"):
            detail = f"it leads to {printable(without_password(leads))}, and redirects are not followed"
        raise MalformedError(f"answer to {path}", f"has the status {status}: {detail}")


def _is_url(text: str) -> bool:
    try:
        httpx.URL(text)
        return bool(urlsplit(text).hostname)
    except (httpx.InvalidURL, ValueError, TypeError):
        return False


def _read(response: httpx.Response, path: str, limit: int, deadline: float) -> bytes:
    """Return the body, which may have ``limit`` bytes and must not be compressed."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise MalformedError(f"answer to {path}", "is compressed, though that was not asked for")
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > limit:
            raise MalformedError(f"answer to {path}", f"is larger than {limit} bytes")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer takes too long")
        parts.append(part)
    return b"".join(parts)


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of ``Retry-After``; None if it is missing or a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _misfit(error: httpx.TransportError, url: str) -> str | None:
    """Return a hint for a permanent failure: TLS is refused, or the server speaks another protocol.

    None means that the failure may pass.
    """
    failure = _tls_failure(error)
    if failure is not None:
        return _tls_hint(failure)
    if not isinstance(error, httpx.RemoteProtocolError):
        return None
    if str(error).startswith("illegal"):
        return "what answers there does not speak HTTP; check host and port of the address"
    address = urlsplit(url)
    if str(error).startswith(_SILENT) and address.scheme == "http":
        host, port = address.hostname or "", address.port or 80
        if speaks_tls(host, port):
            return "the server speaks TLS; write https:// in front of its address"
    return None


def _tls_failure(error: BaseException) -> ssl.SSLError | None:
    """Return the failure of a TLS handshake; None if the connection ended during the handshake."""
    cause: BaseException | None = error if isinstance(error, httpx.ConnectError) else None
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return None if isinstance(cause, _PASSING) or not isinstance(cause, ssl.SSLError) else cause


def _tls_hint(failure: ssl.SSLError) -> str:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not accepted ({failure.verify_message}); "
            "name its authority's certificate with --ca, or check the host name"
        )
    if failure.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return "what answers there does not speak TLS; is its address one with http:// or another port?"
    return f"TLS cannot be agreed on ({failure.reason or failure})"
