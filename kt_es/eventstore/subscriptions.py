"""Subscriptions of the event log, and the errors of the client library as errors of kt-es."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar
from uuid import UUID

import grpc

from kt_es.errors import AccessDeniedError, KtError, MisfitError, StreamGoneError, TlsError, UnavailableError
from kt_es.eventstore import driver
from kt_es.eventstore.esdb_client import TLS_FAILURES
from kt_es.eventstore.rights import READ
from kt_es.eventstore.streams import Event
from kt_es.process.network import speaks_tls

# The server accepted the TCP connection and closed it before HTTP/2 was established.
_CLOSED = re.compile(r"failed to connect.*ipv[46]:(?P<host>[^ ]+):(?P<port>[0-9]+): Socket closed")

_T = TypeVar("_T")


def calling(
    doing: str, call: Callable[[], _T], right: str = "", stream: str = "", *, is_plain: bool = False
) -> _T:
    """Return the result of ``call``, with errors translated.

    Args:
        doing: What the call does, for error messages.
        right: The right to ``stream`` that the call needs.
        is_plain: Whether the connection is meant to be without TLS.
    """
    try:
        return call()
    except driver.EventStoreDBClientException as error:
        raise translated(error, doing, right, stream, is_plain=is_plain) from None
    except grpc.RpcError as error:
        raise UnavailableError(f"{doing}: the event log is unavailable ({error})") from None
    except ValueError as error:
        # gRPC raises ValueError if close() or a reconnect closes the channel during a call.
        raise UnavailableError(f"{doing}: the connection was closed ({error})") from None


def sentence(error: BaseException) -> str:
    """Return the message of an exception in one line."""
    cause = error.args[0] if error.args else None
    details = getattr(cause, "details", None)
    text = details() if callable(details) else str(error)
    return str(text or type(error).__name__).strip().splitlines()[0]


def status_of(error: driver.EventStoreDBClientException) -> grpc.StatusCode | None:
    """Return the gRPC status of an exception, or None if it has none."""
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
    """Return the error of kt-es for an exception of the client library.

    The mapping is based on recordings of real failures.
    """
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
    # All other exceptions are temporary: ServiceUnavailable, deadlines, changes of leader, and the base
    # class, which is raised for a server that has just started.
    cause = sentence(error)
    return unreached(f"{doing}: the event log is unavailable ({cause})", cause, is_plain=is_plain)


def unreached(text: str, cause: str, *, is_plain: bool = False) -> UnavailableError:
    """Return an ``UnavailableError`` with ``text``, or a ``MisfitError`` with a hint if waiting cannot help.

    The words of gRPC in ``cause`` decide. If they say only that the connection was closed, the function
    connects to the server to find out whether it speaks TLS.
    """
    if any(word in cause for word in TLS_FAILURES):
        return TlsError(f"{text}; {_tls_hint(cause)}")
    if "Failed parsing HTTP/2" in cause or "http1.x" in cause:
        return MisfitError(
            f"{text}; what answers there is not an event log: check host and port of the connection string"
        )
    # With TLS this check would prove nothing: a server may also close connections while it starts or stops.
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


class _Recordings(Protocol):
    """The methods of the library's subscriptions that this module uses."""

    def __next__(self) -> driver.RecordedEvent: ...

    def __iter__(self) -> Iterator[driver.RecordedEvent]: ...

    def stop(self) -> None: ...


class _Acknowledged(_Recordings, Protocol):
    def ack(self, item: UUID) -> None: ...


class EsdbSubscription:
    """``Subscription`` over a subscription of the client library. Errors are translated."""

    def __init__(self, subscription: _Recordings, stream: str) -> None:
        self._stream = stream
        self._subscription = subscription
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                recorded = calling(
                    "read a subscription", lambda: next(self._subscription, None), READ, self._stream
                )
            except UnavailableError:
                if self._stopped.is_set():
                    return
                raise
            if recorded is None:
                return
            yield read_event(recorded)

    def stop(self) -> None:
        self._stopped.set()
        self._subscription.stop()


class EsdbGroup(EsdbSubscription):
    """``GroupSubscription`` over a persistent subscription of the client library."""

    def __init__(self, subscription: _Acknowledged, stream: str) -> None:
        super().__init__(subscription, stream)
        self._group = subscription

    def ack(self, event: Event) -> None:
        ack_id = event.ack_id
        if ack_id is not None:
            calling("acknowledge", lambda: self._group.ack(ack_id))


def read_event(recorded: driver.RecordedEvent) -> Event:
    """Convert an event of the client library."""
    return Event(
        recorded.stream_name,
        recorded.stream_position,
        recorded.type,
        recorded.data,
        recorded.id,
        recorded.commit_position,
        recorded.ack_id,
    )
