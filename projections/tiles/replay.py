"""Replay of both logs from their tiles, for whoever has no right to read the event log.

The epochs are judged by the same code (``ledger.replay.EpochReplay``). Tiles have no events: the records are
packed into the events that the log of mutations must have, and a head has checkpoints only where the server
serves them, at the ends of the logs.

One look at the server takes two checkpoints. Before an epoch is replayed, the tiles are verified up to the
roots of these checkpoints, and both logs must extend what was verified here before. The signature of a
checkpoint is verified at once if its key is known, and otherwise when the replay knows the key: at the epoch
where the checkpoint ends.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

from kt_es.errors import (
    DivergenceError,
    EquivocationError,
    MalformedError,
    RollbackError,
    UnavailableError,
    VerificationError,
)
from kt_es.eventstore.streams import Event
from kt_es.formats.heads import HeadEvent, SignedMapHead, heads_origin, mutations_origin, open_checkpoint
from kt_es.formats.notes import verifier_key
from kt_es.formats.queue import RECORDS, Record, RecordPacker, closes_epoch
from kt_es.ledger.head_events import check_checkpoints, config_of, sealed
from kt_es.ledger.ledger import Ledger, check_pinned, config_chain, last_head
from kt_es.ledger.replay import EpochReplay, ReplayedEpoch
from kt_es.ledger.verifiers import Verifiers
from kt_es.merkle.log import LogState
from kt_es.merkle.tiled import TiledLog
from projections.tiles.comparing import Lag, contradicting_log, contradicting_log_of_heads, earlier_state
from projections.tiles.reading import Shown, TiledLogs
from projections.tiles.server import Tiles
from projections.unproven import UnprovenError


@dataclass(frozen=True, slots=True)
class _Seen:
    """A log as one look found it: its checkpoint, and its tiles if they have more than is verified here."""

    size: int
    checkpoint: str
    tiled: TiledLog | None


class TiledReplay:
    """Follows both logs of one directory on one server into a ledger. Close it after use.

    Attributes:
        is_current: Whether the last look ended with the last head that the server has.
        published: The sizes of both logs on the server, heads first, as it says.
    """

    def __init__(
        self,
        tiles: Tiles,
        ledger: Ledger,
        observe: Callable[[Record], None],
        verifiers: Verifiers,
        lag: Lag,
    ) -> None:
        """Begin at the committed epoch of ``ledger``. ``observe`` and ``verifiers`` are as of ``Replay``."""
        self._logs = TiledLogs(tiles)
        self._observe = observe
        self._verifiers = verifiers
        self._lag = lag
        self.ledger = ledger
        self.is_current = False
        self.published = (0, 0)
        self._latest: tuple[Shown, Shown] | None = None

    def close(self) -> None:
        self._logs.close()

    def look(self, on_head: Callable[[], None] = lambda: None) -> Generator[ReplayedEpoch, None, None]:
        """Commit every epoch that the server has now and that is not committed here, and yield each.

        Args:
            on_head: Called before the replay of each epoch.

        Raises:
            UnavailableError: The server cannot be reached, or is behind what was verified here.
            DivergenceError, VerificationError: What it serves is not what the directory must have published.
            RollbackError: It has been behind for too long (``Lag``).
            EquivocationError: It shows another log than the one that was verified here, and the directory
                signed both.
        """
        try:
            yield from self._look(*self._shown(), on_head)
        except DivergenceError as error:
            before = self._latest
            try:
                now = self._shown()
            except UnavailableError:
                raise error from None
            if now == before:
                raise
            # The server has turned to other files in between. What it shows now may be evidence.
            yield from self._look(*now, on_head)

    def _shown(self) -> tuple[Shown, Shown]:
        """Return the checkpoints of both logs."""
        origin = self.ledger.committed.standing.origin
        # The log of mutations is at least as long as the heads need if it is asked for after them.
        heads = self._logs.shown("heads", heads_origin(origin))
        self._latest = heads, self._logs.shown("mutations", mutations_origin(origin))
        return self._latest

    def _look(
        self, shown: Shown, shown_then: Shown, on_head: Callable[[], None]
    ) -> Generator[ReplayedEpoch, None, None]:
        self.is_current = False
        begun = self.ledger.committed
        self.published = shown.said.size, shown_then.said.size
        heads = self._seen(shown, begun.heads)
        mutations = self._seen(shown_then, begun.log)
        if heads.tiled is None:
            self._check_last(heads, mutations)
            self.is_current = True
        else:
            yield from self._epochs(heads, heads.tiled, mutations, on_head)
        if not self.is_current:
            self._check_pinned()
        self._lag.ends()

    def _check_pinned(self) -> None:
        """Let nobody put off for ever the comparison of the key, which is due where the logs end."""
        try:
            check_pinned(self.ledger)
        except DivergenceError as error:
            self._lag.behind(error)

    def _seen(self, shown: Shown, ours: LogState) -> _Seen:
        """Verify what is known of a checkpoint now. Its log must begin with ``ours``."""
        said, text = shown.said, self._signed(shown)
        if said.size <= ours.size:
            then = earlier_state(self.ledger, shown.log, said.size)
            if then is not None and then.root() != said.root:
                self._contradicted(shown, text, said.size)
            if said.size < ours.size:
                self._lag.behind(
                    RollbackError(
                        f"the log was rolled back: {self._logs.url} shows {said.size} leaves of the log of "
                        f"{shown.log}, and {ours.size} were verified here"
                    )
                )
            return _Seen(said.size, text, None)
        tiled = self._logs.tiled(shown)
        try:
            extends = tiled.state_at(ours.size) == ours
        except (MalformedError, VerificationError) as error:
            raise self._logs.wrong(shown.log, error) from None
        if not extends:
            self._contradicted(shown, text, ours.size, tiled)
        return _Seen(said.size, text, tiled)

    def _signed(self, shown: Shown) -> str:
        """Return a checkpoint with the signature of its log alone, as the event log has it.

        The signature is verified if it is by a key that is known here. A later key is not known yet. Then the
        epoch at which the checkpoint ends is under the config with that key, and the replay of this epoch
        verifies the signature.
        """
        origin, keys = shown.said.origin, self._keys()
        ids = {verifier_key(origin, key).key_hash for key in keys}
        lines = tuple(line for line in shown.note.signatures if line.name == origin)
        known = tuple(line for line in lines if line.key_hash in ids)
        if not lines:
            raise VerificationError(
                "checkpoint", f"{shown.log}/checkpoint at {self._logs.url} is not signed by {origin}"
            )
        text = replace(shown.note, signatures=known or lines).encode()
        if known:
            try:
                open_checkpoint(text, origin, keys)
            except VerificationError as error:
                raise VerificationError(
                    error.step, f"{shown.log}/checkpoint at {self._logs.url}: {error.problem}"
                ) from None
        return text

    def _keys(self) -> Set[bytes]:
        """Return the signer keys that are known here."""
        if not self.ledger.committed.epoch:
            return {self.ledger.pinned.raw}
        chain = config_chain(self.ledger, self.ledger.committed)
        return {signed.config.signer_key.raw for signed in chain}

    def _contradicted(self, shown: Shown, text: str, size: int, tiled: TiledLog | None = None) -> NoReturn:
        """Raise the error for a log whose first ``size`` leaves are not those that were verified here."""
        error: DivergenceError | EquivocationError
        if shown.log == "mutations":
            error = contradicting_log(self.ledger, self._logs.url, text, shown.said, size)
        else:
            error = contradicting_log_of_heads(
                self.ledger,
                text,
                size,
                tiled=lambda: tiled or self._logs.tiled(shown),
                leaf=lambda number, log: self._logs.leaf("heads", log, number),
                url=self._logs.url,
            )
        if isinstance(error, DivergenceError):
            with suppress(VerificationError):
                open_checkpoint(text, shown.said.origin, self._keys())
                error = UnprovenError(str(error), shown.log, shown.said.size, text.encode())
        raise error

    def _epochs(
        self, heads: _Seen, log: TiledLog, mutations: _Seen, on_head: Callable[[], None]
    ) -> Iterator[ReplayedEpoch]:
        """Commit the epochs of ``log``, the log of heads, that both checkpoints cover."""
        begun = self.ledger.committed.epoch
        read = partial(self._records, mutations.tiled)
        replay = EpochReplay(self.ledger, read, self._observe, verifiers=self._verifiers)
        for smh in self._logs.entries("heads", log, begun):
            epoch, covered = self.ledger.committed.epoch + 1, _covered(smh)
            event = HeadEvent(
                smh,
                heads.checkpoint if epoch == heads.size else "",
                mutations.checkpoint if covered == mutations.size else "",
            )
            on_head()
            try:
                replayed = replay.advance(event)
            except _RecordsEndError:
                self._ends_within(epoch, covered, mutations.size)
                if epoch == begun + 1:
                    self._lag.behind(
                        DivergenceError(
                            f"log of mutations: records of epoch {epoch} are missing at {self._logs.url}: it "
                            f"shows {mutations.size} records, and the head covers {covered}"
                        )
                    )
                return
            yield replayed
        self.is_current = True

    def _ends_within(self, epoch: int, covered: int, records: int) -> None:
        """Judge a log of mutations that ends before epoch ``epoch``, whose head covers ``covered`` records.

        The checkpoint of the log may be older than that of the log of heads. But it ends with an epoch.
        """
        if covered <= records:
            raise DivergenceError(
                f"log of mutations: {records} records have no marker that closes epoch {epoch}, whose head "
                f"covers {covered}"
            )
        last = self.ledger.committed.log.size
        if last != records:
            raise DivergenceError(
                f"log of mutations: its checkpoint is of {records} records, which is within epoch {epoch}: "
                f"that has records {last} to {covered - 1}"
            )

    def _records(self, tiled: TiledLog | None, revision: int) -> Iterator[Event]:
        """Yield the records events from ``revision`` on, as the log of mutations must have them.

        The replay reports a record that is malformed.
        """
        sequence = self.ledger.committed.log.size
        packer = RecordPacker(sequence)
        for entry in () if tiled is None else self._logs.entries("mutations", tiled, sequence):
            for data in packer.add(entry, closes_epoch=closes_epoch(entry)):
                yield Event("", revision, RECORDS, data, uuid.UUID(int=revision))
                revision += 1
        raise _RecordsEndError

    def _check_last(self, heads: _Seen, mutations: _Seen) -> None:
        """Verify checkpoints of the state that is committed, by the key that was in force."""
        committed = self.ledger.committed
        if committed.epoch == 0:
            return
        event, head = last_head(self.ledger)
        where = f"head of epoch {committed.epoch}"
        config = config_of(config_chain(self.ledger, committed), head.config_hash, where)
        text = mutations.checkpoint if mutations.size == committed.log.size else ""
        shown = HeadEvent(event.smh_bytes, heads.checkpoint, text)
        check_checkpoints(shown, sealed(committed.log), sealed(committed.heads), config, where=where)


class _RecordsEndError(Exception):
    """The log of mutations ends before the epoch that is replayed. It may go on at the next look."""


def _covered(smh: bytes) -> int:
    """Return how many records a head says that it covers, -1 if it is malformed, which the replay reports."""
    with suppress(MalformedError):
        return SignedMapHead.decode(smh).head.log_size
    return -1
