"""Whether a shared store has the rows that lookups of the present epoch need: a sample of few rows.

The rows are read from a quorum, past the caches of this process. Pages below the root are read as lookups
read them.
"""

from __future__ import annotations

import secrets

from kt_es.crypto.hashes import HASH_SIZE, log_leaf_hash
from kt_es.errors import MalformedError, UnverifiedRowError, VerificationError
from kt_es.ledger.authorized import entry_by_quorum
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import HEADS_LOG
from kt_es.merkle.log import plan_inclusion
from kt_es.merkle.pages import check_page, child_ref
from kt_es.merkle.verify import log_root_from_inclusion, require_root

ACCOUNTS = 8
"""Accounts, taken at random, of which one must be in the store. So one bad row does not matter."""


def check_present(ledger: Ledger) -> None:
    """Check a sample of the rows of the committed epoch of ``ledger``, whose store is shared.

    The sample is the oldest epoch that is kept, the inclusion of the latest head in the log of heads, the
    root page of the map, and the entry of one account. Before the first epoch only the store is asked.

    Raises:
        UnverifiedRowError: Rows are missing or wrong. The message names no account.
        UnavailableError: The store cannot be used.
    """
    oldest = ledger.tables.states.oldest()
    committed = ledger.committed
    if not committed.epoch:
        return
    check_bound(max(oldest, ledger.oldest), committed.epoch)
    _check_head(ledger, committed)
    if committed.root.slot is not None:
        root = child_ref(bytes(HASH_SIZE), 0, committed.root.slot)
        check_page(root, ledger.tables.pages.get_many([root[0]], again=True)[0])
        _check_accounts(ledger, committed)


def check_bound(oldest: int, epoch: int) -> None:
    """Raise ``UnverifiedRowError`` if the map of ``epoch``, the latest one here, is older than ``oldest``."""
    if oldest > epoch:
        raise UnverifiedRowError(
            f"by its row `oldest`, the store keeps the maps from epoch {oldest} on, and the latest epoch "
            f"here is {epoch}: this process is behind, or the row is wrong"
        )


def _check_head(ledger: Ledger, committed: Committed) -> None:
    epoch, size = committed.epoch, committed.heads.size
    plan = plan_inclusion(epoch - 1, size)
    try:
        smh = ledger.tables.heads.event(epoch).smh_bytes
        proof = tuple(plan.proof(ledger.tables.nodes.get_many(HEADS_LOG, plan.nodes, again=True)))
        root = log_root_from_inclusion(epoch - 1, size, log_leaf_hash(smh), proof)
        require_root("head", root, committed.heads.root())
    except (MalformedError, VerificationError) as error:
        raise UnverifiedRowError(f"the log of heads has wrong nodes: {error}") from None


def _check_accounts(ledger: Ledger, committed: Committed) -> None:
    for _ in range(ACCOUNTS):
        try:
            leaf = ledger.map.leaf_near(committed.root, secrets.token_bytes(HASH_SIZE))
            entry_by_quorum(ledger, committed.root, leaf)
            return
        except UnverifiedRowError:
            continue
    raise UnverifiedRowError(
        f"{ACCOUNTS} accounts were taken at random, and a page or an entry of each is missing or wrong"
    )
