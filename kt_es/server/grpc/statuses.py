"""Problem documents as rich statuses: the same reasons, in the messages that other languages know.

The status is a ``google.rpc.Status`` in the trailers. Its details are ``ErrorInfo`` with the reason,
``BadRequest`` with the field, ``RetryInfo`` where HTTP has ``Retry-After``, and the verdict on a mutation.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped]
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc_status import rpc_status

from kt_es.server.grpc import messages
from kt_es.server.responses import Problem, without_streams

DOMAIN = "kt.v1"

CODES: Mapping[int, StatusCode] = {
    HTTPStatus.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.CONFLICT: StatusCode.FAILED_PRECONDITION,
    HTTPStatus.GONE: StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: StatusCode.UNAVAILABLE,
}
"""The code of a failure by its status in HTTP. Other statuses of HTTP are about HTTP itself."""


def status_of(problem: Problem) -> Any:
    """Return ``problem`` with its details as a ``grpc.Status``: code, sentence and trailers."""
    detail = without_streams(problem.detail)
    details = [ErrorInfo(reason=problem.reason, domain=DOMAIN)]
    if problem.field is not None:
        violation = BadRequest.FieldViolation(field=problem.field, description=detail)
        details.append(BadRequest(field_violations=[violation]))
    if (seconds := problem.wait) is not None:
        details.append(RetryInfo(retry_delay=Duration(seconds=seconds)))
    if "verdict" in problem.more:
        details.append(messages.failed_verdict(problem.more))
    code = CODES.get(problem.status, StatusCode.UNKNOWN)
    # Many programs show this sentence and no details, so it names the field.
    named = problem.field is None or detail.startswith(problem.field)
    sentence = detail if named else f"{problem.field}: {detail}"
    packed = []
    for item in details:
        packed.append(AnyMessage())
        packed[-1].Pack(item)
    return rpc_status.to_status(Status(code=code.value[0], message=sentence, details=packed))
