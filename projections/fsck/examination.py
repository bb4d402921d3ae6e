"""Examination of a whole data directory, offline: everything in it that its signed head covers.

Signer, front end and monitor have the same tables. Memory is bounded whatever the size: rows are read in the
order of their keys, and the two logs of nodes level by level.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.entries import PublicKey
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.store import Store
from kt_es.ledger.tables import Tables
from projections.fsck.directory import (
    EnoughError,
    Examined,
    Findings,
    FsckReport,
    examine_entries,
    examine_heads,
    examine_map,
    examine_openings,
)
from projections.fsck.logs import StreamReader, examine_head_stream, examine_nodes, examine_record_stream


def fsck(
    store: Store,
    origin: str,
    pinned: PublicKey,
    *,
    log: tuple[StreamReader, StreamNames] | None = None,
    progress: Callable[[str, int], None] = lambda _w, _n: None,
) -> FsckReport:
    """Examine everything in the directory.

    Args:
        log: An event log, to check that both of its streams agree with the directory.
        progress: Called now and then with what is examined, and how many of it.
    """
    findings = Findings(progress)
    with suppress(EnoughError):
        it = _opened(store, origin, pinned, findings)
        for step in [] if it is None else _steps(it, log):
            try:
                step()
            except DivergenceError as error:
                findings.differs(str(error))
    return findings.report


def _opened(store: Store, origin: str, pinned: PublicKey, findings: Findings) -> Examined | None:
    try:
        if Tables(store).states.committed(origin, pinned) is not None:
            ledger = Ledger(store, origin, pinned)
            findings.report.epoch = ledger.committed.epoch
            return Examined(origin, ledger, ledger.tables.states.beginning(), findings)
        findings.differs("the data directory has no committed epoch")
    except DivergenceError as error:
        findings.differs(str(error))
    return None


def _steps(it: Examined, log: tuple[StreamReader, StreamNames] | None) -> list[Callable[[], None]]:
    steps: list[Callable[[], None]] = [
        lambda: check_commit(it.ledger),
        lambda: check_pinned(it.ledger),
        lambda: examine_map(it),
        lambda: examine_entries(it),
        lambda: examine_heads(it),
        lambda: examine_nodes(it),
        lambda: examine_openings(it),
    ]
    if log is not None:
        opened, names = log
        steps.append(lambda: examine_head_stream(it, opened, names))
        steps.append(lambda: examine_record_stream(it, opened, names))
    return steps
