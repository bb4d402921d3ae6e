"""What was written ahead of a commit, and how it is deleted where the commit never came.

Pages and nodes of an unfinished epoch are found only through a root, and their keys are written again.
Entries, configs and erasures are found by their keys. One that stayed behind would count in the next epoch,
as accepted before its time, in a history, in the chain of configs, or as an erasure that nobody signed. The
next run need not see the same queue: a log that was restored has lost its end, and a replay of forged records
stops in their middle.

Each slice notes under ``ahead u64 number`` which indices it has entries of, in the same atomic write.
The commit deletes the notes; whoever begins an epoch and finds one deletes what it names.
"""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.formats.entries import INDEX_LENGTH
from kt_es.ledger.configs import CONFIG, config_epoch
from kt_es.ledger.erasures import erasure_epoch
from kt_es.ledger.ledger import ENTRIES, ERASURE, META, entry_key
from kt_es.ledger.store import Change, Storage

AHEAD = b"ahead "


def ahead_change(number: int, slice_: Sequence[Change]) -> Change:
    """The note of a slice, the ``number``-th of its epoch."""
    indices = b"".join(key[:INDEX_LENGTH] for family, key, _ in slice_ if family == ENTRIES)
    return (META, AHEAD + number.to_bytes(8), indices)


def forget_ahead(storage: Storage, epoch: int) -> None:
    """Delete what was written ahead for the epoch after the committed one, ``epoch``.

    A note goes in one write with what it names, the last one with the configs and erasures as well, so that
    a crash in the middle is made good by the next call.
    """
    notes = list(storage.scan(META, AHEAD))
    for at, (note, indices) in enumerate(notes):
        changes: list[Change] = [
            (ENTRIES, entry_key(indices[start : start + INDEX_LENGTH], epoch + 1), None)
            for start in range(0, len(indices), INDEX_LENGTH)
        ]
        if at == len(notes) - 1:
            configs = [key for key, _ in storage.scan(META, CONFIG) if config_epoch(key) > epoch]
            erasures = [key for key, _ in storage.scan(META, ERASURE) if erasure_epoch(key) > epoch]
            changes += [(META, key, None) for key in (*configs, *erasures)]
        storage.write([*changes, (META, note, None)], sync=False)
