"""Examination of a whole data directory, offline: everything in it that can be held against its head.

A signer, a front end and a monitor keep the same things. Memory is bounded whatever the size: all is read
in the order in which it stands, and the two logs of nodes level by level.
"""

from __future__ import annotations

from collections.abc import Callable

from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.keys import PublicKey
from kt_es.ledger.checks import check_commit
from kt_es.ledger.configs import check_pinned
from kt_es.ledger.ledger import COMMITTED, META, Ledger
from kt_es.ledger.origin import beginning
from kt_es.ledger.store import Storage
from projections.fsck.directory import examine_entries, examine_heads, examine_map, examine_openings
from projections.fsck.findings import EnoughError, Examined, Findings, Report
from projections.fsck.nodes import examine_nodes
from projections.fsck.streams import StreamReader, examine_head_stream, examine_record_stream


def fsck(
    store: Storage,
    origin: str,
    pinned: PublicKey,
    *,
    log: tuple[StreamReader, StreamNames] | None = None,
    progress: Callable[[str, int], None] = lambda _w, _n: None,
) -> Report:
    """Examine everything in the directory; with ``log``, also that both streams hold the same.

    ``progress`` is told now and then what is looked at and how many of it.
    """
    findings = Findings(progress)
    try:
        ledger = _opened(store, origin, pinned, findings)
        if ledger is not None:
            findings.report.epoch = ledger.committed.epoch
            it = Examined(store, origin, ledger, beginning(store), findings)
            for step in _steps(it, log):
                try:
                    step()
                except DivergenceError as error:
                    findings.differs(str(error))
    except EnoughError:
        pass
    return findings.report


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


def _opened(store: Storage, origin: str, pinned: PublicKey, findings: Findings) -> Ledger | None:
    try:
        if store.get(META, COMMITTED) is None:
            findings.differs("the data directory has no committed epoch")
            return None
        return Ledger(store, origin, pinned)
    except DivergenceError as error:
        findings.differs(str(error))
        return None
