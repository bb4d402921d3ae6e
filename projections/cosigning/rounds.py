"""One round: both checkpoints of a head to every witness, the log of heads first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from kt_es.errors import KtError, UnavailableError
from kt_es.formats.cosignatures import CosignerKey, with_cosignatures
from kt_es.formats.heads import Checkpoint
from kt_es.formats.notes import Note, NoteSignature, parse_note
from kt_es.formats.witnessing import AddCheckpoint
from projections.cosigning.asking import OtherSize, Refused, WitnessClient, WitnessSignature
from projections.cosigning.memory import Memory
from projections.cosigning.metrics import CosignMetrics

MAX_ATTEMPTS: Final = 3
"""Requests about one checkpoint to one witness. The second one follows a 409; another may have asked too."""
THREADS: Final = 16

Prove = Callable[[str, int, int], tuple[bytes, ...]]
"""Returns the proof that the log (heads, mutations) of the second size continues that of the first."""

_LOG = structlog.get_logger("cosign")


@dataclass(frozen=True, slots=True)
class _Outcome:
    witness: WitnessClient
    answer: WitnessSignature | Refused


class Rounds:
    """Asks ``witnesses`` with the proofs of ``prove``, and remembers in ``memory`` what they have seen.

    One thread calls ``ask``. It asks the witnesses side by side, so slow ones delay a round once.
    """

    def __init__(
        self, witnesses: Sequence[WitnessClient], memory: Memory, prove: Prove, metrics: CosignMetrics
    ) -> None:
        self._witnesses = witnesses
        self._memory = memory
        self._prove = prove
        self._metrics = metrics
        self._problems: dict[tuple[str, str], str] = {}
        self._cosigning: set[tuple[str, str]] = set()  # witnesses and logs that were cosigned once
        self._not_before: dict[CosignerKey, float] = {}  # monotonic seconds
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="witness")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, log: str, note: str, stop: threading.Event) -> list[bytes]:
        """Return the notes to publish: ``note`` with new cosignatures. What was cosigned is remembered.

        Raises ``MalformedError`` if ``note`` is no checkpoint, and ``UnavailableError`` if the disk is full.
        """
        parsed = parse_note(note)
        checkpoint = Checkpoint.parse(parsed.text)
        now = time.monotonic()
        due = [witness for witness in self._witnesses if self._not_before.get(witness.key, now) <= now]
        asked = [self._pool.submit(self._ask, witness, log, checkpoint, note, stop) for witness in due]
        outcomes = [future.result() for future in asked]
        lines: list[NoteSignature] = []
        for outcome in outcomes:
            self._report(outcome, log, checkpoint)
            if isinstance(outcome.answer, WitnessSignature):
                lines.append(outcome.answer.line)
        self._memory.keep(
            {
                (outcome.witness.key, checkpoint.origin): checkpoint.size
                for outcome in outcomes
                if isinstance(outcome.answer, WitnessSignature)
            }
        )
        own = Note(parsed.text, parsed.signatures[:1])
        return [made.encode().encode() for made in with_cosignatures(own, lines)]

    def _ask(
        self, witness: WitnessClient, log: str, checkpoint: Checkpoint, note: str, stop: threading.Event
    ) -> _Outcome:
        old = self._memory.size(witness.key, checkpoint.origin)
        for _ in range(MAX_ATTEMPTS):
            if old > checkpoint.size:
                problem = (
                    f"it says that it has cosigned {old} leaves of {checkpoint.origin}, and the log has "
                    f"{checkpoint.size}: the log was rolled back, or the witness lies"
                )
                return _Outcome(witness, Refused("ahead", problem))
            if stop.is_set():
                return _Outcome(witness, Refused("stopped", "kt cosign is stopping"))
            try:
                proof = () if old in (0, checkpoint.size) else self._prove(log, old, checkpoint.size)
            except KtError as error:
                return _Outcome(witness, Refused("no-proof", f"the front end does not prove: {error}"))
            answer = witness.ask(AddCheckpoint(old, proof, note))
            if not isinstance(answer, OtherSize):
                return _Outcome(witness, answer)
            if answer.size == old:
                return _Outcome(witness, Refused("lie", f"it refuses the size {old}, which it names itself"))
            old = answer.size
        return _Outcome(witness, Refused("conflict", "it names another size each time that it is asked"))

    def _report(self, outcome: _Outcome, log: str, checkpoint: Checkpoint) -> None:
        """Count the outcome, and log it if it is another one than the last time."""
        witness, answer = outcome.witness, outcome.answer
        place = witness.name, log
        before = self._problems.pop(place, None)
        if isinstance(answer, WitnessSignature):
            self._metrics.cosigned(witness.name, log, answer.timestamp)
            if before is not None or place not in self._cosigning:
                said = "a witness cosigns" if before is None else "a witness cosigns again"
                _LOG.info(said, witness=witness.name, log=log, size=checkpoint.size)
            self._cosigning.add(place)
            return
        self._metrics.refused(witness.name, log, answer.result)
        self._problems[place] = answer.result
        if answer.wait:
            self._not_before[witness.key] = time.monotonic() + answer.wait
        if before != answer.result:
            serious = answer.result in {"lie", "ahead", "409", "422"}
            (_LOG.error if serious else _LOG.warning)(
                "a witness does not cosign",
                witness=witness.name,
                log=log,
                size=checkpoint.size,
                result=answer.result,
                problem=answer.problem,
            )


def patient(prove: Prove, seconds: float, stop: threading.Event) -> Prove:
    """Return ``prove`` that waits up to ``seconds`` for a front end that has not verified the head yet."""

    def attempt(log: str, old: int, size: int) -> tuple[bytes, ...]:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return prove(log, old, size)
            except KtError as error:
                if time.monotonic() >= deadline:
                    raise
                if stop.wait(0.2):
                    raise UnavailableError("kt cosign is stopping") from error

    return attempt
