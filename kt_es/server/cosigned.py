"""The latest cosignatures of both logs: verified, kept in memory, and answered.

Nothing is believed because it stands in the stream. A note counts if its checkpoint is one of the logs that
were verified here, if a signer key of the directory signed it, and if the cosignatures by known cosigners
verify. Cosignatures by others are left out of the answers. If a signer key has signed a checkpoint of another
log, it is evidence against the directory, whoever wrote it into the stream.

A cosignature over a larger checkpoint is newer, whatever its time: the clock of a cosigner may be wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kt_es.api.cosigned import MAX_COSIGNED, CosignedBody
from kt_es.api.operations import ProblemReason
from kt_es.errors import (
    EquivocationError,
    MalformedError,
    RefusedError,
    UnavailableError,
    UnverifiedRowError,
    VerificationError,
)
from kt_es.formats.cosignatures import (
    MAX_COSIGNED_NOTE,
    CosignerKey,
    verify_cosignature,
    with_cosignatures,
)
from kt_es.formats.heads import LOG_NAMES, Checkpoint, LogName, log_origins
from kt_es.formats.notes import Note, NoteSignature, parse_note, verifier_key, verify_note
from kt_es.ledger.comparing import compare_checkpoint
from kt_es.ledger.ledger import config_chain
from kt_es.ledger.rows import Committed
from kt_es.server.handlers import DirectoryReader
from kt_es.server.responses import NotNowError

MAX_WAITING = 1024
"""Notes of the stream that wait until this front end has verified their checkpoints."""


@dataclass(frozen=True, slots=True)
class Cosignature:
    """One cosignature over a checkpoint of ``size``. ``note`` has the log's own signature alone."""

    size: int
    timestamp: int
    note: Note
    line: NoteSignature


@dataclass(frozen=True, slots=True)
class _Read:
    """A note whose checkpoint is of ``log``, before anything in it is verified."""

    log: LogName
    checkpoint: Checkpoint
    note: Note


class CosignedHeads:
    """The latest cosignature of each of ``cosigners`` over each log. Safe for threads.

    Args:
        directory: The logs that were verified here.
        origin: The origin of the directory.
        cosigners: The keys of the known cosigners.
        changed: Called with log, key of the cosigner, and time of each new cosignature.
        contradicted: Called with the evidence, if the directory signed another log than was verified here.
    """

    def __init__(
        self,
        directory: DirectoryReader,
        origin: str,
        cosigners: Sequence[CosignerKey],
        changed: Callable[[LogName, CosignerKey, int], None] = lambda *_: None,
        contradicted: Callable[[EquivocationError], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._logs = {found: log for log, found in log_origins(origin).items()}
        self._cosigners = tuple(cosigners)
        self._changed = changed
        self._contradicted = contradicted
        # Whether the stream was read to its end, so that no old cosignature passes for the latest one.
        self.is_complete = not self._cosigners
        self._lock = threading.Lock()
        self._latest: dict[LogName, dict[CosignerKey, Cosignature]] = {"heads": {}, "mutations": {}}
        self._waiting: list[_Read] = []  # the oldest first

    def follow(self, data: bytes) -> None:
        """Take a note of the stream. Notes of checkpoints that are not verified here yet wait for them.

        Raises ``MalformedError`` and ``VerificationError``.
        """
        read = self._read(data)
        if self._is_ahead(read):
            with self._lock:
                self._waiting.append(read)
                del self._waiting[:-MAX_WAITING]
            return
        self._take(read, self._cosigners)

    def retry(self) -> Iterable[MalformedError | VerificationError]:
        """Take the notes that waited for an epoch that is committed now. Yield what is wrong with them."""
        if not self._waiting:
            return
        with self._lock:
            due = [read for read in self._waiting if not self._is_ahead(read)]
            self._waiting = [read for read in self._waiting if self._is_ahead(read)]
        for read in due:
            try:
                self._take(read, self._cosigners)
            except (UnavailableError, UnverifiedRowError):
                # The shared store is away or late: the next epoch is another chance.
                with self._lock:
                    self._waiting.append(read)
            except (MalformedError, VerificationError) as error:
                yield error

    def offer(self, note: str, allowed: Sequence[CosignerKey]) -> bytes | None:
        """Verify a note that a cosigner has sent. Return the note for the stream, None if it is not newer.

        Args:
            note: The checkpoint with its signature, and a cosignature by one of ``allowed``.
            allowed: The keys whose holders may send notes.

        Raises:
            RefusedError: The note is malformed, of another log or not by one of ``allowed``, or a signature
                in it does not verify.
            UnavailableError: Its checkpoint is not verified here yet, or nothing is answered here any more.
        """
        # A front end that has stopped compares nothing any more.
        self._directory.committed()
        try:
            read = self._read(note.encode())
            if self._is_ahead(read):
                raise NotNowError("this front end has not verified that checkpoint yet; send it again later")
            found = self._verified(read, allowed)
        except MalformedError as error:
            raise RefusedError(ProblemReason.MALFORMED, error.problem, "note") from None
        except VerificationError as error:
            raise RefusedError(ProblemReason.UNAUTHORIZED, str(error), "note") from None
        if not found:
            problem = "has no cosignature by a key that this directory knows as a monitor's"
            raise RefusedError(ProblemReason.UNAUTHORIZED, problem, "note")
        with self._lock:
            known = self._latest[read.log]
            newer = [each for key, each in found.items() if _is_newer(each, known.get(key))]
        if not newer:
            return None
        return with_cosignatures(newer[0].note, [each.line for each in newer])[0].encode().encode()

    def answer(self) -> CosignedBody:
        """Return the newest checkpoints that hold the latest cosignature of each cosigner.

        Raises ``UnavailableError`` if this front end has no epoch yet, has not read all cosignatures after
        its start, or answers nothing any more.
        """
        self._directory.committed()
        if not self.is_complete:
            raise NotNowError("this front end is still reading the cosignatures; ask again in a moment")
        with self._lock:
            heads, mutations = (list(self._latest[log].values()) for log in LOG_NAMES)
        return CosignedBody(_notes(heads), _notes(mutations))

    def _read(self, data: bytes) -> _Read:
        if len(data) > MAX_COSIGNED_NOTE:
            raise MalformedError("note", f"must have at most {MAX_COSIGNED_NOTE} bytes")
        note = parse_note(data)
        checkpoint = Checkpoint.parse(note.text)
        log = self._logs.get(checkpoint.origin)
        if log is None:
            raise VerificationError(
                "checkpoint", f"is of the log {checkpoint.origin}, which is not served here"
            )
        if not checkpoint.size:
            raise VerificationError("checkpoint", "is of an empty log")
        return _Read(log, checkpoint, note)

    def _is_ahead(self, read: _Read) -> bool:
        committed = self._directory.ledger.committed
        return read.checkpoint.size > _size(committed, read.log)

    def _take(self, read: _Read, cosigners: Sequence[CosignerKey]) -> None:
        if self._directory.failure is not None:
            return
        for key, each in self._verified(read, cosigners).items():
            with self._lock:
                known = self._latest[read.log]
                if not _is_newer(each, known.get(key)):
                    continue
                known[key] = each
            self._changed(read.log, key, each.timestamp)

    def _verified(self, read: _Read, cosigners: Sequence[CosignerKey]) -> dict[CosignerKey, Cosignature]:
        """Return the cosignatures by ``cosigners``. The checkpoint must not be ahead.

        Raises ``VerificationError`` and ``UnverifiedRowError``.
        """
        ledger, encoded = self._directory.ledger, read.note.encode()
        try:
            compare_checkpoint(ledger, read.log, encoded.encode())
        except EquivocationError as error:
            self._contradicted(error)
            raise
        signers = {signed.config.signer_key.raw for signed in config_chain(ledger, ledger.committed)}
        keys = [verifier_key(read.checkpoint.origin, signer) for signer in sorted(signers)]
        own = verify_note(encoded, keys, step="checkpoint")
        found: dict[CosignerKey, Cosignature] = {}
        for line in read.note.signatures:
            for key in cosigners:
                if key.made(line):
                    timestamp = verify_cosignature(read.note.text, line, key)
                    each = Cosignature(read.checkpoint.size, timestamp, own, line)
                    if _is_newer(each, found.get(key)):
                        found[key] = each
        return found


def _size(committed: Committed, log: LogName) -> int:
    return (committed.heads if log == "heads" else committed.log).size


def _is_newer(new: Cosignature, known: Cosignature | None) -> bool:
    return known is None or (new.size, new.timestamp) > (known.size, known.timestamp)


def _notes(latest: Sequence[Cosignature]) -> tuple[str, ...]:
    """Return one note for each checkpoint, with its cosignatures, the largest checkpoints first."""
    by_text: dict[str, list[Cosignature]] = {}
    for each in sorted(latest, key=lambda each: (-each.size, -each.timestamp, each.line.name)):
        by_text.setdefault(each.note.text, []).append(each)
    notes = [
        note
        for found in by_text.values()
        for note in with_cosignatures(found[0].note, [each.line for each in found])
    ]
    return tuple(note.encode() for note in notes[:MAX_COSIGNED])
