"""The proof of the decision on a submitted mutation. FORMATS, "Status answer".

The answer has everything of the record but its item: whoever submitted the mutation has its bytes, and makes
the record of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.errors import MalformedError
from kt_es.formats.codec import decode_array, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.entries import HASH_LENGTH
from kt_es.formats.heads import MAX_CHECKPOINT, MAX_SMH
from kt_es.formats.proofs import take_hashes
from kt_es.formats.queue import Item, ItemKind, Record, Verdict

MAX_STATUS_ANSWER = 16 * 1024
MAX_HEADS_PROOF = 128
_WHAT = "status answer"


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """``[checkpoint, smhs, heads proof, sequence, revision, position, verdict, inclusion]``.

    ``smhs`` are the head of the epoch that decided the mutation and the one before it, which the first epoch
    does not have. ``heads_proof`` is the proof of ``merkle.log.plan_range`` that they are leaves of the log
    of ``heads_checkpoint``. ``inclusion`` leads from the record to the ``log_root`` of the last head.
    """

    heads_checkpoint: str
    smhs: tuple[bytes, ...]
    heads_proof: tuple[bytes, ...]
    sequence: int
    revision: int
    position: int
    verdict: Verdict
    inclusion: tuple[bytes, ...]

    def record(self, item: bytes) -> Record:
        """Return the record of the mutation whose bytes are ``item``."""
        content = Item(self.revision, self.position, ItemKind.MUTATION, item)
        return Record(self.sequence, content, self.verdict)

    def encode(self) -> bytes:
        where = [self.sequence, self.revision, self.position, int(self.verdict)]
        return encode([self.heads_checkpoint, self.smhs, self.heads_proof, *where, self.inclusion])

    @classmethod
    def decode(cls, data: bytes) -> StatusAnswer:
        fields = decode_array(data, _WHAT, 8, most=MAX_STATUS_ANSWER)
        checkpoint, smhs, proof, sequence, revision, position, verdict, inclusion = fields
        try:
            known = Verdict(take_uint(verdict, f"{_WHAT} verdict"))
        except ValueError as error:
            raise MalformedError(f"{_WHAT} verdict", str(error)) from None
        return cls(
            take_text(checkpoint, f"{_WHAT} checkpoint", 1, MAX_CHECKPOINT),
            tuple(
                take_bytes(smh, f"{_WHAT} smh", 1, MAX_SMH) for smh in take_array(smhs, f"{_WHAT} smhs", 1, 2)
            ),
            tuple(
                take_bytes(value, f"{_WHAT} heads proof", HASH_LENGTH)
                for value in take_array(proof, f"{_WHAT} heads proof", 0, MAX_HEADS_PROOF)
            ),
            take_uint(sequence, f"{_WHAT} sequence"),
            take_uint(revision, f"{_WHAT} queue revision"),
            take_uint(position, f"{_WHAT} position"),
            known,
            take_hashes(inclusion, f"{_WHAT} inclusion"),
        )
