"""Reading again from a newer state, in a worker whose copy is that of another process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from kt_es.errors import UnverifiedRowError

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Renewing(Protocol):
    """A reader over a store that another process may write."""

    @property
    def renew(self) -> Callable[[], bool]:
        """Takes the newest state. Returns False if the state cannot change under a reader."""
        ...


_R = TypeVar("_R", bound=Renewing)


def renewed(read: Callable[Concatenate[_R, _P], _T]) -> Callable[Concatenate[_R, _P], _T]:
    """Make ``read`` read once more, from the newest state, if a row of its state is missing or wrong.

    ``kt store prune`` deletes pages of earlier epochs. A worker that has just read on no longer sees them,
    while one of its requests still answers from the epoch before. The second time, the request is answered
    from an epoch that is kept, or refused since its epoch is not. A row that is missing then is damage.
    """

    @functools.wraps(read)
    def again(reader: _R, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return read(reader, *args, **kwargs)
        except UnverifiedRowError:
            if not reader.renew():
                raise
            return read(reader, *args, **kwargs)

    return again
