"""The client library's exceptions as errors of kt-es: what the caller does about them decides."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import grpc

from kt_es.errors import AccessDeniedError, KtError, MisfitError, StreamGoneError, TlsError, UnavailableError
from kt_es.eventstore import driver
from kt_es.eventstore.esdb_client import TLS_FAILURES
from kt_es.process.handshake import speaks_tls

# A connection that was accepted and ended before it was one.
_CLOSED = re.compile(r"failed to connect.*ipv[46]:(?P<host>[^ ]+):(?P<port>[0-9]+): Socket closed")

_T = TypeVar("_T")


def calling(
    doing: str, call: Callable[[], _T], right: str = "", stream: str = "", *, is_plain: bool = False
) -> _T:
    """What ``call`` returns, which needs ``right`` to ``stream``, with errors translated.

    ``doing`` says in an error what failed. ``is_plain``: the connection is to be one without TLS.
    """
    try:
        return call()
    except driver.EventStoreDBClientException as error:
        raise translated(error, doing, right, stream, is_plain=is_plain) from None
    except grpc.RpcError as error:
        raise UnavailableError(f"{doing}: the event log is unavailable ({error})") from None
    except ValueError as error:
        # gRPC's own word for a channel that was closed under a call, by close() or a reconnect.
        raise UnavailableError(f"{doing}: the connection was closed ({error})") from None


def sentence(error: BaseException) -> str:
    """What an exception says, in one line."""
    cause = error.args[0] if error.args else None
    details = getattr(cause, "details", None)
    text = details() if callable(details) else str(error)
    return str(text or type(error).__name__).strip().splitlines()[0]


def status_of(error: driver.EventStoreDBClientException) -> grpc.StatusCode | None:
    """The gRPC status behind an exception, None where it has none."""
    code = getattr(error.args[0], "code", None) if error.args else None
    return code() if callable(code) else None


def translated(
    error: driver.EventStoreDBClientException,
    doing: str,
    right: str,
    stream: str,
    *,
    is_plain: bool = False,
) -> KtError:
    """What a client exception means to us; the recordings of real failures are the source."""
    refused = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
    if isinstance(error, (*driver.DENIALS, *driver.UNAUTHENTICATED)) or status_of(error) in refused:
        missing = f", the right {right} to {stream} is missing" if right else ""
        problem = f"{doing}: the event log denies access{missing} ({sentence(error)})"
        return AccessDeniedError(problem, stream, right)
    if isinstance(error, driver.StreamIsDeleted):
        return StreamGoneError(f"{doing}: the stream is deleted for good ({sentence(error)})")
    permanent: tuple[type[Exception], ...] = (
        driver.MaximumAppendSizeExceededError,
        driver.BadRequestError,
        driver.FailedPrecondition,
        *driver.INVALID,
    )
    if isinstance(error, permanent) or status_of(error) == grpc.StatusCode.INVALID_ARGUMENT:
        return KtError(f"{doing}: {driver.name_of(error)} {sentence(error)}")
    # ServiceUnavailable, deadlines, changes of leader, and the plain base class that a server just
    # started answers with: all of them pass.
    cause = sentence(error)
    return unreached(f"{doing}: the event log is unavailable ({cause})", cause, is_plain=is_plain)


def unreached(text: str, cause: str, *, is_plain: bool = False) -> UnavailableError:
    """The error with the sentence ``text``; a ``MisfitError`` with a hint if waiting does not help.

    gRPC's own words for the cause decide, and where it says only that the connection was closed, the server.
    """
    if any(word in cause for word in TLS_FAILURES):
        return TlsError(f"{text}; {_tls_hint(cause)}")
    if "Failed parsing HTTP/2" in cause or "http1.x" in cause:
        return MisfitError(
            f"{text}; what answers there is not an event log: check host and port of the connection string"
        )
    # With TLS a server that speaks it may close a connection, too: while it starts or stops.
    closed = _CLOSED.search(cause) if is_plain else None
    if closed is not None and speaks_tls(closed["host"].strip("[]"), int(closed["port"])):
        return TlsError(f"{text}; the server speaks TLS: leave Tls=false out of the connection string")
    return UnavailableError(text)


def _tls_hint(cause: str) -> str:
    if "WRONG_VERSION_NUMBER" in cause:
        return "what answers there does not speak TLS: write Tls=false if that is meant, or check the port"
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        return "name the certificate of its authority with TlsCaFile=FILE in the connection string"
    return "its certificate has to be for the host that the connection string names"
