"""A monitor watches whether witnesses and other monitors vouch for the log, by its operator's policies.

Front ends answer with the latest cosigned heads. The monitor compares each with its own log, as ``gossip``
does, and raises an alarm while no quorum vouches, or one vouches for a head that is too old. That proves
nothing, so it is an alarm and no fault.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from kt_es.client.elsewhere import Elsewhere, Place
from kt_es.client.vouching import Policies, cosigner_keys, quorum_epoch
from kt_es.errors import (
    EquivocationError,
    KtError,
    MalformedError,
    UnavailableError,
    VerificationError,
)
from kt_es.formats.cosignatures import read_cosigned
from kt_es.formats.heads import LogName
from kt_es.formats.policies import Policy
from kt_es.ledger.clock import spoken
from kt_es.ledger.comparing import STEP, compare_checkpoint
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.proofs import head_at
from kt_es.ledger.rows import Committed
from kt_es.process.signals import working
from projections.auditor import Alarm, Notice

_LOG = structlog.get_logger("monitor")


class Quorums:
    """Judges the log of ``ledger`` by ``policies``. One thread calls ``look``.

    ``notify`` gets the alarm when it begins and when it ends.
    """

    def __init__(
        self,
        policies: Policies,
        places: Sequence[Place],
        ledger: Ledger,
        notify: Callable[[Notice], None],
        unproven: Callable[[Place, LogName, bytes, VerificationError], KtError],
    ) -> None:
        """``unproven`` returns the error for another signed log that nothing kept here proves."""
        self.policies = policies
        self._unproven = unproven
        self._places = [place for place in places if isinstance(place, Elsewhere)]
        self._ledger = ledger
        self._notify = notify
        self._keys = cosigner_keys(policies)
        # By kind and name of a cosigner, up to which epoch it vouches.
        self._reached: dict[str, dict[str, int]] = {kind: {} for kind in self._keys}
        self._raised = ""

    def look(self) -> None:
        """Ask every place, judge, and notify. Raises ``EquivocationError`` and ``DivergenceError``."""
        committed = self._ledger.committed
        if not committed.epoch:
            return
        for place in self._places:
            try:
                notes = place.cosigned()
            except (UnavailableError, MalformedError) as error:
                _LOG.warning("cosigned heads not read", url=place.url, problem=str(error))
                continue
            for note in notes:
                self._take(place, note, committed)
        judged = [self._judge(kind, policy) for kind, policy in self.policies.named()]
        sentence = "; ".join(problem for problem in judged if problem)
        if sentence and not self._raised:
            self._notify(Notice(Alarm.QUORUM, raised=True, sentence=sentence))
        elif self._raised and not sentence:
            self._notify(Notice(Alarm.QUORUM, raised=False, sentence="a quorum vouches again"))
        self._raised = sentence

    def _take(self, place: Elsewhere, note: str, committed: Committed) -> None:
        try:
            cosigners = read_cosigned(note, {key for known in self._keys.values() for key in known}).cosigners
            if not cosigners:
                return
            compared = compare_checkpoint(self._ledger, "heads", note.encode(), committed)
        except EquivocationError:
            raise
        except (MalformedError, VerificationError, UnavailableError) as error:
            if isinstance(error, VerificationError) and error.step == STEP:
                raise self._unproven(place, "heads", note.encode(), error) from None
            # Junk counts as nothing, and so does what is left out or older than everything here.
            return
        if compared.ahead:
            return  # it is going to count when it is verified here
        for kind, known in self._keys.items():
            reached = self._reached[kind]
            for key in cosigners:
                if key in known:
                    reached[known[key]] = max(compared.size, reached.get(known[key], 0))

    def _judge(self, kind: str, policy: Policy) -> str:
        """Return what is wrong; empty if a quorum vouches for a head that is recent enough."""
        reached: Mapping[str, int] = self._reached[kind]
        epoch = quorum_epoch(policy, reached)
        if epoch is None:
            who = ", ".join(sorted(reached)) or "nobody"
            return f"no quorum {policy.quorum} of {kind} vouches for this log: only {who}"
        if not epoch:
            return ""
        committed = self._ledger.committed
        older = committed.standing.timestamp - head_at(self._ledger, epoch)[1].timestamp
        if older <= self.policies.age * 1000:
            return ""
        return (
            f"the quorum {policy.quorum} of {kind} vouches up to epoch {epoch} only, which is "
            f"{spoken(older)} older than epoch {committed.epoch}"
        )


@contextmanager
def watching_quorums(quorums: Quorums, interval: float, ending: threading.Event) -> Iterator[None]:
    """Look every ``interval`` seconds while the block runs, if there are policies.

    Evidence sets ``ending``, and is raised when the block ends.
    """
    if not any(True for _ in quorums.policies.named()):
        yield
        return

    def run(stop: threading.Event) -> None:
        while not stop.is_set():
            quorums.look()
            stop.wait(interval)

    with working("quorums", run, ending):
        yield
