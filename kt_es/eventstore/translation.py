"""The client library's exceptions as errors of kt-es: what the caller does about them decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import grpc

from kt_es.errors import AccessDeniedError, KtError, StreamGoneError, TlsError, UnavailableError
from kt_es.eventstore import driver
from kt_es.eventstore.esdb_client import TLS_FAILURES

_T = TypeVar("_T")


def calling(doing: str, call: Callable[[], _T], right: str = "", stream: str = "") -> _T:
    """What ``call`` returns, which needs ``right`` to ``stream``, with errors translated.

    ``doing`` says in an error what failed.
    """
    try:
        return call()
    except driver.EventStoreDBClientException as error:
        raise translated(error, doing, right, stream) from None
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


def translated(error: driver.EventStoreDBClientException, doing: str, right: str, stream: str) -> KtError:
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
    return unreached(f"{doing}: the event log is unavailable ({cause})", cause)


def unreached(text: str, cause: str) -> UnavailableError:
    """The error with the sentence ``text``: a ``TlsError`` if the cause is TLS, by gRPC's words for it."""
    kind = TlsError if any(word in cause for word in TLS_FAILURES) else UnavailableError
    return kind(text)
