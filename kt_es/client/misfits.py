"""Failures of a connection that waiting does not mend: TLS that is not accepted, another protocol."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import httpx

from kt_es.process.handshake import speaks_tls

_SILENT = "Server disconnected without sending a response"
_PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def misfit(error: httpx.TransportError, url: str) -> str | None:
    """What does not fit and what to do about it; None for a failure that may pass."""
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
    """The failure of a handshake; a connection that ended meanwhile is none."""
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
