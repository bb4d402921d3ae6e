"""Retention: pages that only epochs need which nobody asks for any more are deleted."""

from __future__ import annotations

from kt_es.errors import ConfigError
from kt_es.ledger.ledger import Ledger


def prune(ledger: Ledger, keep: int) -> int:
    """Delete the pages that none of the last ``keep`` epochs needs, and return how many.

    Heads, records, entries and nodes of the logs stay: both logs can be replayed and proven in full. Lookups
    and histories of older epochs are refused from then on. Nobody else may use the store.

    Raises ``ConfigError`` if ``keep`` is not at least 1.
    """
    if keep < 1:
        raise ConfigError(f"{keep} epochs cannot be kept: keep 1 or more")
    oldest = max(ledger.oldest, ledger.committed.epoch - keep + 1)
    # Before the first page goes, so that nobody reads an epoch that is not whole.
    ledger.store.write([ledger.tables.states.put_oldest(oldest)])
    ledger.oldest = oldest
    return ledger.tables.pages.prune(oldest)
