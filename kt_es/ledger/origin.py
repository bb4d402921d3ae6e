"""Where a data directory began: with the first record, or with a snapshot of a later epoch."""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.codec import decode, encode, take_array, take_uint
from kt_es.ledger.ledger import META
from kt_es.ledger.store import Change, Storage

_BEGINNING = b"beginning"


@dataclass(frozen=True, slots=True)
class Beginning:
    """What lies before is not here: heads before ``epoch``, and the first ``records`` of the log."""

    epoch: int = 0
    records: int = 0

    def change(self) -> Change:
        """What keeps it."""
        return (META, _BEGINNING, encode([self.epoch, self.records]))


def beginning(store: Storage) -> Beginning:
    """Where ``store`` began; ``DivergenceError`` if that is damaged."""
    data = store.get(META, _BEGINNING)
    if data is None:
        return Beginning()
    try:
        epoch, records = take_array(decode(data, "beginning"), "beginning", 2)
        return Beginning(take_uint(epoch, "beginning"), take_uint(records, "beginning"))
    except MalformedError as error:
        raise DivergenceError(f"the data directory is damaged: {error}") from None
