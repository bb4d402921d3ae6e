"""Settings of persistent subscriptions, and how groups are stored: keys, JSON, parked messages."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from enum import Enum
from types import UnionType
from typing import TypeVar, get_args, get_origin, get_type_hints

from kt_es.errors import MalformedError
from kt_es.node.groups.filters import Filter

_LENGTH = struct.Struct(">H")


class Strategy(Enum):
    """Which consumer a message goes to."""

    DISPATCH_TO_SINGLE = "DispatchToSingle"
    ROUND_ROBIN = "RoundRobin"
    PINNED = "Pinned"
    PINNED_BY_CORRELATION = "PinnedByCorrelation"

    @property
    def is_pinned(self) -> bool:
        """Whether each message waits for the one consumer to which it is pinned."""
        return self in {Strategy.PINNED, Strategy.PINNED_BY_CORRELATION}


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How a group works. Times are in milliseconds; ``start`` is an order, or -1 for the end."""

    start: int = 0
    resolve_links: bool = False
    extra_statistics: bool = False
    message_timeout: int = 30_000
    max_retry_count: int = 10
    min_checkpoint_count: int = 10
    max_checkpoint_count: int = 1000
    checkpoint_after: int = 2_000
    max_subscriber_count: int = 5
    live_buffer_size: int = 500
    read_batch_size: int = 200
    history_buffer_size: int = 500
    strategy: Strategy = Strategy.DISPATCH_TO_SINGLE
    filter: Filter | None = None


Read = TypeVar("Read", GroupSettings, Filter)


def _key(prefix: bytes, stream: str, name: str) -> bytes:
    raw = stream.encode()
    return prefix + _LENGTH.pack(len(raw)) + raw + name.encode()


def settings_key(stream: str, name: str) -> bytes:
    """Key of a group's settings."""
    return _key(b"G", stream, name)


def checkpoint_key(stream: str, name: str) -> bytes:
    """Key of a group's checkpoint: the order of the first message that is not settled."""
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
    """The stream of links to a group's parked messages, with the name that EventStoreDB gives it."""
    return f"$persistentsubscription-{stream}::{name}-parked"


def encode_settings(settings: GroupSettings) -> bytes:
    """GroupSettings as JSON."""
    values = asdict(settings)
    values["strategy"] = settings.strategy.value
    return json.dumps(values).encode()


def decode_settings(value: bytes) -> GroupSettings:
    """The reverse of ``encode_settings``.

    Raises:
        MalformedError: ``value`` does not have that form.
    """
    try:
        values = json.loads(value)
        values["strategy"] = Strategy(values["strategy"])
        filter_ = values["filter"]
        if filter_ is not None:
            values["filter"] = _fitting(Filter(**(filter_ | {"prefixes": tuple(filter_["prefixes"])})))
        return _fitting(GroupSettings(**values))
    # RecursionError: deep nesting.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MalformedError("settings of a persistent subscription", type(error).__name__) from None


def _fitting(read: Read) -> Read:
    """Return ``read`` if each value has the type of its field; raise ``TypeError`` otherwise."""
    for name, kind in get_type_hints(type(read)).items():
        value: object = getattr(read, name)
        kinds = get_args(kind) if isinstance(kind, UnionType) else (get_origin(kind) or kind,)
        texts = not isinstance(value, tuple) or all(isinstance(item, str) for item in value)
        if type(value) not in kinds or not texts:
            raise TypeError(name)
    return read
