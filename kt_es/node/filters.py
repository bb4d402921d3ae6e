"""Filters over $all: by event type or by stream name, by prefixes or by a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kt_es.node.records import name_of, type_of

Predicate = Callable[[bytes], bool]


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
        ValueError: the expression cannot be compiled.
    """
    if filter_ is None:
        return lambda _stored: True
    text_of = name_of if filter_.by_stream else type_of
    if filter_.regex:
        try:
            search = re.compile(filter_.regex).search
        except re.error as error:
            raise ValueError(f"the filter's regular expression is not usable: {error}") from None
        return lambda stored: search(text_of(stored)) is not None
    prefixes = filter_.prefixes
    return lambda stored: text_of(stored).startswith(prefixes)


def make_filter(by_stream: bool, regex: str, prefixes: Sequence[str], window: int, multiplier: int) -> Filter:
    """A filter as requests spell it: a checkpoint after ``window * multiplier`` events."""
    return Filter(by_stream, regex, tuple(prefixes), max(1, window) * max(1, multiplier))
