"""What a request may have beside its members: parameters of its operation, and the type of its body."""

from __future__ import annotations

from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.routing import APIRoute

from kt_es.errors import RefusedError

# Monitoring tools add parameters of their own, and nothing of the answer depends on any.
LENIENT = ("/healthz", "/metrics", "/readyz")


class UnsupportedMediaError(Exception):
    """The body is not said to be JSON in UTF-8."""


def check_request(request: Request) -> None:
    """Raise ``RefusedError`` for a parameter that the operation does not have.

    ``UnsupportedMediaError`` for a body of another type.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or route.path in LENIENT:
        return
    if route.body_field is not None:
        check_media(request)
    known = sorted(parameter.alias for parameter in route.dependant.query_params)
    given = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if any(name not in known for name, _ in given):
        # What was given is not repeated: it may be a label.
        only = "no parameters" if not known else f"only the parameters {', '.join(known)}"
        raise RefusedError("malformed", f"this address takes {only}")


def check_media(request: Request) -> None:
    """Raise ``UnsupportedMediaError`` unless there is one content type, which is that of JSON in UTF-8."""
    values = request.headers.getlist("content-type")
    media, _, parameters = values[0].partition(";") if len(values) == 1 else ("", "", "")
    charset = parameters.strip().lower().replace('"', "")
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise UnsupportedMediaError
    # Nothing here undoes a coding: to somebody who does, the body is another one.
    if any(value.strip().lower() != "identity" for value in request.headers.getlist("content-encoding")):
        raise UnsupportedMediaError
