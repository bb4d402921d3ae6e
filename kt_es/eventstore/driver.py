"""The client library of the event log: everything that kt-es uses of it, under one set of names.

Two libraries by the same author implement the protocol with the same calls. ``esdbclient`` is used if it is
installed, otherwise its successor ``kurrentdbclient``; ``esdbclient`` has no wheels for Python 3.14 and
later. Only this module imports the libraries. It exports the names of esdbclient; the successor has the same
classes, some of them under other names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING or find_spec("esdbclient") is not None:
    from esdbclient import (
        AsyncEventStoreDBClient,
        EventStoreDBClient,
        NewEvent,
        RecordedEvent,
        StreamState,
    )
    from esdbclient import client as client_module
    from esdbclient.client import autoreconnect, retrygrpc
    from esdbclient.common import handle_rpc_error
    from esdbclient.connection import ESDBConnection as Connection
    from esdbclient.connection_spec import ConnectionSpec
    from esdbclient.exceptions import (
        AccessDeniedError,
        AlreadyExists,
        AppendDeadlineExceeded,
        BadRequestError,
        CancelledByClient,
        DiscoveryFailed,
        EventStoreDBClientException,
        ExceptionThrownByHandler,
        FailedPrecondition,
        FollowerNotFound,
        GrpcDeadlineExceeded,
        GrpcError,
        LeaderNotFound,
        MaximumAppendSizeExceededError,
        MaximumSubscriptionsReached,
        NodeIsNotLeader,
        NotFound,
        ReadOnlyReplicaNotFound,
        ServiceUnavailable,
        StreamIsDeleted,
        WrongCurrentVersion,
    )
    from esdbclient.protos.Grpc import (
        gossip_pb2,
        gossip_pb2_grpc,
        shared_pb2,
        streams_pb2,
    )

    LIBRARY = "esdbclient"
    # The exceptions that some calls of the library raise if the server denies access or refuses an argument.
    # Other calls of the same library raise a ``GrpcError`` with the status.
    DENIALS: tuple[type[Exception], ...] = (AccessDeniedError,)
    UNAUTHENTICATED: tuple[type[Exception], ...] = ()
    INVALID: tuple[type[Exception], ...] = ()
else:
    from kurrentdbclient import AsyncKurrentDBClient as AsyncEventStoreDBClient
    from kurrentdbclient import KurrentDBClient as EventStoreDBClient
    from kurrentdbclient import NewEvent, RecordedEvent, StreamState
    from kurrentdbclient import client as client_module
    from kurrentdbclient.client import autoreconnect, retrygrpc
    from kurrentdbclient.common import handle_rpc_error
    from kurrentdbclient.connection import KurrentDBConnection as Connection
    from kurrentdbclient.connection_spec import ConnectionSpec
    from kurrentdbclient.exceptions import (
        AccessDeniedError,
        BadRequestError,
        GrpcError,
        InvalidArgumentError,
        MaximumAppendSizeExceededError,
        UnauthenticatedError,
    )
    from kurrentdbclient.exceptions import AlreadyExistsError as AlreadyExists
    from kurrentdbclient.exceptions import AppendDeadlineExceededError as AppendDeadlineExceeded
    from kurrentdbclient.exceptions import CancelledByClientError as CancelledByClient
    from kurrentdbclient.exceptions import DiscoveryFailedError as DiscoveryFailed
    from kurrentdbclient.exceptions import ExceptionThrownByHandlerError as ExceptionThrownByHandler
    from kurrentdbclient.exceptions import FailedPreconditionError as FailedPrecondition
    from kurrentdbclient.exceptions import FollowerNotFoundError as FollowerNotFound
    from kurrentdbclient.exceptions import GrpcDeadlineExceededError as GrpcDeadlineExceeded
    from kurrentdbclient.exceptions import KurrentDBClientError as EventStoreDBClientException
    from kurrentdbclient.exceptions import LeaderNotFoundError as LeaderNotFound
    from kurrentdbclient.exceptions import MaximumSubscriptionsReachedError as MaximumSubscriptionsReached
    from kurrentdbclient.exceptions import NodeIsNotLeaderError as NodeIsNotLeader
    from kurrentdbclient.exceptions import NotFoundError as NotFound
    from kurrentdbclient.exceptions import ReadOnlyReplicaNotFoundError as ReadOnlyReplicaNotFound
    from kurrentdbclient.exceptions import ServiceUnavailableError as ServiceUnavailable
    from kurrentdbclient.exceptions import StreamIsDeletedError as StreamIsDeleted
    from kurrentdbclient.exceptions import WrongCurrentVersionError as WrongCurrentVersion
    from kurrentdbclient.protos.v1 import (
        gossip_pb2,
        gossip_pb2_grpc,
        shared_pb2,
        streams_pb2,
    )

    LIBRARY = "kurrentdbclient"
    DENIALS = (AccessDeniedError,)
    UNAUTHENTICATED = (UnauthenticatedError,)
    INVALID = (InvalidArgumentError,)

# The exceptions of the library, with their names in this module.
_NAMES = {
    kind: name
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, Exception)
}

__all__ = [
    "DENIALS",
    "INVALID",
    "LIBRARY",
    "UNAUTHENTICATED",
    "AccessDeniedError",
    "AlreadyExists",
    "AppendDeadlineExceeded",
    "AsyncEventStoreDBClient",
    "BadRequestError",
    "CancelledByClient",
    "Connection",
    "ConnectionSpec",
    "DiscoveryFailed",
    "EventStoreDBClient",
    "EventStoreDBClientException",
    "ExceptionThrownByHandler",
    "FailedPrecondition",
    "FollowerNotFound",
    "GrpcDeadlineExceeded",
    "GrpcError",
    "LeaderNotFound",
    "MaximumAppendSizeExceededError",
    "MaximumSubscriptionsReached",
    "NewEvent",
    "NodeIsNotLeader",
    "NotFound",
    "ReadOnlyReplicaNotFound",
    "RecordedEvent",
    "ServiceUnavailable",
    "StreamIsDeleted",
    "StreamState",
    "WrongCurrentVersion",
    "autoreconnect",
    "batch_append",
    "batch_outcome",
    "batch_request",
    "client_module",
    "gossip_pb2",
    "gossip_pb2_grpc",
    "handle_rpc_error",
    "is_appended",
    "name_of",
    "node_preference",
    "retrygrpc",
    "shared_pb2",
    "speaks_tls",
    "streams_pb2",
]


def node_preference(spec: ConnectionSpec) -> str:
    """Return the kind of member that the connection string prefers. The default is ``leader``."""
    options: Any = spec.options
    return str(options.NodePreference if LIBRARY == "esdbclient" else options.node_preference)


def speaks_tls(spec: ConnectionSpec) -> bool:
    """Return whether the connection string asks for TLS."""
    options: Any = spec.options
    return bool(options.Tls if LIBRARY == "esdbclient" else options.tls)


def batch_request(
    stream: str, version: int | StreamState, events: Iterable[NewEvent], correlation: UUID, deadline: float
) -> Any:
    """Return the message that appends ``events`` in a call of ``batch_append``.

    ``deadline`` is in seconds.
    """
    return _streams_service()._construct_batch_append_req(stream, version, events, correlation, deadline)


def batch_append(client: EventStoreDBClient, requests: Iterator[streams_pb2.BatchAppendReq]) -> Any:
    """Begin a call of ``BatchAppend`` that lasts until ``requests`` end; return the iterator of its answers.

    The libraries have this call for one request alone.
    """
    inner: Any = client
    streams = inner.streams
    return streams._stub.BatchAppend(
        requests,
        metadata=streams._metadata(inner._call_metadata, requires_leader=True),
        credentials=inner._call_credentials,
    )


def is_appended(answer: streams_pb2.BatchAppendResp) -> bool:
    """Return whether the append of ``answer`` was made."""
    return bool(answer.WhichOneof("result") == "success")


def batch_outcome(answer: streams_pb2.BatchAppendResp, stream: str, version: int | StreamState) -> None:
    """Return if the append of ``answer`` was made. Otherwise raise the exception of the library."""
    _streams_service()._convert_batch_append_resp(answer, stream, version)


@cache
def _streams_service() -> Any:
    module = import_module(f"{LIBRARY}.streams")
    return module.StreamsService


def name_of(error: BaseException) -> str:
    """Return the esdbclient name of an exception of either library.

    For a class without a name in this module, the result is the name of its nearest base class that has one.
    """
    return next((_NAMES[kind] for kind in type(error).__mro__ if kind in _NAMES), type(error).__name__)
