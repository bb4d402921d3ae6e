"""Checks of rows that only a shared store has: the states after epochs, and rows that were written last."""

from __future__ import annotations

from array import array

from kt_es.crypto.hashes import MAP_EMPTY
from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.heads import MapHead
from kt_es.ledger.anchor import check_sealed
from kt_es.ledger.fold import with_head
from kt_es.ledger.rows import Committed
from kt_es.ledger.shared_store import SharedStore
from kt_es.ledger.shared_tables import SharedTables
from projections.fsck.directory import BATCH, Examined
from projections.fsck.heads import GoodHead


def examine_pinned(it: Examined, store: SharedStore) -> None:
    """Check the rows that follow from the newest head, which all other checks read from memory."""
    for family, key in store.differing():
        it.report.differs(f"the row {key.hex()} of the table {family} is not what the newest head says")


class StoredStates:
    """Compares the stored states after the kept epochs with the heads of these epochs, then with the records.

    A head does not seal where its records end, so 8 bytes for each epoch are kept until the records are read.
    """

    def __init__(self, it: Examined) -> None:
        self._it = it
        self._heads: list[GoodHead] = []
        # The last epoch that was compared, the root of its map, and the epoch that wrote this root.
        self._last: tuple[int, bytes, int] = 0, MAP_EMPTY, 0
        self._config: bytes | None = None  # in force after that epoch
        # ``records_next`` of each kept epoch, 0 for a state that is missing or wrong.
        self._ends = array("Q", bytes(8 * (it.ledger.committed.epoch - it.ledger.oldest + 1)))

    def add(self, good: GoodHead) -> None:
        """Take the next head."""
        if good.head.epoch >= self._it.ledger.oldest:
            self._heads.append(good)
        if len(self._heads) >= BATCH:
            self.finish()

    def finish(self) -> None:
        """Compare the states of the heads that were taken."""
        tables, heads = self._it.ledger.tables, self._heads
        self._heads = []
        if isinstance(tables, SharedTables) and heads:
            rows = tables.states.published_many([(good.head.epoch, good.event) for good in heads], again=True)
            for good, row in zip(heads, rows, strict=True):
                where = f"the state after epoch {good.head.epoch}"
                try:
                    self._compare(good, row, where)
                except (DivergenceError, MalformedError) as error:
                    self._it.report.fails(where, error)

    def _compare(self, good: GoodHead, row: bytes | None, where: str) -> None:
        self._it.report.count("states")
        if row is None:
            raise DivergenceError("it is missing")
        ledger, head = self._it.ledger, good.head
        state = Committed.decode(row, self._it.origin, ledger.pinned)
        committed, _ = with_head(ledger.tables, state, good.event, state.records_next)
        check_sealed(committed, head, where)
        if committed.heads != good.heads:
            raise DivergenceError("its log of heads is not the one of that head")
        if self._last[0] == head.epoch - 1 and self._config not in (None, head.config_hash):
            self._it.report.differs(
                f"the state after epoch {head.epoch - 1} has another config than the one in force"
            )
        must = self._root_version(head)
        if must is not None and committed.root.version != must:
            raise DivergenceError(
                f"it says that epoch {committed.root.version} wrote the root of the map; epoch {must} did"
            )
        config = committed.standing.config
        self._last = head.epoch, head.map_root, committed.root.version
        self._config = None if config is None else config.config.hash
        self._ends[head.epoch - ledger.oldest] = committed.records_next

    def check_end(self, epoch: int, records_next: int) -> None:
        """Compare the state after ``epoch`` with the end of its records in the log of mutations."""
        at = epoch - self._it.ledger.oldest
        here = self._ends[at] if 0 <= at < len(self._ends) else 0
        if here not in (0, records_next):
            self._it.report.differs(
                f"the state after epoch {epoch}: records_next is {here}, must be {records_next}: there the "
                "records of the epoch end"
            )

    def _root_version(self, head: MapHead) -> int | None:
        """Return the epoch that wrote the root of the map, None if the state before is not known."""
        epoch, map_root, version = self._last
        if epoch != head.epoch - 1:
            return None
        return version if head.map_root == map_root else head.epoch
