"""What a witness answers to a request, and why. Source: C2SP tlog-witness, "add-checkpoint".

The caller holds the lock of the log from reading ``latest`` until the new checkpoint is durable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus

from kt_es.crypto.hashes import EMPTY_LOG_ROOT
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.heads import Checkpoint
from kt_es.formats.notes import Note, VerifierKey, verify_note
from kt_es.formats.witnessing import AddCheckpoint, origin_of, witnessed
from kt_es.merkle.verify import log_root_from_consistency

Logs = Mapping[str, Collection[VerifierKey]]
"""The keys of each known log, by its origin."""


class Fork(Enum):
    """What a checkpoint that is not cosigned says about its log, which has signed it.

    ``PROVEN``: it signed another root of the size that was cosigned last. ``UNPROVEN``: the proof does not
    verify. Anybody may send a false proof with a true checkpoint, so that says nothing about the log.
    """

    NONE = auto()
    PROVEN = auto()
    UNPROVEN = auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The checkpoint is not cosigned.

    Attributes:
        size: Where the log stands here, if the request named another size.
        fork: Whether the log may have been forked.
    """

    status: HTTPStatus
    problem: str
    size: int | None = None
    fork: Fork = Fork.NONE


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint, and its note with the signatures of the log's known keys alone."""

    checkpoint: Checkpoint
    note: Note


def open_request(data: bytes, logs: Logs) -> tuple[AddCheckpoint, Signed] | Refusal:
    """Return a request and the checkpoint in it, which a known key of its log has signed."""
    try:
        request = AddCheckpoint.parse(data)
        origin = origin_of(request.note)
    except MalformedError as error:
        return Refusal(HTTPStatus.BAD_REQUEST, str(error))
    keys = logs.get(origin)
    if keys is None:
        return Refusal(HTTPStatus.NOT_FOUND, "this witness does not know the log")
    try:
        note = verify_note(request.note, keys)
    except VerificationError as error:
        return Refusal(HTTPStatus.FORBIDDEN, str(error))
    checkpoint = witnessed(note.text)
    if request.old > checkpoint.size:
        return Refusal(HTTPStatus.BAD_REQUEST, "the old size is larger than that of the checkpoint")
    return request, Signed(checkpoint, note)


def judge(request: AddCheckpoint, new: Checkpoint, latest: Checkpoint | None) -> Refusal | None:
    """Return why ``new`` may not be cosigned after ``latest``; None if it continues it.

    ``latest`` is the checkpoint of the same log that was cosigned last, None if none ever was.
    """
    size = 0 if latest is None else latest.size
    if request.old != size:
        return Refusal(HTTPStatus.CONFLICT, "another size was cosigned last", size)
    root = EMPTY_LOG_ROOT if latest is None else latest.root
    if size == new.size and new.root != root:
        problem = "this size was cosigned with another root"
        return Refusal(HTTPStatus.CONFLICT, problem, fork=Fork.NONE if latest is None else Fork.PROVEN)
    if size in (0, new.size):
        if request.proof:
            return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "the proof must be empty")
        return None
    try:
        root = log_root_from_consistency(size, new.size, root, request.proof)
    except (MalformedError, VerificationError) as error:
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), fork=Fork.UNPROVEN)
    if root != new.root:
        problem = "the proof does not lead to the root of the checkpoint"
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, problem, fork=Fork.UNPROVEN)
    return None
