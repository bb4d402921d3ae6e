"""Evidence: two statements that one directory signed and that cannot both be true. FORMATS, "Evidence".

An evidence file is complete: anybody who knows one key of the directory can verify the file offline
(``kt_es.evidence``). The file contains no label, no profile and no opening.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kt_es.crypto.hashes import sha256
from kt_es.errors import MalformedError
from kt_es.formats.codec import Value, decode_array, encode, take_array, take_bytes, take_text
from kt_es.formats.configs import MAX_CONFIG, SignedConfig, check_origin
from kt_es.formats.entries import INDEX_LENGTH, Entry
from kt_es.formats.heads import MAX_CHECKPOINT, SignedMapHead
from kt_es.formats.notes import decode_base64, encode_base64
from kt_es.formats.proofs import MAX_CONFIGS, decode_configs, encode_configs, map_proof_fields, take_map_proof
from kt_es.merkle.verify import MapProof

EVIDENCE = "kt-es evidence v1"
MAX_EVIDENCE = 17 * 1024 * 1024
MAX_EVIDENCE_FILE = 2 * MAX_EVIDENCE
"""The largest evidence file in bytes. Armor makes evidence a third longer, and text may surround it."""
MAX_ENTRY = 16 * 1024


class EvidenceKind(StrEnum):
    """The kinds of the two statements."""

    HEADS = "heads"  # two signed map heads
    CHECKPOINTS = "checkpoints"  # two checkpoints of one log
    HEAD_CHECKPOINT = "head-checkpoint"  # a signed map head, and a checkpoint of the log of mutations
    CONFIGS = "configs"  # two signed configs
    ENTRIES = "entries"  # two signed map heads, with proofs of the entries at one index


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """The entry of a map at the index of the evidence, with its proof. None means a proof of absence."""

    entry: Entry | None
    entry_bytes: bytes | None
    map_proof: MapProof


@dataclass(frozen=True, slots=True)
class Evidence:
    """``[kind of file, kind, origin, configs, statement, statement, proofs]``.

    A statement is an encoded SMH, the UTF-8 of a checkpoint, or an encoded signed config. ``configs`` is the
    chain from the first config of the directory up to the last config that verification needs. ``index`` and
    ``entries`` are present for the kind ``entries`` only.
    """

    kind: EvidenceKind
    origin: str
    configs: tuple[SignedConfig, ...]
    statements: tuple[bytes, bytes]
    index: bytes | None = None
    entries: tuple[ProvenEntry, ProvenEntry] | None = None

    def encode(self) -> bytes:
        proofs: list[Value] = []
        if self.index is not None and self.entries is not None:
            proofs = [self.index]
            for proven in self.entries:
                map_proof = map_proof_fields(proven.map_proof, proven.entry is not None)
                proofs += [proven.entry_bytes, map_proof]
        return encode(
            [EVIDENCE, self.kind.value, self.origin, encode_configs(self.configs), *self.statements, proofs]
        )

    @classmethod
    def decode(cls, data: bytes) -> Evidence:
        """Decode evidence without verifying it; ``kt_es.evidence.convict`` verifies.

        Raises ``MalformedError``.
        """
        fields = decode_array(data, "evidence", 7, most=MAX_EVIDENCE)
        mark, kind, origin, configs, first, second, proofs = fields
        if mark != EVIDENCE:
            raise MalformedError("evidence", f"must begin with {EVIDENCE!r}")
        if kind not in list(EvidenceKind):
            raise MalformedError("evidence kind", f"must be one of {', '.join(EvidenceKind)}")
        known = EvidenceKind(take_text(kind, "evidence kind", 1, 64))
        index, entries = _take_proofs(proofs, known)
        return cls(
            known,
            check_origin(take_text(origin, "evidence origin", 1, 255)),
            decode_configs(take_bytes(configs, "evidence configs", 1, MAX_CONFIGS * (MAX_CONFIG + 8))),
            (
                take_bytes(first, "evidence statement", 1, MAX_CHECKPOINT),
                take_bytes(second, "evidence statement", 1, MAX_CHECKPOINT),
            ),
            index,
            entries,
        )

    def heads(self) -> tuple[SignedMapHead, SignedMapHead]:
        """Decode both statements as signed map heads. Raises ``MalformedError``."""
        return SignedMapHead.decode(self.statements[0]), SignedMapHead.decode(self.statements[1])


def _take_proofs(
    value: Value, kind: EvidenceKind
) -> tuple[bytes | None, tuple[ProvenEntry, ProvenEntry] | None]:
    what = "evidence proofs"
    if kind is not EvidenceKind.ENTRIES:
        take_array(value, what, 0)
        return None, None
    index, entry1, proof1, entry2, proof2 = take_array(value, what, 5)
    taken = take_bytes(index, f"{what} index", INDEX_LENGTH)
    return taken, (_take_proven(taken, entry1, proof1), _take_proven(taken, entry2, proof2))


def _take_proven(index: bytes, entry: Value, proof: Value) -> ProvenEntry:
    what = "evidence map proof"
    if entry is None:
        return ProvenEntry(None, None, take_map_proof(proof, None, what))
    data = take_bytes(entry, "evidence entry", 1, MAX_ENTRY)
    return ProvenEntry(Entry.decode(data), data, take_map_proof(proof, (index, sha256(data)), what))


_BEGIN = "-----BEGIN KT-ES EVIDENCE-----"
_END = "-----END KT-ES EVIDENCE-----"


def armored(data: bytes) -> str:
    """Return encoded evidence as text for a terminal: base64 in lines of 64 between two marker lines."""
    text = encode_base64(data)
    return "\n".join([_BEGIN, *(text[at : at + 64] for at in range(0, len(text), 64)), _END])


def unarmored(text: str) -> bytes:
    """Decode the output of ``armored``. White space around each line is ignored.

    Raises ``MalformedError``.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise MalformedError("evidence", f"is not between {_BEGIN} and {_END}")
    if not any(lines[1:-1]):
        raise MalformedError("evidence", f"nothing is between {_BEGIN} and {_END}")
    return decode_base64("".join(lines[1:-1]), "evidence")


def evidence_in(data: bytes) -> bytes | None:
    """Return the encoded evidence in a file, plain or armored within text; None if the file contains none.

    Raises ``MalformedError``.
    """
    if EVIDENCE.encode() in data[: len(EVIDENCE) + 8]:
        return data
    begin, mark = data.find(_BEGIN.encode()), _END.encode()
    if begin < 0:
        return None
    end = data.find(mark, begin)
    try:
        return unarmored(data[begin : end + len(mark) if end >= 0 else None].decode())
    except (MalformedError, UnicodeDecodeError) as error:
        raise MalformedError("evidence", f"the armored text is damaged: {error}") from None
