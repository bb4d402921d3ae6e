"""The JSON of the HTTP interface, read as from an enemy: every field checked, base64 in its one form.

What decides anything is inside the binary fields and is verified by ``trust``; this module only takes
answers apart. Raises ``MalformedError`` naming the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kt_es.client.history import ClaimedVersion
from kt_es.client.strict_json import Json, decode_json
from kt_es.errors import MalformedError
from kt_es.formats.codec import UINT_MAX
from kt_es.formats.configs import SignedConfig, check_directory, check_origin
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import MAX_SMH, SignedMapHead
from kt_es.formats.labels import LABEL_POLICIES
from kt_es.formats.notes import decode_base64
from kt_es.formats.profiles import MAX_PROFILE
from kt_es.formats.proofs import MAX_LOG_PROOF, decode_configs

MAX_VERSIONS = 10_000


@dataclass(frozen=True, slots=True)
class DirectoryAnswer:
    """``GET /v1/directory``."""

    origin: str
    directory: str
    label_policy: str
    configs: tuple[SignedConfig, ...]


@dataclass(frozen=True, slots=True)
class LookupReply:
    """``POST /v1/lookup``; ``answer`` is not decoded yet."""

    epoch: int
    answer: bytes
    profile: bytes | None
    consistency: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RangeReply:
    """``POST /v1/range``; ``answer`` is not decoded yet."""

    answer: bytes
    consistency: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """``GET /v1/heads/...``: the head as it was published, and its place under the latest checkpoint."""

    epoch: int
    smh: SignedMapHead
    smh_bytes: bytes
    heads_checkpoint: str
    mutations_checkpoint: str
    inclusion: tuple[bytes, ...]
    latest_checkpoint: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """``POST /v1/mutations``: ``verdict`` and ``epoch`` are None while nothing is decided."""

    mutation: str
    verdict: str | None
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457), fit to be shown."""

    reason: str
    detail: str
    field: str | None


def read_directory(body: Mapping[str, Json]) -> DirectoryAnswer:
    policy = _text(body, "label_policy")
    if policy not in LABEL_POLICIES:
        raise MalformedError("label_policy", f"must be one of {', '.join(LABEL_POLICIES)}")
    return DirectoryAnswer(
        check_origin(_text(body, "origin")),
        check_directory(_text(body, "directory")),
        policy,
        decode_configs(_binary(body, "configs")),
    )


def read_lookup(body: Mapping[str, Json]) -> LookupReply:
    return LookupReply(
        _uint(body, "epoch"),
        _binary(body, "answer"),
        _optional_binary(body, "profile", MAX_PROFILE),
        _hashes(body, "consistency"),
    )


def read_range(body: Mapping[str, Json]) -> RangeReply:
    return RangeReply(_binary(body, "answer"), _hashes(body, "consistency"))


def read_consistency(body: Mapping[str, Json]) -> tuple[bytes, ...]:
    return _hashes(body, "hashes")


def read_head(body: Mapping[str, Json]) -> HeadAnswer:
    smh = _binary(body, "smh")
    if len(smh) > MAX_SMH:
        raise MalformedError("smh", f"must have at most {MAX_SMH} bytes")
    return HeadAnswer(
        _uint(body, "epoch"),
        SignedMapHead.decode(smh),
        smh,
        _text(body, "heads_checkpoint"),
        _text(body, "mutations_checkpoint"),
        _hashes(body, "inclusion"),
        _text(body, "latest_checkpoint"),
    )


def read_history(body: Mapping[str, Json]) -> tuple[ClaimedVersion, ...]:
    values = _array(body, "versions", MAX_VERSIONS)
    return tuple(_version(value) for value in values)


def read_receipt(body: Mapping[str, Json]) -> Receipt:
    verdict = None if body.get("verdict") is None else _text(body, "verdict")
    epoch = None if body.get("epoch") is None else _uint(body, "epoch")
    return Receipt(_text(body, "mutation"), verdict, epoch)


def read_erasure(body: Mapping[str, Json]) -> str:
    """``POST /v1/erasures``: the hash of the entry, in hexadecimal, whose erasure was taken."""
    return _text(body, "entry")


def read_problem(status: int, data: bytes) -> Problem:
    """What a server says is wrong. Never raises: a proxy in between answers in its own way."""
    try:
        body = decode_json(data, "problem")
    except MalformedError:
        body = {}

    def shown(name: str) -> str | None:
        value = body.get(name)
        return _printable(value) if isinstance(value, str) and value else None

    reason = shown("verdict") or shown("reason") or f"http-{status}"
    detail = shown("detail") or shown("title") or f"the server answered with status {status}"
    return Problem(reason, detail, shown("field"))


def _printable(text: str) -> str:
    """``text`` without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text[:500])


def _version(value: Json) -> ClaimedVersion:
    if not isinstance(value, dict):
        raise MalformedError("versions", "must be objects")
    mutation = Mutation.decode(_binary(value, "mutation"))
    if _uint(value, "version") != mutation.entry.version:
        raise MalformedError("version", "is not that of the mutation")
    return ClaimedVersion(_uint(value, "epoch", 1), mutation)


def _text(body: Mapping[str, Json], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise MalformedError(name, "must be a string")
    return value


def _uint(body: Mapping[str, Json], name: str, low: int = 0) -> int:
    value = body.get(name)
    if type(value) is not int or not low <= value <= UINT_MAX:
        raise MalformedError(name, f"must be an integer from {low}")
    return value


def _array(body: Mapping[str, Json], name: str, high: int) -> list[Json]:
    value = body.get(name)
    if not isinstance(value, list) or len(value) > high:
        raise MalformedError(name, f"must be an array of at most {high} items")
    return value


def _binary(body: Mapping[str, Json], name: str) -> bytes:
    return decode_base64(_text(body, name), name)


def _optional_binary(body: Mapping[str, Json], name: str, high: int) -> bytes | None:
    if body.get(name) is None:
        return None
    data = _binary(body, name)
    if len(data) > high:
        raise MalformedError(name, f"must have at most {high} bytes")
    return data


def _hashes(body: Mapping[str, Json], name: str) -> tuple[bytes, ...]:
    hashes = []
    for value in _array(body, name, MAX_LOG_PROOF):
        if not isinstance(value, str):
            raise MalformedError(name, "must be strings")
        hashes.append(decode_base64(value, name))
    return tuple(hashes)
