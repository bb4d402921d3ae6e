"""Attempts of a client while a front end is a moment behind the one that answered before."""

from __future__ import annotations

import time
from collections.abc import Iterator

LAG_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts."""


def attempts() -> Iterator[None]:
    """Allow attempts with ``LAG_PAUSES`` between them."""
    yield
    for pause in LAG_PAUSES:
        time.sleep(pause)
        yield
