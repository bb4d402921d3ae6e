"""One witness over HTTP: ``add-checkpoint`` with an answer of bounded size and a call of bounded time.

A witness may be broken or hostile: it may answer slowly, without an end, with a redirect, with the signature
of somebody else, or with a size that its log never had. Of its answers only a cosignature that verifies is
believed.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import httpx

from kt_es.client.deadlines import Deadline, bound_transport
from kt_es.errors import ConfigError, MalformedError, VerificationError
from kt_es.formats.cosignatures import CosignerKey, verify_cosignature
from kt_es.formats.notes import NoteSignature, parse_note
from kt_es.formats.witnessing import ADD_CHECKPOINT, MAX_ANSWER, SIZE_MEDIA, AddCheckpoint, parse_size
from kt_es.process.log_filters import keep_secret, without_password
from kt_es.process.network import uses_proxies

PATIENCE: Final = 10.0
"""Seconds of one request, at most."""
LONGEST_WAIT: Final = 3600.0
"""Seconds that a witness may ask to be left alone, at most."""
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class WitnessSignature:
    """The witness has cosigned: its line, which verifies, and the time in it, in seconds since 1970."""

    line: NoteSignature
    timestamp: int


@dataclass(frozen=True, slots=True)
class OtherSize:
    """The witness has cosigned another size last than the request said."""

    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The witness has not cosigned. ``result`` is a label of metrics, ``wait`` seconds to leave it alone."""

    result: str
    problem: str
    wait: float = 0.0


class WitnessClient:
    """A witness at ``url``, its submission prefix. Each thread makes one call at a time.

    Args:
        name: The name in the policy file.
        key: The key that its cosignatures must verify with.
        url: ``http://`` or ``https://``. Both will do: all data are public, and the answer is signed.
        verify: Whom to trust for TLS.
        transport: Replaces the network in tests.

    Raises ``ConfigError`` if the URL cannot be used.
    """

    def __init__(
        self,
        name: str,
        key: CosignerKey,
        url: str,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name = name
        self.key = key
        keep_secret(url)
        self.url = without_password(url)
        try:
            address = urlsplit(url)
            usable = address.scheme in ("http", "https") and bool(address.hostname)
            self._http = httpx.Client(
                base_url=url,
                verify=verify,
                headers={"accept-encoding": "identity", "user-agent": "kt-es cosign"},
                follow_redirects=False,
                trust_env=uses_proxies(url),
                transport=transport,
            )
        except (httpx.InvalidURL, ValueError, TypeError, ImportError) as error:
            raise ConfigError(
                f"witness {name}: {self.url!r} is unusable: {error}; change its policy"
            ) from None
        if not usable or address.query or address.fragment:
            raise ConfigError(f"witness {name}: {self.url!r} is no URL of http or https; change its policy")
        self._deadline = Deadline()
        bound_transport(self._http, self._deadline)

    def close(self) -> None:
        self._http.close()

    def ask(self, request: AddCheckpoint) -> WitnessSignature | OtherSize | Refused:
        """Send one request and return what came of it. No failure of the witness is raised."""
        deadline = time.monotonic() + PATIENCE
        try:
            with (
                self._deadline.until(deadline),
                self._http.stream(
                    "POST",
                    ADD_CHECKPOINT,
                    content=request.encode(),
                    headers={"content-type": "text/plain; charset=utf-8"},
                    timeout=PATIENCE,
                ) as response,
            ):
                body = _bounded(response, deadline)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            return Refused("away", without_password(str(error)) or type(error).__name__)
        except MalformedError as error:
            return Refused("lie", error.problem)
        return self._read(request, response, body)

    def _read(
        self, request: AddCheckpoint, response: httpx.Response, body: bytes
    ) -> WitnessSignature | OtherSize | Refused:
        status = response.status_code
        if status == httpx.codes.OK:
            try:
                return self._cosignature(request.note, body)
            except (MalformedError, VerificationError) as error:
                return Refused("lie", f"it answered with a false cosignature: {error.problem}")
        media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if status == httpx.codes.CONFLICT and media == SIZE_MEDIA:
            try:
                return OtherSize(parse_size(body))
            except MalformedError as error:
                return Refused("lie", f"its 409 {error.problem}")
        said = body[:_SHOWN].decode("utf-8", "replace").strip()
        if response.has_redirect_location:
            said = without_password(response.headers["location"][:_SHOWN])
        meaning = _MEANINGS.get(status) or _meaning(response)
        return Refused(str(status), f"{status} {meaning}: {said}", _wait(status, response))

    def _cosignature(self, note: str, body: bytes) -> WitnessSignature:
        """Return the first cosignature by ``key``. Lines by other keys are ignored, as the protocol asks."""
        sent, extended = parse_note(note), parse_note(note.encode() + body)
        if extended.text != sent.text:
            raise MalformedError("answer", "has more than signature lines")
        for line in extended.signatures[len(sent.signatures) :]:
            if self.key.made(line):
                return WitnessSignature(line, verify_cosignature(sent.text, line, self.key))
        raise VerificationError("cosignature", f"none of its lines is by the key {self.key.vkey}")


_MEANINGS: Final = {
    400: "it does not understand the request",
    403: "it trusts none of the keys that signed the checkpoint; give it the vkey of kt cosign --describe",
    404: "it does not know the log; give its operator the lines of kt cosign --describe",
    409: "it has another root of the same size: the log was forked, or the witness is wrong",
    422: "the consistency proof does not verify: the log was forked, or the front end proves nonsense",
    429: "it is asked too often",
}


def _meaning(response: httpx.Response) -> str:
    """Return the sentence for a status that the protocol does not have."""
    if response.has_redirect_location:
        return "it is at another address, which is not followed; change the URL in the policy if it is right"
    return "it is broken" if response.is_server_error else "it is no witness at this address; see its URL"


def _bounded(response: httpx.Response, deadline: float) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise MalformedError("answer", "it answered compressed, though that was not asked for")
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MAX_ANSWER:
            raise MalformedError("answer", f"it answered with more than {MAX_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer takes too long")
        parts.append(part)
    return b"".join(parts)


def _wait(status: int, response: httpx.Response) -> float:
    """Return the seconds of ``Retry-After``, which may be a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "")
    if status not in (429, 503) or not value.isascii():
        return 0.0
    if value.isdigit() and len(value) < 10:
        return min(float(value), LONGEST_WAIT)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)
