"""A front end whose data directory has evidence against its directory answers nothing.

So it stays convicted after a restart, as monitors, audits and clients do. Workers of one front end share the
folder, so what one of them has found convicts the others as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from kt_es.errors import ConfigError, EquivocationError, KtError
from kt_es.ledger.convicting import check_unconvicted, evidence_files
from kt_es.ledger.ledger import Ledger

_LOG = structlog.get_logger("kt_es.server")


class Convictions:
    """Looks into the folder of evidence below ``data``; None has none.

    Args:
        failed: Called with the evidence that convicts the directory that ``ledger`` follows.
    """

    def __init__(self, data: Path | None, ledger: Ledger, failed: Callable[[KtError], None]) -> None:
        self._data = data
        self._ledger = ledger
        self._failed = failed
        self._seen: tuple[Path, ...] = ()

    def begin(self) -> None:
        """Look before anything is answered. Raises ``ConfigError`` for a file that proves nothing."""
        self._seen = tuple(evidence_files(self._data))
        try:
            check_unconvicted(self._data, self._ledger)
        except EquivocationError as error:
            self._failed(error)

    def look(self) -> None:
        """Look again, if there are other files than at the last look. One thread calls it."""
        before = self._seen
        if tuple(evidence_files(self._data)) == before:
            return
        try:
            self.begin()
        except ConfigError as error:
            # The next start refuses it. Until then the answers are no worse than they were.
            _LOG.error("evidence not read", problem=str(error))
