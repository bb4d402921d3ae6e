"""What is verified here beside what a server of tiles shows: rollbacks, and other logs as evidence.

The counterpart of ``ledger.anchor``, which compares with the event log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import NoReturn

from kt_es.errors import (
    DivergenceError,
    EquivocationError,
    MalformedError,
    UnavailableError,
    UnverifiedRowError,
    VerificationError,
)
from kt_es.evidence import contradicting_head
from kt_es.formats.heads import Checkpoint, HeadEvent, LogName
from kt_es.formats.notes import parse_note
from kt_es.ledger.anchor import another_head, contradiction
from kt_es.ledger.comparing import head_covering
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.log import LogState, NodeId, plan_state
from kt_es.merkle.tiled import TiledLog
from projections.tiles.reading import Shown, TiledLogs
from projections.tiles.server import Tiles


class Lag:
    """How long a server has been behind what was verified here, or behind itself. One thread uses it.

    A server may be behind for a while: another one answers at the same address, or a cache is old. One that
    stays behind was rolled back, or withholds something. ``monotonic`` is in seconds, and so is the result of
    ``patience``.
    """

    def __init__(self, patience: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._patience = patience
        self._monotonic = monotonic
        self._since: float | None = None

    def behind(self, error: DivergenceError) -> NoReturn:
        """Raise ``UnavailableError``, or ``error`` if the server has been behind for too long."""
        now = self._monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._patience():
            raise error
        raise UnavailableError(f"the server may be behind: {error}")

    def ends(self) -> None:
        self._since = None


def earlier_state(ledger: Ledger, log: LogName, size: int) -> LogState | None:
    """Return the state that a log had here with ``size`` leaves, at most as many as are committed.

    None if the data directory began with a snapshot of more leaves, so that nothing is known of so few.
    """
    committed, begun = ledger.committed, ledger.tables.states.beginning()
    if 0 < size < (begun.epoch if log == "heads" else begun.records):
        return None
    now = committed.heads if log == "heads" else committed.log
    if size == now.size:
        return now
    nodes = plan_state(size)
    found = ledger.tables.nodes.get_many(HEADS_LOG if log == "heads" else MUTATIONS_LOG, nodes.nodes)
    return LogState(size, tuple(nodes.proof(found)))


def contradicting_log_of_heads(
    ledger: Ledger,
    checkpoint: str,
    size: int,
    *,
    tiled: Callable[[], TiledLog],
    leaf: Callable[[int, TiledLog], bytes],
    url: str,
) -> EquivocationError | DivergenceError:
    """Return the error for a log of heads whose first ``size`` leaves are not those that were verified here.

    The evidence is two signed heads of one epoch, the first at which the logs differ, or else two checkpoints
    of one size.

    Args:
        checkpoint: The checkpoint of the other log, at ``size`` or later.
        tiled: Returns the other log.
        leaf: Returns one of its leaves.
    """
    another = DivergenceError(f"{url} has another log of {size} heads than was verified here")
    if not size:
        return another
    first: EquivocationError | DivergenceError = another
    try:
        other = tiled()
        differs = other.first_difference(size, lambda node: _node(ledger, node))
        if differs is not None:
            epoch = differs + 1
            shown = HeadEvent(leaf(differs, other), "", "").encode()
            first = another_head(
                ledger,
                epoch,
                ledger.tables.heads.event(epoch).encode(),
                shown,
                f"{url} has another head of epoch {epoch} than the one that was verified here, and the "
                "directory has not signed it",
            )
    except (MalformedError, VerificationError, UnavailableError, DivergenceError) as error:
        # The tiles are theirs to break. Their checkpoint counts without them.
        first = DivergenceError(f"{another}: {error}")
    if isinstance(first, EquivocationError):
        return first
    ours = ledger.tables.heads.event(size)
    theirs = HeadEvent(ours.smh_bytes, checkpoint, "").encode()
    chain = config_chain(ledger, ledger.committed)
    return contradiction(ledger, size, ours.encode(), theirs, chain) or first


def proven_by_tiles(ledger: Ledger, tiles: Tiles, checkpoint: bytes) -> EquivocationError | None:
    """Return evidence against a directory that signed the ``checkpoint`` of another log of heads, or None.

    ``tiles`` are those of the place that shows the checkpoint, which is not ahead of what is verified here.
    """
    note = parse_note(checkpoint)
    shown = Shown("heads", note, Checkpoint.parse(note.text))
    with closing(TiledLogs(tiles)) as logs:
        error = contradicting_log_of_heads(
            ledger,
            note.encode(),
            shown.said.size,
            tiled=lambda: logs.tiled(shown),
            leaf=lambda number, log: logs.leaf("heads", log, number),
            url=logs.url,
        )
    return error if isinstance(error, EquivocationError) else None


def check_continues(ledger: Ledger, tiles: Tiles, checkpoint: bytes) -> None:
    """Compare a log of heads that is longer than what is verified here, by the ``tiles`` of who shows it.

    Args:
        checkpoint: The checkpoint of the log, signed by the directory.

    Raises:
        EquivocationError: Its first heads are not those that were verified here; two signed heads prove it.
        DivergenceError: The same, and nothing proves it.
        UnavailableError: The tiles cannot be read, or are not those of the checkpoint.
    """
    note = parse_note(checkpoint)
    shown, ours = Shown("heads", note, Checkpoint.parse(note.text)), ledger.committed.heads
    with closing(TiledLogs(tiles)) as logs:
        try:
            tiled = logs.tiled(shown)
            is_same = tiled.state_at(ours.size).root() == ours.root()
        except (DivergenceError, MalformedError, VerificationError) as error:
            raise UnavailableError(f"{logs.url} cannot be compared by its tiles: {error}") from None
        if not is_same:
            raise contradicting_log_of_heads(
                ledger,
                note.encode(),
                ours.size,
                tiled=lambda: tiled,
                leaf=lambda number, log: logs.leaf("heads", log, number),
                url=logs.url,
            )


def _node(ledger: Ledger, node: NodeId) -> bytes:
    (found,) = ledger.tables.nodes.get_many(HEADS_LOG, [node])
    if found is None:
        raise UnverifiedRowError(
            f"the data directory lacks a node of the log of heads, level {node.level}, offset {node.offset}"
        )
    return found


def contradicting_log(
    ledger: Ledger, url: str, checkpoint: str, said: Checkpoint, size: int
) -> EquivocationError | DivergenceError:
    """Return the error for a log of mutations whose first ``size`` records are not those verified here.

    It is proven by a head that was verified here and covers as many records as the ``checkpoint``.
    """
    smh = head_covering(ledger, ledger.committed, said.size)
    chain = config_chain(ledger, ledger.committed) if ledger.committed.epoch else ()
    origin = ledger.committed.standing.origin
    proven = None if smh is None else contradicting_head("log of mutations", origin, chain, smh, checkpoint)
    return proven or DivergenceError(
        f"the log of mutations at {url}, of {said.size} records, has other records among the first {size} "
        "than were verified here"
    )
