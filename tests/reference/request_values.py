"""Values of requests made from the schemas of the OpenAPI document: right ones, and wrong texts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st


def variants_of(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(schema.get("anyOf", [schema]))


def _integers(schema: Mapping[str, Any]) -> st.SearchStrategy[int]:
    low, high = schema["minimum"], schema["maximum"]
    return st.one_of(st.integers(low, low + 4), st.integers(low, high), st.just(high))


def values_of(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    def one(variant: Mapping[str, Any]) -> st.SearchStrategy[Any]:
        match variant["type"]:
            case "integer":
                return _integers(variant)
            case "number":
                return st.sampled_from([variant["minimum"], 0, 1e-3])
            case "boolean":
                return st.booleans()
            case "null":
                return st.none()
            case "array":
                # One: what items must not be together, the document cannot say.
                return values_of(variant["items"]).map(lambda item: [item])
            case "string" if variant.get("contentEncoding") == "base64":
                return st.binary(max_size=64).map(lambda data: base64.b64encode(data).decode())
            case "string":
                return st.sampled_from(variant["examples"])
            case "object":
                return st.fixed_dictionaries(
                    {name: values_of(member) for name, member in variant["properties"].items()}
                )
        raise AssertionError(variant)

    return st.one_of([one(variant) for variant in variants_of(schema)])


def numbers_or_words(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    def one(kind: Mapping[str, Any]) -> st.SearchStrategy[str]:
        words = kind.get("enum") or kind.get("examples")
        return st.sampled_from(words) if words else _integers(kind).map(str)

    return st.one_of([one(kind) for kind in variants_of(schema) if kind["type"] != "null"])


def wrong_words(schema: Mapping[str, Any], *, in_path: bool) -> list[str]:
    """Words of an address that are no value of ``schema``, escaped as they are sent."""
    words = ["%zz", "%", "%ff", "%00", "null", "1,2", quote("١"), "1%20", "-1"]
    words += [] if in_path else [""]
    for variant in variants_of(schema):
        if "enum" in variant:
            words += [variant["enum"][0].upper(), variant["enum"][0] + "%20", "1"]
        elif variant["type"] == "integer":
            words += ["1.0", "1e3", "true", "+1", "%2B1", "01", "1_0", "0x1", "9" * 100, "1%31x"]
            words += [str(variant["minimum"] - 1), str(variant["maximum"] + 1)]
    return words


def wrong_texts(schema: Mapping[str, Any]) -> list[str]:
    """JSON texts, and what is none, that are no value of ``schema``.

    An item of a batch that is wrong spoils no other one, so it is no fault of the request.
    """
    variants = variants_of(schema)
    if any(variant.get("items", {}).get("type") == "object" for variant in variants):
        (batch,) = variants
        long = json.dumps([{}] * (batch["maxItems"] + 1))
        texts = wrong_texts({**batch, "items": {"type": "null"}})
        return [text for text in texts if text == "[]" or not text.startswith("[")] + ["[{},]", "[", long]
    kinds = {variant["type"] for variant in variants}
    texts = ["[]", "{}", "[1]", "NaN", "Infinity", "-Infinity", "nil", "", "01", "+1", ".5", "1.", "0x1"]
    texts += [] if "null" in kinds else ["null"]
    texts += [] if "boolean" in kinds else ["true", "false"]
    texts += [] if "string" in kinds else ['"1"', '""', '"true"']
    texts += [] if kinds & {"integer", "number"} else ["0", "1", "1.0"]
    texts += ['["a", 1]', "[null]", '[["a"]]', '["a",]'] if "array" in kinds else []
    for variant in variants:
        if variant["type"] == "integer":
            texts += ["1.0", "1e3", "1E0", "1.5", "-0", "9" * 100, "9" * 5000, "1e999"]
            texts += [str(variant["minimum"] - 1), str(variant["maximum"] + 1)]
        elif variant["type"] == "number":
            texts += [str(variant["minimum"] - 1), str(variant["maximum"] + 1), "1e999", "9" * 5000]
        elif variant["type"] == "array":
            texts += [json.dumps(["a"] * (variant["maxItems"] + 1))]
            texts += [f"[{text}]" for text in wrong_texts(variant["items"])]
        elif variant.get("contentEncoding") == "base64":
            texts += ['"?"', '"AA"', '"AA="', '"AB=="', '"AA==\\n"', '"_-_-"', '" AA=="', '"\\ud800"']
        elif variant["type"] == "string":
            long = json.dumps("a" * (variant["maxLength"] + 1))
            texts += [long, '"\\ud800@example.org"', '"a\nb"', "'a'"]
            # A label is never empty. What an optional string may be is not told by its schema.
            texts += [] if "null" in kinds else ['""', '"\\u0000"']
    return texts
