"""Addresses of operations that have parameters."""

from __future__ import annotations

from kt_es.api.operations import CONSISTENCY, HEAD, LATEST_HEAD


def head_path(epoch: int | None = None, since: int = 0) -> str:
    """Return the address of the head of ``epoch``, by default of the latest one.

    ``since`` is the size of the log of map heads that the client trusts; 0 if it trusts none.
    """
    path = LATEST_HEAD.path if epoch is None else HEAD.path.format(epoch=epoch)
    return f"{path}?since={since}" if since else path


def consistency_path(log: str, size1: int, size2: int) -> str:
    """Return the address of the consistency proof between two sizes of ``log`` (``heads``, ``mutations``)."""
    return f"{CONSISTENCY.path}?log={log}&from={size1}&to={size2}"
