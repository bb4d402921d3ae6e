"""Filters over $all: by event type or by stream name, by prefixes or by a regular expression.

An expression is Python's, searched from anywhere in the text. It can need exponential time on an
unlucky text, and nothing interrupts it: filters are for clients that one trusts. Engines without that
fault lack lookahead, which official clients use to leave out system events. Lengths are limited, so that
a mistake is no burden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kt_es.node.store.records import name_of, type_of

Predicate = Callable[[bytes], bool]
MAX_REGEX = 4096  # characters
MAX_PREFIXES = 1000
MAX_PREFIX = 4096  # characters, as long as names may be


@dataclass(frozen=True, slots=True)
class Filter:
    """``by_stream`` or by event type; ``regex`` if not empty, else ``prefixes``.

    A checkpoint is due after every ``checkpoint_every`` events looked at.
    """

    by_stream: bool
    regex: str
    prefixes: tuple[str, ...]
    checkpoint_every: int


def predicate(filter_: Filter | None) -> Predicate:
    """A function that says of a stored event whether it passes.

    Raises:
        ValueError: the expression cannot be compiled, or it or the prefixes are too long.
    """
    if filter_ is None:
        return lambda _stored: True
    _check_size(filter_)
    text_of = name_of if filter_.by_stream else type_of
    if filter_.regex:
        try:
            search = re.compile(filter_.regex).search
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"the filter's regular expression is not usable: {error}") from None
        return lambda stored: search(text_of(stored)) is not None
    prefixes = filter_.prefixes
    return lambda stored: text_of(stored).startswith(prefixes)


def _check_size(filter_: Filter) -> None:
    if len(filter_.regex) > MAX_REGEX:
        raise ValueError(f"the filter's regular expression has more than {MAX_REGEX} characters")
    if len(filter_.prefixes) > MAX_PREFIXES:
        raise ValueError(f"the filter has more than {MAX_PREFIXES} prefixes")
    if any(len(prefix) > MAX_PREFIX for prefix in filter_.prefixes):
        raise ValueError(f"a prefix of the filter has more than {MAX_PREFIX} characters")


def make_filter(by_stream: bool, regex: str, prefixes: Sequence[str], window: int, multiplier: int) -> Filter:
    """A filter as requests spell it: a checkpoint after ``window * multiplier`` events."""
    return Filter(by_stream, regex, tuple(prefixes), max(1, window) * max(1, multiplier))
