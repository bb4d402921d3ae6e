"""Requests to witnesses, and what they answer besides cosignatures. Source: C2SP tlog-witness.

A request to ``add-checkpoint`` has the size that the witness cosigned last, the consistency proof from there,
an empty line, and the checkpoint as its log signed it::

  old 20852014
  PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=

  example.com/behind-the-sofa
  20852163
  CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

  — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kt_es.crypto.hashes import HASH_SIZE, sha256
from kt_es.errors import MalformedError
from kt_es.formats.heads import MAX_LOG_SIZE, Checkpoint
from kt_es.formats.notes import decode_base64, encode_base64, parse_note

ADD_CHECKPOINT: Final = "add-checkpoint"
SIZE_MEDIA: Final = "text/x.tlog.size"
"""The media type of the answer that names the size that the witness has cosigned last."""

MAX_PROOF: Final = 63
"""Hashes of a consistency proof, at most."""

MAX_REQUEST: Final = 64 * 1024
"""Bytes of a request that a witness of kt-es takes. One of kt-es itself has at most 3.5 KiB."""

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that kt-es reads. Sixteen cosignatures of ML-DSA-44 have 53 KiB."""

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_WHAT: Final = "add-checkpoint"


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request: the ``old`` size, the proof from it, and the note of the checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    note: str

    def __post_init__(self) -> None:
        if not 0 <= self.old <= MAX_LOG_SIZE:
            raise MalformedError(_WHAT, f"the old size must be in 0 to {MAX_LOG_SIZE}")
        _check_proof(len(self.proof))
        if any(len(value) != HASH_SIZE for value in self.proof):
            raise MalformedError(_WHAT, f"each hash of the proof must have {HASH_SIZE} bytes")

    def encode(self) -> bytes:
        lines = [f"old {self.old}\n", *(f"{encode_base64(value)}\n" for value in self.proof), "\n", self.note]
        return "".join(lines).encode()

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        """Parse a request of at most ``MAX_REQUEST`` bytes, but not its note. Raises ``MalformedError``."""
        if len(data) > MAX_REQUEST:
            raise MalformedError(_WHAT, f"must have at most {MAX_REQUEST} bytes, has {len(data)}")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise MalformedError(_WHAT, "is not valid UTF-8") from None
        before, separator, note = text.partition("\n\n")
        if not separator:
            raise MalformedError(_WHAT, "has no empty line between the proof and the checkpoint")
        first, *proof = before.split("\n")
        size = first.removeprefix("old ")
        if size == first or not _SIZE.fullmatch(size):
            raise MalformedError(_WHAT, "must begin with a line such as 'old 0'")
        _check_proof(len(proof))
        request = cls(int(size), tuple(decode_base64(line, _WHAT) for line in proof), note)
        if request.encode() != data:
            raise MalformedError(_WHAT, "is not in its one encoding")
        return request


def _check_proof(count: int) -> None:
    if count > MAX_PROOF:
        raise MalformedError(_WHAT, f"a proof has at most {MAX_PROOF} hashes, this one has {count}")


def encode_size(size: int) -> bytes:
    """Return the body of an answer of the media type ``SIZE_MEDIA``."""
    return b"%d\n" % size


def parse_size(body: bytes) -> int:
    """Read the body of an answer of the media type ``SIZE_MEDIA``. Raises ``MalformedError``."""
    text = body[:32].decode("latin-1")
    if not text.endswith("\n") or not _SIZE.fullmatch(text[:-1]) or int(text) > MAX_LOG_SIZE:
        raise MalformedError(SIZE_MEDIA, "is not a size and a newline")
    return int(text)


def witnessed(text: str) -> Checkpoint:
    """Return what a witness states of a checkpoint with this note text: its first three lines.

    A witness also cosigns checkpoints with extension lines. Those of kt-es have none. Raises
    ``MalformedError``.
    """
    lines = text.split("\n")
    if len(lines) < 4 or not all(lines[:-1]):
        raise MalformedError("checkpoint", "must have at least three lines, and none that is empty")
    return Checkpoint.parse("\n".join([*lines[:3], ""]))


def origin_of(note: str) -> str:
    """Return the origin that a note claims. Nothing is verified. Raises ``MalformedError``."""
    return witnessed(parse_note(note).text).origin


def origin_hash(origin: str) -> str:
    """Return the name under which a witness serves the latest checkpoint of a log that it has cosigned."""
    return sha256(origin.encode()).hex()
