"""A witness: it checks a checkpoint, makes it durable, and answers with its cosignature, in this order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog

from kt_es.errors import KtError
from kt_es.formats.cosignatures import verify_cosignature
from kt_es.formats.notes import MAX_SIGNATURES, Note, NoteSignature
from kt_es.formats.witnessing import SIZE_MEDIA, encode_size, origin_hash
from kt_es.witness.judging import Fork, Logs, Refusal, Signed, judge, open_request
from kt_es.witness.state import CosignedLogs, Identity

FRESH: Final = 1
"""Seconds for which a cosignature is answered again, so that repetitions cost neither signature nor disk."""
TEXT: Final = "text/plain; charset=utf-8"

_LOG = structlog.get_logger("witness")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in HTTP. ``result`` is a label of metrics."""

    status: HTTPStatus
    body: bytes
    media: str
    result: str


class Witness:
    """Safe for threads: one request at a time for each log, and any number for different ones.

    Args:
        identity: Its name and key.
        logs: The logs that it knows, and their keys.
        now: The wall clock in seconds since 1970.
    """

    def __init__(self, identity: Identity, logs: Logs, now: Callable[[], float]) -> None:
        self.identity = identity
        self.logs = logs
        self._now = now
        self._cosigned = CosignedLogs(identity)
        # Guards one log from the check until its checkpoint is durable. Known logs alone have one.
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()  # of the locks themselves

    def add_checkpoint(self, data: bytes) -> Reply:
        """Answer the request ``data``. A disk that cannot be written raises ``UnavailableError``."""
        found = open_request(data, self.logs)
        if isinstance(found, Refusal):
            return _refused(found)
        request, new = found
        origin = new.checkpoint.origin
        with self._guard:
            lock = self._locks.setdefault(origin, threading.Lock())
        with lock:
            refusal = judge(request, new.checkpoint, self._cosigned.latest(origin))
            if refusal is None:
                return self._cosign(new)
        self._note_fork(origin, new.checkpoint.size, refusal, data)
        return _refused(refusal)

    def _note_fork(self, origin: str, size: int, refusal: Refusal, data: bytes) -> None:
        """Keep and log the request ``data`` if the log may have been forked."""
        if refusal.fork is Fork.NONE:
            return
        is_proven = refusal.fork is Fork.PROVEN
        said = {"origin": origin, "size": size, "problem": refusal.problem}
        kept = None
        try:
            kept = self._cosigned.keep_fork(origin, data, is_proven=is_proven)
        except KtError as error:
            # The refusal needs no disk, and a fork that cannot be kept is to be known all the same.
            said["not_kept"] = str(error)
        if kept is not None:
            said["kept"] = str(kept)
        if is_proven:
            _LOG.error("a log was forked", **said)
        elif kept is not None:
            # Once for each log, since anybody can send such requests.
            _LOG.warning("a checkpoint does not continue its log, or came with a false proof", **said)

    def monitored(self, name: str) -> Reply:
        """Return the latest cosigned checkpoint of the log whose origin has the SHA-256 ``name`` in hex."""
        note = self._cosigned.note(name)
        if note is None:
            return Reply(HTTPStatus.NOT_FOUND, b"no checkpoint of that log was cosigned\n", TEXT, "unknown")
        return Reply(HTTPStatus.OK, note.encode().encode(), TEXT, "read")

    def _cosign(self, new: Signed) -> Reply:
        text, now = new.note.text, max(1, int(self._now()))
        lines = self._recent(new, now)
        if not lines:
            lines = self.identity.cosign(text, now)
            # Durable before anybody sees the cosignature: a crash after this forgets nothing.
            # Repeated lines of the log are left out, so that ours have room in the note.
            own = tuple(dict.fromkeys(new.note.signatures))[: MAX_SIGNATURES - len(lines)]
            self._cosigned.put(new.checkpoint.origin, Note(text, (*own, *lines)))
        return Reply(HTTPStatus.OK, "".join(line.line() for line in lines).encode(), TEXT, "cosigned")

    def _recent(self, new: Signed, now: int) -> tuple[NoteSignature, ...]:
        """Return the cosignatures of the same note, if they were made within ``FRESH`` seconds."""
        stored, keys = self._cosigned.note(origin_hash(new.checkpoint.origin)), self.identity.keys
        if stored is None or stored.text != new.note.text:
            return ()
        lines = stored.signatures[-len(keys) :]
        for line, key in zip(lines, keys, strict=True):
            # A key that was added since has cosigned nothing yet.
            if not key.made(line) or not 0 <= now - verify_cosignature(stored.text, line, key) <= FRESH:
                return ()
        return lines


def _refused(refusal: Refusal) -> Reply:
    if refusal.size is not None:
        return Reply(refusal.status, encode_size(refusal.size), SIZE_MEDIA, "size")
    return Reply(refusal.status, f"{refusal.problem}\n".encode(), TEXT, str(int(refusal.status)))
