"""HTTP as the client needs it: bounded answers, bounded time, the same bytes again while it makes sense.

A deadline is a monotonic time in seconds. It bounds the whole call, retries included, however slowly the
server sends whatever part of its answers (see ``deadlines``).
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from kt_es.client.deadlines import Deadline, bound_transport
from kt_es.client.misfits import misfit
from kt_es.client.strict_json import Json, decode_json
from kt_es.client.wire import read_problem
from kt_es.errors import ConfigError, MalformedError, MisfitError, RefusedError, UnavailableError
from kt_es.process.proxies import proxy_for, uses_proxies
from kt_es.process.redaction import keep_secret, without_password

MAX_ANSWER = 4 * 1024 * 1024
_MAX_PROBLEM = 64 * 1024
_CONNECT = 10.0
_FIRST_PAUSE = 0.1
_SHORTEST_PAUSE = 0.05
_TOLD_AFTER = 2.0
_LONGEST_PAUSE = 5.0
_AGAIN = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: its status, its bytes as received, and the object in them."""

    status: int
    data: bytes
    body: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class _Again:
    """No answer now; ``after`` is how many seconds the server asks to wait."""

    problem: str
    after: float | None


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
    ) -> None:
        self.timeout = timeout
        keep_secret(base_url)
        if "://" not in base_url or any(sign in base_url for sign in "?#"):
            # What it is instead may hold a secret, so it is not repeated.
            raise ConfigError(
                "the server's address must begin with http:// or https://, and have neither ? nor #"
            )
        self._proxied = proxy_for(base_url) and transport is None
        try:
            address = urlsplit(base_url)
            self._http = httpx.Client(
                base_url=base_url,
                verify=verify,
                # Compressed answers could not be bounded before they are unpacked.
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
        """Told, with its deadline, of a call that has to be repeated, once; what it raises ends the call."""
        self.on_waiting: Callable[[str], None] | None = None
        """Told why a call waits, once it has waited for a while. May be told by several threads."""
        self._deadline = Deadline()
        bound_transport(self._http, self._deadline)

    @property
    def base_url(self) -> str:
        """The server's address without the password in it, for messages."""
        return without_password(str(self._http.base_url))

    def close(self) -> None:
        self._http.close()

    def deadline(self, timeout: float | None = None) -> float:
        """The deadline ``timeout`` seconds from now; by default the transport's own."""
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def get(self, path: str, deadline: float, *, limit: int = MAX_ANSWER, patient: bool = True) -> Answer:
        """The answer; of an unavailable server, if ``patient``, what it answers when it is asked again."""
        return self._until(deadline, "GET", path, None, limit, patient=patient)

    def post(
        self, path: str, body: Mapping[str, object], deadline: float, *, limit: int = MAX_ANSWER
    ) -> Answer:
        # Encoded once: what is repeated is the same bytes.
        return self._until(deadline, "POST", path, json.dumps(body).encode(), limit)

    def _until(
        self,
        deadline: float,
        method: str,
        path: str,
        content: bytes | None,
        limit: int,
        *,
        patient: bool = True,
    ) -> Answer:
        """The answer, asking again while the server is unavailable and the deadline allows.

        Raises ``UnavailableError`` after that, ``RefusedError`` for what asking again would not change,
        ``MalformedError`` for what is no answer.
        """
        pause = _FIRST_PAUSE
        problem = ""
        begun, waits = time.monotonic(), False
        while True:
            if time.monotonic() >= deadline:
                raise UnavailableError(problem or f"{self.base_url} takes too long")
            answer = self._once(deadline, method, path, content, limit)
            if isinstance(answer, Answer):
                return answer
            if not patient:
                raise UnavailableError(answer.problem)
            if not problem and self.on_unavailable is not None:
                self.on_unavailable(deadline)
            problem = answer.problem
            # Clients that were turned away together should not come back together.
            wait = random.uniform(pause / 2, pause)  # noqa: S311
            if answer.after is not None:
                wait = max(answer.after, _SHORTEST_PAUSE)
            if time.monotonic() + wait >= deadline:
                raise UnavailableError(answer.problem, wait)
            if not waits and self.on_waiting is not None and time.monotonic() + wait > begun + _TOLD_AFTER:
                waits = True
                left = deadline - time.monotonic()
                self.on_waiting(f"waiting up to {max(left, 1):.0f} s more: {answer.problem}")
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _once(
        self, deadline: float, method: str, path: str, content: bytes | None, limit: int
    ) -> Answer | _Again:
        timeout = httpx.Timeout(max(deadline - time.monotonic(), _SHORTEST_PAUSE), connect=_CONNECT)
        headers = None if content is None else {"content-type": "application/json"}
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
            hint = misfit(error, str(self._http.base_url))
            if hint is not None:
                raise MisfitError(f"{self.base_url}: {hint}") from None
            cause = without_password(str(error)) or type(error).__name__
            through = " (asked through the proxy that the environment names)" if self._proxied else ""
            return _Again(f"{self.base_url} does not answer: {cause}{through}", None)
        if status in (200, 202):
            return Answer(status, data, decode_json(data, f"answer to {path}"))
        problem = read_problem(status, data)
        if status in _AGAIN:
            after = _retry_after(response)
            return _Again(f"{self.base_url} is unavailable: {problem.detail}", after)
        if 400 <= status < 500:
            raise RefusedError(problem.reason, problem.detail, problem.field)
        if status >= 500:
            # A fault over there, whose outcome nobody knows; more of the same would only add to it.
            raise UnavailableError(f"{self.base_url} failed with status {status}: {problem.detail}")
        raise MalformedError(f"answer to {path}", f"has the status {status}: {problem.detail}")


def _is_url(text: str) -> bool:
    try:
        httpx.URL(text)
        return bool(urlsplit(text).hostname)
    except (httpx.InvalidURL, ValueError, TypeError):
        return False


def _read(response: httpx.Response, path: str, limit: int, deadline: float) -> bytes:
    """The body, as long as it is neither larger than ``limit`` nor slower than ``deadline``."""
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
    """Seconds to wait, as the server says it; None where it does not, or gives a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
