"""Requests made from the OpenAPI document: valid ones, and ones with a single fault that has a name.

Bodies are written member by member as text, so that what a JSON library cannot write can be said, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.reference.request_values import numbers_or_words, values_of, wrong_texts, wrong_words
from tools import openapi

JSON = "application/json"
Members = dict[str, str]
"""JSON texts by name."""


@dataclass(frozen=True)
class Asked:
    """A request as it is sent; ``fault`` says what is wrong with it, nothing if it is valid."""

    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    media: tuple[str, ...] = ()
    fault: str = ""

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(openapi.FILE.read_text())
    return made


@dataclass(frozen=True)
class Operation:
    """One operation of the document. ``known`` are valid members that the document cannot describe."""

    document: Mapping[str, Any]
    path: str
    method: str
    known: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def described(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document["paths"][self.path][self.method.lower()]
        return found

    @property
    def parameters(self) -> list[Mapping[str, Any]]:
        return list(self.described.get("parameters", ()))

    @property
    def body(self) -> Mapping[str, Any] | None:
        if "requestBody" not in self.described:
            return None
        schema: Mapping[str, Any] = self._inlined(self.described["requestBody"]["content"][JSON]["schema"])
        return schema

    def _inlined(self, schema: Any) -> Any:
        """``schema`` with what it refers to in place of the references."""
        match schema:
            case {"$ref": _}:
                return self._inlined(self._resolved(schema))
            case dict():
                return {name: self._inlined(value) for name, value in schema.items()}
            case list():
                return [self._inlined(value) for value in schema]
        return schema

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Any = schema
        while "$ref" in found:
            found = self.document["components"]["schemas"][found["$ref"].rpartition("/")[2]]
        return dict(found)

    def valid(self) -> st.SearchStrategy[Asked]:
        return st.builds(self.written, self._parameters(), self._members(), self._optional())

    def invalid(self) -> st.SearchStrategy[Asked]:
        faults = [self._wrong_query()]
        faults += [self._wrong_parameter()] if self.parameters else []
        if self.body is not None:
            faults += [self._wrong_member(), self._wrong_members(), self._wrong_body(), self._wrong_media()]
        return st.one_of(faults)

    def written(
        self, parameters: Mapping[str, str], members: Members, leave_out: frozenset[str], fault: str = ""
    ) -> Asked:
        path, query = self.path, []
        for parameter in self.parameters:
            name = parameter["name"]
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", parameters[name])
            elif name in parameters and (parameter["required"] or name not in leave_out):
                query.append(f"{name}={parameters[name]}")
        body = None
        if self.body is not None:
            required = self.body.get("required", ())
            shown = {
                name: text for name, text in members.items() if name in required or name not in leave_out
            }
            body = object_of(shown)
        return Asked(self.method, path, "&".join(query), body, (JSON,) if body is not None else (), fault)

    # What is valid.

    def _parameters(self) -> st.SearchStrategy[dict[str, str]]:
        values = {each["name"]: numbers_or_words(each["schema"]) for each in self.parameters}
        return st.fixed_dictionaries(values).map(_in_order)

    def _members(self) -> st.SearchStrategy[Members]:
        if self.body is None:
            return st.just({})
        values = {name: values_of(schema) for name, schema in self.body["properties"].items()}
        made = st.fixed_dictionaries(values)
        if self.known:
            made = st.builds(lambda free, known: {**free, **known}, made, st.sampled_from(self.known))
        return made.map(_in_order).map(lambda found: {name: json.dumps(found[name]) for name in found})

    def _optional(self) -> st.SearchStrategy[frozenset[str]]:
        names = [each["name"] for each in self.parameters] + list((self.body or {}).get("properties", ()))
        return st.frozensets(st.sampled_from(names)) if names else st.just(frozenset())

    # What is wrong with one.

    def _base(self) -> st.SearchStrategy[tuple[dict[str, str], Members]]:
        return st.tuples(self._parameters(), self._members())

    def _wrong_parameter(self) -> st.SearchStrategy[Asked]:
        @st.composite
        def made(draw: st.DrawFn) -> Asked:
            parameters, members = draw(self._base())
            parameter = draw(st.sampled_from(self.parameters))
            name = parameter["name"]
            wrong = draw(st.sampled_from(wrong_words(parameter["schema"], in_path=parameter["in"] == "path")))
            asked = self.written({**parameters, name: wrong}, members, frozenset(), f"{name}={wrong}")
            if parameter["in"] == "query" and draw(st.booleans()):
                right = self.written(parameters, members, frozenset())
                again = f"{right.query}&{_escaped(name) if draw(st.booleans()) else name}={parameters[name]}"
                return replace(right, query=again, fault=f"{name} stands there twice")
            if parameter["required"] and parameter["in"] == "query" and draw(st.booleans()):
                left = {key: value for key, value in parameters.items() if key != name}
                return self.written(left, members, frozenset(), f"{name} is missing")
            return asked

        return made()

    def _wrong_query(self) -> st.SearchStrategy[Asked]:
        @st.composite
        def made(draw: st.DrawFn) -> Asked:
            asked = self.written(*draw(self._base()), frozenset())
            more = draw(
                st.sampled_from(["x=1", "x", "=1", "%zz=1", "%ff=1", "Since=1", "label=a@example.org"])
            )
            return replace(
                asked, query=f"{asked.query}&{more}".lstrip("&"), fault=f"unknown parameter {more}"
            )

        return made()

    def _wrong_member(self) -> st.SearchStrategy[Asked]:
        @st.composite
        def made(draw: st.DrawFn) -> Asked:
            assert self.body is not None
            parameters, members = draw(self._base())
            name = draw(st.sampled_from(sorted(self.body["properties"])))
            wrong = draw(st.sampled_from(wrong_texts(self.body["properties"][name])))
            return self.written(parameters, {**members, name: wrong}, frozenset(), f"{name}: {wrong[:60]}")

        return made()

    def wrong_members(self) -> Iterator[Asked]:
        """Each wrong text of each member, in requests that are right apart from that."""
        assert self.body is not None
        for known in self.known:
            members = {name: json.dumps(value) for name, value in known.items()}
            for name, schema in self.body["properties"].items():
                for wrong in wrong_texts(schema):
                    changed = {**members, name: wrong}
                    yield self.written({}, changed, frozenset(self.body["properties"]) - changed.keys(), name)

    def _wrong_members(self) -> st.SearchStrategy[Asked]:
        @st.composite
        def made(draw: st.DrawFn) -> Asked:
            assert self.body is not None
            parameters, members = draw(self._base())
            asked = self.written(parameters, members, frozenset())
            name = draw(st.sampled_from(sorted(members)))
            pairs = [f"{json.dumps(each)}: {text}" for each, text in members.items()]
            match draw(st.sampled_from(["twice", "twice, escaped", "unknown", "missing"])):
                case "twice":
                    pairs.append(f"{json.dumps(name)}: {members[name]}")
                case "twice, escaped":
                    pairs.append(f'"\\u{ord(name[0]):04x}{name[1:]}": {members[name]}')
                case "unknown":
                    name = draw(st.text(max_size=20).filter(lambda text: text not in members))
                    pairs.append(f"{json.dumps(name)}: 1")
                case _:
                    name = draw(st.sampled_from(sorted(self.body["required"])))
                    pairs = [f"{json.dumps(each)}: {text}" for each, text in members.items() if each != name]
            body = f"{{{', '.join(pairs)}}}".encode()
            return replace(asked, body=body, fault=f"members: {name!r}")

        return made()

    def _wrong_body(self) -> st.SearchStrategy[Asked]:
        @st.composite
        def made(draw: st.DrawFn) -> Asked:
            asked = self.written(*draw(self._base()), frozenset())
            body = asked.body or b""
            wrong = {
                "empty": b"",
                "null": b"null",
                "an array": b"[" + body + b"]",
                "a string": json.dumps(body.decode()).encode(),
                "cut": body[: draw(st.integers(0, len(body) - 1))],
                "something behind": body + draw(st.sampled_from([b",", b"{}", b"\0", b"x"])),
                "with a mark": b"\xef\xbb\xbf" + body,
                "UTF-16": body.decode().encode("utf-16"),
                "no UTF-8": body[:-1] + b', "x": "\xff"}',
                "single quotes": body.replace(b'"', b"'"),
                "a comma at the end": body[:-1] + b",}",
                "a comment": b"/**/" + body,
                "deep": b"[" * 5000,
                "any bytes": draw(st.binary(max_size=50)),
            }
            fault = draw(st.sampled_from(sorted(wrong)))
            return replace(asked, body=wrong[fault], fault=fault)

        return made()

    def _wrong_media(self) -> st.SearchStrategy[Asked]:
        media = [
            (), ("",), ("text/plain",), ("text/json",), ("application/jsonx",), ("x/json",), (JSON, JSON),
            ("application/problem+json",), (f"{JSON}; charset=utf-16",), (f"{JSON}, {JSON}",), ("json",),
        ]  # fmt: skip

        def made(base: tuple[dict[str, str], Members], wrong: tuple[str, ...]) -> Asked:
            return replace(self.written(*base, frozenset()), media=wrong, fault=f"content type {wrong}")

        return st.builds(made, self._base(), st.sampled_from(media))

    # What is answered.

    def problem_with(self, status: int, media: str, headers: Mapping[str, str], body: bytes) -> str:
        """What the document does not allow in an answer; nothing if it is one of those that it declares."""
        declared = self.described["responses"].get(str(status))
        if declared is None:
            return f"status {status} is not declared"
        if media.partition(";")[0] not in declared["content"]:
            return f"content type {media!r} is not declared for {status}"
        for name, header in declared.get("headers", {}).items():
            value = headers.get(name.lower(), "")
            if not (value.isdigit() and int(value) >= header["schema"]["minimum"]):
                return f"{name} is {value!r}"
        schema = declared["content"][media.partition(";")[0]]["schema"]
        if schema == {"type": "string"}:
            return ""
        try:
            answer = json.loads(body, object_pairs_hook=_once, parse_constant=_refused, parse_float=_refused)
        except ValueError as error:
            return f"the body is not strict JSON: {error}"
        errors = validator(self.document, schema).iter_errors(answer)
        return "; ".join(error.message for error in errors)


def operations(known: Mapping[str, tuple[Mapping[str, Any], ...]]) -> list[Operation]:
    """All of the document; ``known`` by path."""
    made = document()
    return [
        Operation(made, path, method.upper(), known.get(path, ()))
        for path, described in made["paths"].items()
        for method in described
    ]


def validator(described: Mapping[str, Any], schema: Mapping[str, Any]) -> Draft202012Validator:
    """Of a schema of the document, in which no object has members that are not named."""
    closed = {
        name: {"additionalProperties": False, **model} if model.get("type") == "object" else model
        for name, model in described["components"]["schemas"].items()
    }
    return Draft202012Validator({**schema, "components": {"schemas": closed}})


def object_of(members: Members) -> bytes:
    return f"{{{', '.join(f'{json.dumps(name)}: {text}' for name, text in members.items())}}}".encode()


def _in_order(found: dict[str, Any]) -> dict[str, Any]:
    """What the document cannot say: a range begins before its end, and is short."""
    for low, high in (("first", "last"), ("from", "to")):
        if low in found and int(found[low]) > int(found[high]):
            found = {**found, low: found[high], high: found[low]}
    if "first" in found:
        found = {**found, "last": min(found["last"], found["first"] + 255)}
    return found


def _escaped(name: str) -> str:
    return f"%{ord(name[0]):02x}{name[1:]}"


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) < len(members):
        raise ValueError("a member stands there twice")
    return dict(members)


def _refused(text: str) -> None:
    raise ValueError(f"{text} is no integer")
