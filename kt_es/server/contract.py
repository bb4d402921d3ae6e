"""The contract of ``kt_es.api`` for the web framework: validation of requests, and the OpenAPI document.

Pydantic validates requests and describes requests and answers. Its models are made here from those of
``kt_es.api``. Answers are encoded by ``kt_es.api.codec``, without pydantic.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from fastapi import FastAPI, Query, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from kt_es.api.models import MAX_UINT, AtMost, Bounds, ProblemBody, Text
from kt_es.api.operations import OPERATIONS, PROBLEM_MEDIA, REPEATABLE, Operation, ProblemReason
from kt_es.errors import MalformedError, RefusedError
from kt_es.formats.notes import decode_base64

_T = TypeVar("_T")
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])

_BASE64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before the request is repeated",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}


def _check_decimal(value: object) -> object:
    """Refuse a number in an address that is not in its one form. Pydantic would accept it."""
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise PydanticCustomError("int_parsing", "must be a decimal number without sign and leading zeros")
    return value


_Decimal = BeforeValidator(_check_decimal)
Size = Annotated[int, Field(ge=0, le=MAX_UINT), _Decimal]
Epoch = Annotated[int, Field(ge=1, le=MAX_UINT), _Decimal]
Since = Annotated[Size | None, Query()]
"""The size of the log of map heads that the client trusts."""


def pydantic_type(hint: Any) -> Any:
    """Return the type with which pydantic validates and describes ``hint`` of ``kt_es.api.models``."""
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        base, mark = arguments
        field = _field(base, mark)
        return pydantic_type(base) if field is None else Annotated[pydantic_type(base), field]
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(pydantic_type(argument) for argument in arguments)]  # noqa: UP007
    if get_origin(hint) is tuple:
        return list[pydantic_type(arguments[0])]  # type: ignore[misc]
    if hint is bytes:
        return _BASE64
    return _model(hint) if dataclasses.is_dataclass(hint) else hint  # type: ignore[arg-type]


def _field(base: type, mark: object) -> Any:
    match mark:
        case Bounds(low, high) if base is float:
            return Field(ge=low, le=high, allow_inf_nan=False)
        case Bounds(low, high):
            return Field(ge=low, le=high)
        case Text(max_length, example):
            return Field(max_length=max_length, examples=[example])
        case AtMost():
            return None
    raise TypeError(f"{mark!r} has no meaning for pydantic")


@functools.cache
def _model(kind: Any, *, is_request: bool = False) -> type[BaseModel]:
    hints = get_type_hints(kind, include_extras=True)
    members = {
        member.name: (
            pydantic_type(hints[member.name]),
            ... if member.default is dataclasses.MISSING else member.default,
        )
        for member in dataclasses.fields(kind)
    }
    config = ConfigDict(extra="forbid", strict=True) if is_request else None
    # A dataclass without a docstring has its signature in place of one.
    description = None if kind.__doc__.startswith(f"{kind.__name__}(") else kind.__doc__
    model: type[BaseModel] = create_model(  # type: ignore[call-overload]
        kind.__name__, __config__=config, __doc__=description, **members
    )
    return model


def read_request(kind: type[_T], body: BaseModel) -> _T:
    """Return the request of type ``kind`` that was validated as ``body``.

    Raises:
        RefusedError: A member is not base64 in its one form. The reason is ``malformed``.
    """
    members = dict(body)
    for name in _binary_members(kind):  # type: ignore[arg-type]
        try:
            members[name] = decode_base64(members[name], name)
        except MalformedError:
            raise RefusedError(ProblemReason.MALFORMED, "is not base64 with padding", name) from None
    return kind(**members)


@functools.cache
def _binary_members(kind: type) -> frozenset[str]:
    return frozenset(name for name, hint in get_type_hints(kind).items() if hint is bytes)


def route(app: FastAPI, operation: Operation) -> Callable[[_Endpoint], _Endpoint]:
    """Decorate the endpoint that answers ``operation``; its parameter ``body`` gets the validated request."""

    def add(endpoint: _Endpoint) -> _Endpoint:
        if operation.request is not None:
            endpoint.__annotations__["body"] = _model(operation.request, is_request=True)
        options: dict[str, Any] = {"response_class": Response} if isinstance(operation.answers, str) else {}
        app.add_api_route(
            operation.path, endpoint, methods=[operation.method], responses=_responses(operation), **options
        )
        return endpoint

    return add


def _responses(operation: Operation) -> dict[int | str, dict[str, Any]]:
    """Return the answers and the problems of an operation, for the OpenAPI document."""
    found: dict[int | str, dict[str, Any]] = {}
    if isinstance(operation.answers, str):
        content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
        found[200] = {"description": operation.answers, "content": content}
    else:
        found |= {status: {"model": _model(kind)} for status, kind in operation.answers.items()}
    content = {PROBLEM_MEDIA: {"schema": {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}}}
    for status, description in operation.problems.items():
        headers = {"headers": _RETRY_AFTER} if status in REPEATABLE else {}
        found[status] = {"description": description, "content": content, **headers}
    return found


def complete_document(app: FastAPI) -> None:
    """Replace the framework's own problems and models in the OpenAPI document of ``app``."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    # From pydantic itself, because the framework makes bounds floats, and no float is 2**63 - 1.
    schemas = document["components"]["schemas"] = {}
    for model in models().values():
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema


def models() -> dict[str, type[BaseModel]]:
    """Return the pydantic model of every request and answer by name."""
    requests = [_model(operation.request, is_request=True) for operation in OPERATIONS if operation.request]
    kinds = [
        kind
        for operation in OPERATIONS
        if isinstance(operation.answers, Mapping)
        for kind in operation.answers.values()
    ]
    return {model.__name__: model for model in (*requests, *map(_model, (*kinds, ProblemBody)))}
