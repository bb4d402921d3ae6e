"""Signed checkpoints that others have shown, and that are of a longer log than the client's front end has.

They cannot be compared yet. If a client forgot them, a place that stays ahead would never be compared with:
each time it would show a newer checkpoint. So the first one of each place and log is kept in the state of the
client until it was compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kt_es.client.state import StateStore, decoded
from kt_es.errors import MalformedError
from kt_es.formats.codec import Value, decode, encode, take_array, take_text, take_uint
from kt_es.formats.heads import LOG_NAMES, MAX_CHECKPOINT, LogName

MOST: Final = 32
"""Checkpoints that one client keeps. The directory has signed each of them."""

_KIND: Final = "ahead"
_KEY: Final = b""
_MARK: Final = "kt-es checkpoints ahead v1"
_MAX_WHERE: Final = 4096


@dataclass(frozen=True, slots=True)
class Ahead:
    """A checkpoint that was shown at ``where``, first seen at ``since``, in ms since 1970."""

    where: str
    log: LogName
    since: int
    checkpoint: str


def kept_ahead(store: StateStore) -> tuple[Ahead, ...]:
    """Return the checkpoints that wait, oldest first. Raises ``ConfigError`` if they are damaged."""
    return _decoded(store.recall(_KIND, _KEY))


def keep_ahead(store: StateStore, one: Ahead) -> bool:
    """Keep ``one`` durably, unless an earlier one of the same place and log waits.

    Returns False if so many wait that this one is not kept.
    """
    if len(one.where.encode()) > _MAX_WHERE:
        return False

    def add(kept: tuple[Ahead, ...]) -> tuple[Ahead, ...]:
        if len(kept) >= MOST or any((each.where, each.log) == (one.where, one.log) for each in kept):
            return kept
        return (*kept, one)

    return any((each.where, each.log) == (one.where, one.log) for each in _change(store, add))


def forget_ahead(store: StateStore, one: Ahead) -> None:
    """Remove ``one``, which was compared."""
    _change(store, lambda kept: tuple(each for each in kept if each != one))


def _change(store: StateStore, change: Callable[[tuple[Ahead, ...]], tuple[Ahead, ...]]) -> tuple[Ahead, ...]:
    while True:
        before = store.recall(_KIND, _KEY)
        kept = _decoded(before)
        after = change(kept)
        if after == kept or store.exchange(_KIND, _KEY, before, _encoded(after)):
            return after


def _encoded(kept: tuple[Ahead, ...]) -> bytes:
    return encode([_MARK, [[one.where, one.log, one.since, one.checkpoint] for one in kept]])


def _decoded(data: bytes | None) -> tuple[Ahead, ...]:
    return decoded(data, _decode, "the list of checkpoints that wait for a comparison") or ()


def _decode(data: bytes) -> tuple[Ahead, ...]:
    what = "checkpoints ahead"
    mark, kept = take_array(decode(data, what), what, 2)
    if mark != _MARK:
        raise MalformedError(what, f"must begin with {_MARK!r}")
    return tuple(_one(value) for value in take_array(kept, what, 0, MOST))


def _one(value: Value) -> Ahead:
    what = "checkpoint ahead"
    where, name, since, checkpoint = take_array(value, what, 4)
    log = next((log for log in LOG_NAMES if log == name), None)
    if log is None:
        raise MalformedError(what, "must be of the log of heads or of mutations")
    return Ahead(
        take_text(where, f"{what} place", 1, _MAX_WHERE),
        log,
        take_uint(since, f"{what} time"),
        take_text(checkpoint, f"{what} text", 1, MAX_CHECKPOINT),
    )
