"""Filters over $all: by event type or by stream name, by prefixes or by a regular expression.

An expression is searched from anywhere in the text. Official clients use lookahead to leave out system
events, so the engine is one that tries and goes back, which can take exponential time on an unlucky text:
a search that takes long is given up, and the filter with it, whoever wrote the expression or the text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

from kt_es.node.refusals import Refusal, invalid
from kt_es.node.store.records import name_of, type_of

Predicate = Callable[[bytes], bool]
MAX_REGEX = 4096  # characters
MAX_PART = (
    700  # characters between two "|": to look for a long text the engine prepares for the cube of its length
)
MAX_PREFIXES = 1000
MAX_PREFIX = 4096  # characters, as long as names may be
PATIENCE = 0.02  # seconds that one search may take
USUAL = 0.0001  # seconds that each search may take on average, of many
_BURST = 0.2  # seconds that searches may take beyond that
_TRIES = 3  # of a search: the seconds are those on the wall, and the process may have had to wait
_REMEMBERED = 64  # answers of each filter: texts have up to 4 KiB, and filters are many
_parts = re.compile(r"(?<![\\[])\|").split


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
    """A function that says of a stored event whether it passes; ``Refusal`` if it cannot say in time.

    Raises:
        ValueError: the expression cannot be compiled, or it or the prefixes are too long.
    """
    if filter_ is None:
        return lambda _stored: True
    _check_size(filter_)
    text_of = name_of if filter_.by_stream else type_of
    if filter_.regex:
        # Types are few, and names come again: most searches are not made.
        found = lru_cache(_REMEMBERED)(Search(filter_.regex))
        return lambda stored: found(text_of(stored))
    prefixes = filter_.prefixes
    return lambda stored: text_of(stored).startswith(prefixes)


class Search:
    """Searches texts for ``expression``, within limits of time: seconds of ``clock``.

    Raises:
        ValueError: the expression cannot be used.
    """

    def __init__(self, expression: str, clock: Callable[[], float] = time.perf_counter) -> None:
        try:
            self._search = regex.compile(expression, cache_pattern=False).search
        # RecursionError: brackets in brackets. IndexError and others: the engine's own, at odd flags.
        except Exception as error:  # noqa: BLE001  whatever it is, the expression cannot be used
            raise ValueError(f"the filter's regular expression is not usable: {error}") from None
        self._clock = clock
        self._debt = 0.0  # seconds taken beyond the usual

    def __call__(self, text: str) -> bool:
        """Whether ``expression`` is found in ``text``.

        Raises:
            Refusal: the searches take too long.
        """
        began = self._clock()
        for _ in range(_TRIES):
            try:
                found = self._search(text, timeout=PATIENCE)
                break
            except TimeoutError:
                continue
        else:
            raise _too_slow()
        took = min(self._clock() - began, PATIENCE)
        self._debt = max(0.0, self._debt + took - USUAL)
        if self._debt > _BURST:
            raise _too_slow()
        return found is not None


def _too_slow() -> Refusal:
    return invalid(
        "the filter's regular expression takes too long; one without repetitions in repetitions may not"
    )


def _check_size(filter_: Filter) -> None:
    if len(filter_.regex) > MAX_REGEX:
        raise ValueError(f"the filter's regular expression has more than {MAX_REGEX} characters")
    if any(len(part) > MAX_PART for part in _parts(filter_.regex)):
        raise ValueError(f"a part of the filter's regular expression has more than {MAX_PART} characters")
    if len(filter_.prefixes) > MAX_PREFIXES:
        raise ValueError(f"the filter has more than {MAX_PREFIXES} prefixes")
    if any(len(prefix) > MAX_PREFIX for prefix in filter_.prefixes):
        raise ValueError(f"a prefix of the filter has more than {MAX_PREFIX} characters")


def make_filter(by_stream: bool, regex: str, prefixes: Sequence[str], window: int, multiplier: int) -> Filter:
    """A filter as requests spell it: a checkpoint after ``window * multiplier`` events."""
    return Filter(by_stream, regex, tuple(prefixes), max(1, window) * max(1, multiplier))
