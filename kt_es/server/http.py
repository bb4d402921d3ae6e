"""HTTP/JSON over the handlers: the operations of ``kt_es.api``, and problem documents for errors.

Labels travel in bodies, never in URLs, because URLs get logged on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kt_es.api.operations import Operation
from kt_es.errors import KtError
from kt_es.server.asgi import ASGIApp, Scope
from kt_es.server.contract import parameter_names, read_parameters, read_request
from kt_es.server.endpoints.answering import Answering
from kt_es.server.endpoints.common import Endpoint, Endpoints, Frontend, problem_for
from kt_es.server.endpoints.cosigning import CosigningEndpoints
from kt_es.server.endpoints.following import FollowingEndpoints
from kt_es.server.endpoints.operating import LENIENT, OperatingEndpoints
from kt_es.server.endpoints.reading import ReadingEndpoints
from kt_es.server.endpoints.registering import RegisteringEndpoints
from kt_es.server.endpoints.submitting import SubmittingEndpoints
from kt_es.server.endpoints.tiles import TileEndpoints
from kt_es.server.guard import Guard, check_media, read_body, read_query
from kt_es.server.limits import route_of
from kt_es.server.responses import Answer, http_problem
from kt_es.server.streams import EventStream


def create_app(frontend: Frontend) -> ASGIApp:
    answering = Answering(frontend)
    endpoints = [
        *ReadingEndpoints(answering).by_operation(),
        *FollowingEndpoints(frontend).by_operation(),
        *SubmittingEndpoints(answering).by_operation(),
        *RegisteringEndpoints(frontend).by_operation(),
        *TileEndpoints(frontend).by_operation(),
        *CosigningEndpoints(answering, frontend).by_operation(),
        *OperatingEndpoints(frontend).by_operation(),
    ]
    router = _Router(endpoints, frontend)
    return Guard(router.answer, frontend.slots, frontend.metrics.requests, frontend.metrics.refused)


class _Router:
    """Finds the operation of a request, and reads what it asks for."""

    def __init__(self, endpoints: Endpoints, frontend: Frontend) -> None:
        self._frontend = frontend
        self._exact = {operation.path: (operation, endpoint) for operation, endpoint in endpoints}
        self._patterns = [
            (re.compile(re.sub(r"{(\w+)}", _part, operation.path)), (operation, endpoint))
            for operation, endpoint in endpoints
            if "{" in operation.path
        ]

    async def answer(self, scope: Scope, body: bytes) -> Answer | EventStream:
        found, named = self._found(scope["path"])
        if found is None:
            return http_problem(404).answer
        operation, endpoint = found
        scope["route"] = operation
        if scope["method"] != operation.method:
            return http_problem(405, allow=operation.method).answer
        try:
            return await endpoint(_asked(operation, scope, named, body), scope)
        except KtError as error:
            return problem_for(self._frontend, error).answer

    def _found(self, path: str) -> tuple[tuple[Operation, Endpoint] | None, Mapping[str, str]]:
        if path in self._exact:
            return self._exact[path], {}
        for pattern, found in self._patterns:
            if (named := pattern.fullmatch(path)) is not None:
                return found, named.groupdict()
        return None, {}


def _part(name: re.Match[str]) -> str:
    """Return the pattern of a parameter in a path. A tile is the whole rest of its path."""
    return f"(?P<{name[1]}>{'.+' if name[1] == 'tile' else '[^/]+'})"


def _asked(operation: Operation, scope: Scope, named: Mapping[str, str], body: bytes) -> object:
    """Read the body or the parameters of a request, None for an operation that has neither.

    Raises ``RefusedError`` and ``AmbiguousError``.
    """
    names = [name for name in parameter_names(operation.parameters) if f"{{{name}}}" not in operation.path]
    if operation.request is not None:
        check_media(scope["headers"])
    route = route_of(operation.path)
    value = read_body(body, route.members, route.levels) if operation.request is not None else None
    given = read_query(scope["query_string"], None if operation in LENIENT else names)
    if operation.request is not None:
        return read_request(operation.request, value)
    return None if operation.parameters is None else read_parameters(operation.parameters, {**given, **named})
