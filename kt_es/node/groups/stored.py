"""How groups are kept: their keys, their settings as JSON, the names of their parked messages."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from types import UnionType
from typing import TypeVar, get_args, get_origin, get_type_hints

from kt_es.errors import MalformedError
from kt_es.node.groups.filters import Filter
from kt_es.node.groups.values import Settings, Strategy

_LENGTH = struct.Struct(">H")
Read = TypeVar("Read", Settings, Filter)


def _key(prefix: bytes, stream: str, name: str) -> bytes:
    raw = stream.encode()
    return prefix + _LENGTH.pack(len(raw)) + raw + name.encode()


def settings_key(stream: str, name: str) -> bytes:
    """Where a group's settings stand."""
    return _key(b"G", stream, name)


def checkpoint_key(stream: str, name: str) -> bytes:
    """Where a group's checkpoint stands: the order of the first message that is not settled."""
    return _key(b"C", stream, name)


def groups_range() -> tuple[bytes, bytes]:
    """The keys of all groups' settings."""
    return b"G", b"H"


def group_names(key: bytes) -> tuple[str, str]:
    """Stream and name from a key of settings."""
    (length,) = _LENGTH.unpack_from(key, 1)
    start = 1 + _LENGTH.size
    return key[start : start + length].decode(), key[start + length :].decode()


def parked_stream(stream: str, name: str) -> str:
    """The stream of links to a group's parked messages, named as the real server names it."""
    return f"$persistentsubscription-{stream}::{name}-parked"


def encode_settings(settings: Settings) -> bytes:
    """Settings as JSON."""
    values = asdict(settings)
    values["strategy"] = settings.strategy.value
    return json.dumps(values).encode()


def decode_settings(value: bytes) -> Settings:
    """The reverse of ``encode_settings``.

    Raises:
        MalformedError: they are not of that form.
    """
    try:
        values = json.loads(value)
        values["strategy"] = Strategy(values["strategy"])
        filter_ = values["filter"]
        if filter_ is not None:
            values["filter"] = _fitting(Filter(**(filter_ | {"prefixes": tuple(filter_["prefixes"])})))
        return _fitting(Settings(**values))
    # RecursionError: brackets in brackets.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MalformedError("settings of a persistent subscription", type(error).__name__) from None


def _fitting(read: Read) -> Read:
    """``read`` if each of its values is of the kind that its field has."""
    for name, kind in get_type_hints(type(read)).items():
        value: object = getattr(read, name)
        kinds = get_args(kind) if isinstance(kind, UnionType) else (get_origin(kind) or kind,)
        texts = not isinstance(value, tuple) or all(isinstance(item, str) for item in value)
        if type(value) not in kinds or not texts:
            raise TypeError(name)
    return read
