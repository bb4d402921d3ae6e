"""Settings of persistent subscriptions, how groups are stored, and filters over $all.

An expression may match anywhere in the text. Official clients exclude system events by lookahead, which needs
a backtracking engine. Such an engine can take exponential time on some texts. So a search that takes too long
is given up, and the filter with it, whoever wrote the expression or the text.
"""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import TypeVar, get_args, get_origin, get_type_hints

import regex

from kt_es.errors import MalformedError
from kt_es.node.refusals import Refusal, invalid
from kt_es.node.store.records import name_of, type_of

Predicate = Callable[[bytes], bool]
MAX_REGEX = 4096  # characters
MAX_PART = 700  # characters between two "|": to compile a long one the engine takes the cube of its length
MAX_PREFIXES = 1000
MAX_PREFIX = 4096  # characters, as long as names may be
# Seconds of processor time: how long the process has to wait for a processor says nothing about a search.
PATIENCE = 0.02  # for one search
USUAL = 0.0001  # for a search, on average of many
_BURST = 0.2  # that searches may exceed the average, in total
_REMEMBERED = 64  # answers of each filter: texts have up to 4 KiB, and filters are many
_LENGTH = struct.Struct(">H")
_parts = re.compile(r"(?<![\\[])\|").split


@dataclass(frozen=True, slots=True)
class Filter:
    """``by_stream`` or by event type; ``regex`` if not empty, else ``prefixes``.

    A checkpoint is due after every ``checkpoint_every`` events read.
    """

    by_stream: bool
    regex: str
    prefixes: tuple[str, ...]
    checkpoint_every: int


def predicate(filter_: Filter | None) -> Predicate:
    """Return a function that tells whether a stored event passes, or raises ``Refusal`` if that is too slow.

    Raises ``Refusal`` if the expression cannot be compiled, or if the expression or a prefix is too long.
    """
    if filter_ is None:
        return lambda _stored: True
    _check_size(filter_)
    text_of = name_of if filter_.by_stream else type_of
    if filter_.regex:
        # There are few types, and names are repeated: the cache answers most searches.
        found = lru_cache(_REMEMBERED)(Search(filter_.regex))
        return lambda stored: found(text_of(stored))
    prefixes = filter_.prefixes
    return lambda stored: text_of(stored).startswith(prefixes)


class Search:
    """Searches texts for ``expression``, within limits of processor time: seconds of ``clock``."""

    def __init__(self, expression: str, clock: Callable[[], float] = time.thread_time) -> None:
        try:
            self._search = regex.compile(expression, cache_pattern=False).search
        # RecursionError: deep nesting. IndexError and others: faults of the engine at odd flags.
        except Exception as error:  # noqa: BLE001  the expression cannot be used
            raise invalid(f"the filter's regular expression is not usable: {error}") from None
        self._clock = clock
        self._debt = 0.0  # seconds of searches beyond ``USUAL``

    def __call__(self, text: str) -> bool:
        """Return whether ``expression`` is found in ``text``; raise ``Refusal`` if the search is too slow."""
        began = self._clock()
        while True:
            try:
                found = self._search(text, timeout=PATIENCE)
                break
            except TimeoutError:
                # The engine looks at another clock, which also runs while this thread waits.
                if self._clock() - began >= PATIENCE:
                    raise _too_slow() from None
        seconds = min(self._clock() - began, PATIENCE)
        self._debt = max(0.0, self._debt + seconds - USUAL)
        if self._debt > _BURST:
            raise _too_slow()
        return found is not None


def _too_slow() -> Refusal:
    return invalid(
        "the filter's regular expression takes too long; one without repetitions in repetitions may not"
    )


def _check_size(filter_: Filter) -> None:
    if len(filter_.regex) > MAX_REGEX:
        raise invalid(f"the filter's regular expression has more than {MAX_REGEX} characters")
    if any(len(part) > MAX_PART for part in _parts(filter_.regex)):
        raise invalid(f"a part of the filter's regular expression has more than {MAX_PART} characters")
    if len(filter_.prefixes) > MAX_PREFIXES:
        raise invalid(f"the filter has more than {MAX_PREFIXES} prefixes")
    if any(len(prefix) > MAX_PREFIX for prefix in filter_.prefixes):
        raise invalid(f"a prefix of the filter has more than {MAX_PREFIX} characters")


def make_filter(by_stream: bool, regex: str, prefixes: Sequence[str], window: int, multiplier: int) -> Filter:
    """Return a filter with the parameters of a request: a checkpoint after ``window * multiplier`` events."""
    return Filter(by_stream, regex, tuple(prefixes), max(1, window) * max(1, multiplier))


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
    return _key(b"G", stream, name)


def checkpoint_key(stream: str, name: str) -> bytes:
    """Return the key of a group's checkpoint: the order of the first message that is not settled."""
    return _key(b"C", stream, name)


def groups_range() -> tuple[bytes, bytes]:
    return b"G", b"H"


def group_names(key: bytes) -> tuple[str, str]:
    (length,) = _LENGTH.unpack_from(key, 1)
    start = 1 + _LENGTH.size
    return key[start : start + length].decode(), key[start + length :].decode()


def parked_stream(stream: str, name: str) -> str:
    """Return the stream of links to a group's parked messages, with the name that EventStoreDB gives it."""
    return f"$persistentsubscription-{stream}::{name}-parked"


def encode_settings(settings: GroupSettings) -> bytes:
    values = asdict(settings)
    values["strategy"] = settings.strategy.value
    return json.dumps(values).encode()


def decode_settings(value: bytes) -> GroupSettings:
    """Decode what ``encode_settings`` returned; raise ``MalformedError`` for any other ``value``."""
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
