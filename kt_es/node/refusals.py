"""Refusals, which are the gRPC status, text and trailers that tell clients of an error; and quotas.

Official clients look for trailers of these names: "exception", "stream-name" and so on. Every function of
``rpc`` that reads a request raises ``Refusal`` for a request that it cannot understand.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc

from kt_es.node.store.streams import Expected


class Refusal(Exception):  # noqa: N818  an answer, not a fault of the node
    """Ends a call with a status. The client gets ``code``, ``details`` and ``trailers``."""

    def __init__(self, code: grpc.StatusCode, details: str, **trailers: object) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailers = tuple((name.replace("_", "-"), str(value)) for name, value in trailers.items())


class Quota:
    """A limit over all calls together; a call beyond the limit raises ``refusal()``."""

    def __init__(self, limit: int, refusal: Callable[[], Refusal]) -> None:
        self.limit = limit
        self._refusal = refusal
        self._taken = 0

    def take(self, size: int = 1) -> None:
        if self._taken + size > self.limit:
            raise self._refusal()
        self._taken += size

    def give(self, size: int = 1) -> None:
        self._taken -= size


def invalid(problem: str) -> Refusal:
    """Return the request cannot be understood."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, problem)


def not_thought_of() -> Refusal:
    """Return the request makes no sense, in a way that EventStoreDB answers with an internal error."""
    return Refusal(grpc.StatusCode.UNKNOWN, "Exception was thrown by handler.")


def unauthenticated() -> Refusal:
    """Return the refusal of an unknown user or a wrong password. It does not reveal which."""
    return Refusal(grpc.StatusCode.UNAUTHENTICATED, "Unauthenticated")


def access_denied() -> Refusal:
    """Return the caller lacks the right."""
    return Refusal(grpc.StatusCode.PERMISSION_DENIED, "Access Denied", exception="access-denied")


def not_ready(reason: str = "Server Is Not Ready") -> Refusal:
    """Return the node is stopping, or its disk failed: the client may retry later."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, reason, exception="not-ready")


def wrong_version(stream: str, expected: int | Expected, current: int) -> Refusal:
    """Return a delete found its stream at another revision."""
    wanted = expected.value if isinstance(expected, Expected) else expected
    return Refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"Append failed due to WrongExpectedVersion. Stream: {stream}, "
        f"Expected version: {wanted}, Actual version: {current}",
        exception="wrong-expected-version",
        stream_name=stream,
        expected_version=wanted,
        actual_version=current,
    )


def stream_deleted(stream: str) -> Refusal:
    """Return the stream is tombstoned."""
    return Refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"Event stream '{stream}' is deleted.",
        exception="stream-deleted",
        stream_name=stream,
    )


def too_many_calls() -> Refusal:
    """Return the refusal of a call beyond the limit, in the words of gRPC.

    The limit of gRPC itself is not used, because it counts a refused call for too long.
    """
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")


def too_much_unfinished() -> Refusal:
    """Return the refusal of an append while incomplete appends use all memory that they may."""
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many appends are unfinished; try again later")


def append_too_large(limit: int) -> Refusal:
    """Return the refusal of an append with more than ``limit`` bytes, however many events it has."""
    return Refusal(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"Maximum Append Size of {limit} Exceeded.",
        exception="maximum-append-size-exceeded",
        maximum_append_size=limit,
    )


def too_many_groups(limit: int) -> Refusal:
    """Return the node has as many persistent subscriptions as its configuration allows."""
    return Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, f"Maximum of {limit} persistent subscriptions reached."
    )


def group_failed(stream: str, group: str, reason: str) -> Refusal:
    """Return a persistent subscription cannot work as requested."""
    return Refusal(
        grpc.StatusCode.INTERNAL,
        f"Subscription group {group} on stream {stream} failed: '{reason}'",
        exception="persistent-subscription-failed",
        stream_name=stream,
        group_name=group,
        reason=reason,
    )


def _about_group(code: grpc.StatusCode, text: str, kind: str) -> Callable[[str, str], Refusal]:
    """Return a refusal that names the stream and the group of a persistent subscription, in this order."""

    def refusal(stream: str, group: str) -> Refusal:
        details = text.format(stream=stream, group=group)
        return Refusal(code, details, exception=kind, stream_name=stream, group_name=group)

    return refusal


group_missing = _about_group(
    grpc.StatusCode.NOT_FOUND,
    "Subscription group {group} on stream {stream} does not exist.",
    "persistent-subscription-does-not-exist",
)
group_exists = _about_group(
    grpc.StatusCode.ALREADY_EXISTS,
    "Subscription group {group} on stream {stream} exists.",
    "persistent-subscription-exists",
)
# The persistent subscription admits no more consumers.
group_full = _about_group(
    grpc.StatusCode.FAILED_PRECONDITION,
    "Maximum subscriptions reached for subscription group {group} on stream {stream}.",
    "maximum-subscribers-reached",
)
# The persistent subscription was deleted, changed or stopped while it was read.
group_dropped = _about_group(
    grpc.StatusCode.CANCELLED,
    "Subscription group {group} on stream {stream} was dropped.",
    "persistent-subscription-dropped",
)
