"""The contract of ``kt_es.api`` at the front end: validation of requests, and the OpenAPI document.

Pydantic validates requests and describes requests and answers. Its models are made here from those of
``kt_es.api``. Answers are encoded by ``kt_es.api.codec``, without pydantic.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from kt_es import __version__
from kt_es.api.batches import Items, Malformed
from kt_es.api.models import NAME, AtMost, Bounds, ProblemBody, Text
from kt_es.api.operations import (
    JSON_MEDIA,
    OPERATIONS,
    PROBLEM_MEDIA,
    REPEATABLE,
    Operation,
    ProblemReason,
)
from kt_es.errors import MalformedError, RefusedError
from kt_es.formats.notes import decode_base64

_T = TypeVar("_T")

_BASE64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
_STRICT = ConfigDict(extra="forbid", strict=True)
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_PUNCTUATION = re.compile(r"[^a-z0-9]")
_DESCRIPTIONS = {200: "Successful Response", 202: "Accepted"}
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


def pydantic_type(hint: Any, *, is_request: bool = False) -> Any:
    """Return the type with which pydantic validates and describes ``hint`` of ``kt_es.api.models``."""
    made = functools.partial(pydantic_type, is_request=is_request)
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        base, mark = arguments
        field = _field(base, mark)
        return made(base) if field is None else Annotated[made(base), field]
    if get_origin(hint) in (Union, UnionType):
        # Nobody sends ``Malformed``: it is in place of what was sent.
        return Union[tuple(made(argument) for argument in arguments if argument is not Malformed)]  # noqa: UP007
    if get_origin(hint) is tuple:
        return list[made(arguments[0])]  # type: ignore[misc]
    if hint is bytes:
        return _BASE64
    return _model(hint, is_request=is_request) if dataclasses.is_dataclass(hint) else hint  # type: ignore[arg-type]


def _field(base: type, mark: object) -> Any:
    match mark:
        case Bounds(low, high) if base is float:
            return Field(ge=low, le=high, allow_inf_nan=False)
        case Bounds(low, high):
            return Field(ge=low, le=high)
        case Items(low, high):
            return Field(min_length=low, max_length=high)
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
            pydantic_type(hints[member.name], is_request=is_request),
            ... if member.default is dataclasses.MISSING else member.default,
        )
        for member in dataclasses.fields(kind)
    }
    return _made(kind, _STRICT if is_request else None, members)


@functools.cache
def _reading(kind: Any) -> type[BaseModel]:
    """Return the model that validates a request. Items that are validated one by one may be anything."""
    model, apart = _model(kind, is_request=True), _apart(kind)
    if not apart:
        return model
    loose = {
        name: (list[Any] if name in apart else field.annotation, field)
        for name, field in model.model_fields.items()
    }
    return _made(kind, _STRICT, loose)


@functools.cache
def _apart(kind: Any) -> Mapping[str, Any]:
    """Return the members whose items may be ``Malformed``, with the model of an item."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        (item, *_) = get_args(hint) or (None,)
        if get_origin(hint) is tuple and Malformed in get_args(item):
            (found[name],) = (one for one in get_args(item) if one is not Malformed)
    return found


@functools.cache
def _parameters(kind: Any) -> type[BaseModel]:
    """Return the model of the parameters in an address. They are texts, so numbers are converted."""
    hints = get_type_hints(kind, include_extras=True)
    members = {}
    for member in dataclasses.fields(kind):
        default = ... if member.default is dataclasses.MISSING else member.default
        hint = hints[member.name]
        kind_of_value: Any = pydantic_type(hint)
        if get_origin(hint) is not Literal and get_args(hint)[:1] != (str,):
            kind_of_value = Annotated[kind_of_value, BeforeValidator(_check_decimal)]
        members[member.name] = kind_of_value, Field(default, alias=member.metadata.get(NAME, member.name))
    return _made(kind, ConfigDict(extra="forbid"), members)


def _made(kind: Any, config: ConfigDict | None, members: Mapping[str, Any]) -> type[BaseModel]:
    # A dataclass without a docstring has its signature in place of one.
    description = None if kind.__doc__.startswith(f"{kind.__name__}(") else kind.__doc__
    model: type[BaseModel] = create_model(kind.__name__, __config__=config, __doc__=description, **members)
    return model


def read_request(kind: Callable[..., _T], body: object) -> _T:
    """Validate the JSON value ``body`` as a request of type ``kind``, and return it.

    In an array whose items may be ``Malformed``, each item is validated on its own.

    Raises:
        RefusedError: The reason is ``malformed``. The problem names the first wrong member.
    """
    members: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in _validated(_reading(kind), body)
    }
    for name, item in _apart(kind).items():
        members[name] = tuple(_item(item, value) for value in members[name])
    for name in _binary_members(kind):
        try:
            members[name] = decode_base64(members[name], name)
        except MalformedError:
            raise RefusedError(ProblemReason.MALFORMED, "is not base64 with padding", name) from None
    return kind(**members)


def _item(kind: Callable[..., _T], value: object) -> _T | Malformed:
    try:
        return read_request(kind, value)
    except RefusedError as error:
        return Malformed(error.problem, error.field)


def read_parameters(kind: Callable[..., _T], given: Mapping[str, str]) -> _T:
    """Return the parameters of type ``kind`` in an address. Raises what ``read_request`` raises."""
    return kind(**dict(_validated(_parameters(kind), given)))


@functools.cache
def parameter_names(kind: type | None) -> tuple[str, ...]:
    """Return the names of the parameters of type ``kind`` in an address, sorted."""
    if kind is None:
        return ()
    return tuple(sorted(str(member.metadata.get(NAME, member.name)) for member in dataclasses.fields(kind)))


def _validated(model: type[BaseModel], value: object) -> BaseModel:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # The problem names the first wrong member. It never repeats a value, which may be a label.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        names = [str(part)[:64] for part in first["loc"] if isinstance(part, str)]
        field = names[-1] if names else None
        raise RefusedError(ProblemReason.MALFORMED, str(first["msg"]), field) from None


@functools.cache
def _binary_members(kind: Any) -> frozenset[str]:
    return frozenset(name for name, hint in get_type_hints(kind).items() if hint is bytes)


def document() -> dict[str, Any]:
    """Return the OpenAPI document of all operations."""
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    schemas: dict[str, Any] = {}
    for model in models().values():
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kt-es front end",
            "summary": "Key transparency: submit mutations, look up labels with proofs",
            "version": __version__,
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _described(operation: Operation) -> dict[str, Any]:
    method = operation.method.lower()
    described: dict[str, Any] = {
        "summary": operation.name.replace("_", " ").title(),
        "description": operation.description,
        "operationId": "_".join([operation.name + _PUNCTUATION.sub("_", operation.path), method]),
        "responses": {str(status): response for status, response in _responses(operation).items()},
    }
    if operation.parameters is not None:
        described["parameters"] = _addressed(operation.path, _parameters(operation.parameters))
    if operation.request is not None:
        content = {JSON_MEDIA: {"schema": _reference(operation.request)}}
        described["requestBody"] = {"content": content, "required": True}
    return described


def _addressed(path: str, model: type[BaseModel]) -> list[dict[str, Any]]:
    """Describe the parameters of an address."""
    schema = model.model_json_schema()
    found = []
    for name, described in schema["properties"].items():
        described.pop("default", None)
        place = "path" if f"{{{name}}}" in path else "query"
        is_required = name in schema.get("required", ())
        found.append({"name": name, "in": place, "required": is_required, "schema": described})
    return found


def _responses(operation: Operation) -> dict[int, dict[str, Any]]:
    """Describe the answers and the problems of an operation."""
    found: dict[int, dict[str, Any]] = {}
    if isinstance(operation.answers, str):
        content: dict[str, Any] = {operation.media: {"schema": {"type": "string"}}}
        found[200] = {"description": operation.answers, "content": content}
    else:
        for status, kind in operation.answers.items():
            content = {JSON_MEDIA: {"schema": _reference(kind)}}
            found[status] = {"description": _DESCRIPTIONS[status], "content": content}
    content = {PROBLEM_MEDIA: {"schema": _reference(ProblemBody)}}
    for status, description in operation.problems.items():
        headers = {"headers": _RETRY_AFTER} if status in REPEATABLE else {}
        found[status] = {"description": description, "content": content, **headers}
    return found


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


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
