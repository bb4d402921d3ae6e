"""What the OpenAPI document says of the answers: every status that an operation may have, with its body."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from kt_es.server import schemas
from kt_es.server.problems import MEDIA_TYPE

Responses = dict[int | str, dict[str, Any]]

# Of every operation: what its request's bytes, its client's share or a failure of ours bring about.
_ANYWHERE = {
    400: "The request is malformed; `field` says where",
    408: "The request did not arrive in time",
    413: "The body is too large",
    429: "This client asks too often",
    431: "The head of the request is too large",
    500: "The front end failed; its log says why",
    501: "The transfer coding is not chunked",
    503: "Not now; the same request may be sent again",
}
_WITH_BODY = {415: "The body is not said to be `application/json`"}
_OF_EPOCHS = {404: "There is no such epoch here yet"}
_OF_SUBMISSIONS = {
    403: "It is not signed by a key that may",
    409: "It conflicts with what the directory holds",
}
_RETRY = {
    "Retry-After": {
        "description": "Seconds to wait before the request is repeated",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}


def reading(model: type[BaseModel], *, has_body: bool = False, of_epochs: bool = False) -> Responses:
    """The answers of an operation that reads."""
    problems = {**_ANYWHERE, **(_WITH_BODY if has_body else {}), **(_OF_EPOCHS if of_epochs else {})}
    return {200: {"model": model}, **_problems(problems)}


def submitting(decided: type[BaseModel], queued: type[BaseModel]) -> Responses:
    """The answers of an operation that puts something into the queue."""
    problems = _problems({**_ANYWHERE, **_WITH_BODY, **_OF_SUBMISSIONS})
    return {200: {"model": decided}, 202: {"model": queued}, **problems}


def text(what: str) -> Responses:
    """The answers of an operation whose answer is text."""
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {200: {"description": what, "content": content}, **_problems(_ANYWHERE)}


def _problems(statuses: dict[int, str]) -> Responses:
    return {status: _problem(status, what) for status, what in sorted(statuses.items())}


def _problem(status: int, what: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{schemas.ProblemBody.__name__}"}
    headers = {"headers": _RETRY} if status in {429, 503} else {}
    return {"description": what, "content": {MEDIA_TYPE: {"schema": schema}}, **headers}


def describe(app: FastAPI) -> None:
    """Complete the document of ``app``: problems where the framework has its own ones."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    models = document["components"]["schemas"]
    for theirs in ("HTTPValidationError", "ValidationError"):
        models.pop(theirs, None)
    # From the models themselves: the framework makes bounds floats, and 2**63 - 1 is none.
    for name in [*models, schemas.ProblemBody.__name__]:
        model = getattr(schemas, name).model_json_schema(ref_template="#/components/schemas/{model}")
        models.update(model.pop("$defs", {}))
        models[name] = model
