"""A monitor compares what it verified with what others are shown, now and then, in a thread of its own.

A checkpoint that contradicts the monitor's log ends the monitor with evidence, wherever it was found.
Anything else that goes wrong may be somebody else's trouble, and is only reported.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from kt_es.client.elsewhere import TIMEOUT, Elsewhere, Place
from kt_es.errors import (
    DivergenceError,
    EquivocationError,
    MalformedError,
    UnavailableError,
    VerificationError,
)
from kt_es.evidence import contradicting_checkpoints, contradicting_heads, convicted_elsewhere, shown_by
from kt_es.formats.heads import LogName
from kt_es.ledger.clock import max_interval, spoken
from kt_es.ledger.comparing import STEP, compare_checkpoint
from kt_es.ledger.convicting import signer_keys
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.rows import Committed
from kt_es.process.signals import working
from projections.tiles.comparing import check_continues, proven_by_tiles
from projections.tiles.reading import said_of
from projections.tiles.server import TileServer
from projections.unproven import keep_unproven

INTERVAL = 60.0
"""Seconds between two questions to the same place."""

_TICK = 1.0  # seconds between two looks at checkpoints that were ahead
_SLACK = 60_000  # ms that a monitor may be behind others, beside an interval of the directory

_LOG = structlog.get_logger("monitor")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What is known of one place.

    ``agreed`` is the time, in ms, at which a checkpoint of ``heads`` heads from there was found to be of the
    same log; None if none was. ``ahead`` is how many heads it showed that are not verified here yet.
    ``problem`` is empty unless something is wrong.
    """

    url: str
    agreed: int | None = None
    heads: int = 0
    ahead: int = 0
    problem: str = ""


@dataclass(slots=True)
class _Place:
    """One place, with the first checkpoint of each log that could not be compared yet, and since when."""

    source: Place
    known: Neighbour
    waiting: dict[LogName, tuple[bytes, float]] = field(default_factory=dict)


class Gossip:
    """Compares with several places. One thread compares, and any thread may read ``neighbours``."""

    def __init__(
        self,
        sources: Sequence[Place],
        ledger: Ledger,
        now: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        agreed: Callable[[str, int], None] = lambda *_: None,
        own: Place | None = None,
        data: Path | None = None,
        logs: bool = True,
    ) -> None:
        """Compare with ``sources``.

        Args:
            sources: The places. The caller closes them.
            ledger: What was verified here.
            now: The wall clock in ms.
            monotonic: A clock in seconds.
            agreed: Called with the place and the time, in ms, when it was found to show the same log.
            own: Who shows the log that is verified here, asked for a signed statement that is not kept
                here; None if all are. The caller closes it.
            data: The data directory, where half of a proof is kept; None for none.
            logs: Log what is found, for a process. A command says it itself.
        """
        self._logs = logs
        self._own = own
        self._data = data
        self._ledger = ledger
        self._now = now
        self._monotonic = monotonic
        self._agreed = agreed
        self._places = [_Place(source, Neighbour(source.url)) for source in sources]

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        return tuple(place.known for place in self._places)

    def run(self, stop: threading.Event, interval: float = INTERVAL) -> None:
        """Ask every ``interval`` seconds until ``stop``.

        Raises ``EquivocationError``, and ``DivergenceError`` for another signed log that nothing proves.
        """
        while not stop.is_set():
            self.ask()
            until = self._monotonic() + interval
            while (left := until - self._monotonic()) > 0 and not stop.wait(min(_TICK, left)):
                self.settle()

    def ask(self) -> None:
        """Fetch the checkpoints of every place and compare them. Raises ``EquivocationError``."""
        for place in self._places:
            self._note(place, self._ask)

    def settle(self) -> None:
        """Compare the checkpoints that were ahead, as far as possible now. Raises ``EquivocationError``."""
        for place in self._places:
            if place.waiting:
                self._note(place, self._settle)

    def _note(self, place: _Place, compare: Callable[[_Place], None]) -> None:
        before = place.known
        try:
            compare(place)
        except EquivocationError as error:
            raise shown_by(error, place.source.url) from None
        except (UnavailableError, MalformedError, VerificationError) as error:
            place.known = replace(before, problem=str(error))
        after = place.known
        if not self._logs:
            return
        if after.problem and after.problem != before.problem:
            _LOG.warning("not compared", url=after.url, problem=after.problem)
        elif after.agreed is not None and (before.agreed is None or before.problem):
            _LOG.info("compared", url=after.url, heads=after.heads)

    def _ask(self, place: _Place) -> None:
        self._settle(place)
        keys = signer_keys(self._ledger)
        for shown in place.source.evidence():
            if error := convicted_elsewhere(shown, self._ledger.committed.standing.origin, keys):
                raise error
        checkpoints = list(place.source.checkpoints())
        committed = self._ledger.committed
        for log, checkpoint in checkpoints:
            self._compare(place, log, checkpoint, committed)
        self._judge(place)

    def compare_ahead(self) -> None:
        """Compare the checkpoints that were ahead at the size that is verified here, by tiles.

        Raises ``EquivocationError``, and ``DivergenceError`` for another signed log that nothing proves.
        """
        for place in self._places:
            if place.waiting:
                self._note(place, self._compare_ahead)

    def _compare_ahead(self, place: _Place) -> None:
        waiting, ours = place.waiting.get("heads"), self._ledger.committed.heads.size
        if waiting is None or not isinstance(place.source, Elsewhere):
            return
        with closing(TileServer(place.source.address, timeout=TIMEOUT)) as tiles:
            try:
                check_continues(self._ledger, tiles, waiting[0])
            except DivergenceError as error:
                raise self._kept("heads", waiting[0], str(error)) from None
        # Each head names the log of mutations, so that one is the same as well.
        place.known = replace(place.known, agreed=self._now(), heads=ours, problem="")

    def _settle(self, place: _Place) -> None:
        committed = self._ledger.committed
        for log, (checkpoint, _) in list(place.waiting.items()):
            self._compare(place, log, checkpoint, committed)
        self._judge(place)

    def _compare(self, place: _Place, log: LogName, checkpoint: bytes, committed: Committed) -> None:
        try:
            compared = compare_checkpoint(self._ledger, log, checkpoint, committed)
        except EquivocationError:
            raise
        except VerificationError as error:
            if error.step != STEP:
                raise
            raise self.unproven(place.source, log, checkpoint, error) from None
        if compared.ahead:
            # The first one is kept, so that others that follow do not put the comparison off for ever.
            place.waiting.setdefault(log, (checkpoint, self._monotonic()))
            if log == "heads":
                place.known = replace(place.known, ahead=compared.ahead)
            return
        if log in place.waiting and place.waiting[log][0] == checkpoint:
            del place.waiting[log]
        if log == "heads":
            place.known = Neighbour(place.known.url, self._now(), compared.size)
            self._agreed(place.known.url, self._now())

    def unproven(
        self, source: Place, log: LogName, checkpoint: bytes, error: VerificationError
    ) -> EquivocationError | DivergenceError:
        """Return the error for another log that the directory signed, with evidence if ``source`` has tiles.

        A replay from tiles has no checkpoint of most epochs, but each head. Two heads are evidence as well.
        Any thread may call it.
        """
        if log == "heads" and isinstance(source, Elsewhere):
            with closing(TileServer(source.address, timeout=TIMEOUT)) as tiles:
                proven = proven_by_tiles(self._ledger, tiles, checkpoint)
            if proven is not None:
                return proven
        text, size = checkpoint.decode(), said_of(checkpoint)
        if log == "heads" and (proven := self._proven_by_own(text, size)) is not None:
            return shown_by(proven, source.url)
        return self._kept(log, checkpoint, f"{source.url}: {error.problem}")

    def _kept(self, log: LogName, checkpoint: bytes, problem: str) -> DivergenceError:
        """Keep half of a proof, and return the error that says so."""
        kept = keep_unproven(self._data, log, said_of(checkpoint), checkpoint)
        return DivergenceError(f"{problem}; {kept}")

    def _proven_by_own(self, checkpoint: str, size: int) -> EquivocationError | None:
        """Return evidence with the checkpoint of the same size that the own server shows, None without it."""
        try:
            reply = None if self._own is None else self._own.head(size)
        except (UnavailableError, MalformedError):
            return None
        if reply is None:
            return None
        committed = self._ledger.committed
        chain, origin = config_chain(self._ledger, committed), committed.standing.origin
        found = contradicting_checkpoints(STEP, origin, chain, reply.heads_checkpoint, checkpoint)
        return found or contradicting_heads(
            STEP, origin, chain, self._ledger.tables.heads.event(size).smh_bytes, reply.smh
        )

    def _judge(self, place: _Place) -> None:
        """Report checkpoints that are ahead for longer than a head may take."""
        allowed = max_interval(self._ledger.committed.standing.config) + _SLACK
        waits = [int((self._monotonic() - since) * 1000) for _, since in place.waiting.values()]
        problem = ""
        if waits and max(waits) > allowed:
            problem = (
                "it shows heads that were not published to this monitor: the monitor is behind, or they are "
                f"withheld from it (for longer than {spoken(allowed)})"
            )
        place.known = replace(place.known, problem=problem)


@contextmanager
def gossiping(gossip: Gossip, interval: float, ending: threading.Event) -> Iterator[None]:
    """Compare in a thread while the block runs. Evidence sets ``ending``; it is raised as the block ends."""
    if not gossip.neighbours:
        yield
        return
    with working("gossip", lambda stop: gossip.run(stop, interval), ending):
        yield


def compare_once(
    sources: Sequence[Place],
    ledger: Ledger,
    now: Callable[[], int],
    *,
    own: Place | None = None,
    data: Path | None = None,
) -> tuple[Neighbour, ...]:
    """Compare with each place once, also with those that are ahead, and return what was found.

    Raises ``EquivocationError``, and ``DivergenceError`` for another signed log that nothing proves.
    """
    gossip = Gossip(sources, ledger, now, own=own, data=data, logs=False)
    gossip.ask()
    gossip.compare_ahead()
    return gossip.neighbours
