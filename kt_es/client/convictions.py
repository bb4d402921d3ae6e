"""What evidence proves about a directory, and what a client remembers of it.

A directory that was convicted stays so: its operator would like a client to go on with the side that is
served now. All that a client asks of it fails from then on, until a person has moved the evidence away.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.client.state import StateStore
from kt_es.client.trusted import Pinned, Trusted, position_of_key
from kt_es.errors import ConfigError, EquivocationError, MalformedError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.evidence import EVIDENCE, Evidence, unarmored

_BEGIN, _END = b"-----BEGIN KT-ES EVIDENCE-----", b"-----END KT-ES EVIDENCE-----"


@dataclass(frozen=True, slots=True)
class Convicted:
    """Evidence that proves the contradiction in ``sentence``. ``first`` is the directory's first key."""

    evidence: Evidence
    sentence: str
    first: Pinned


def evidence_in(data: bytes) -> bytes | None:
    """The encoded evidence in a file, plain or armored with text around it; None if there is none.

    Raises ``VerificationError`` for armor that is damaged.
    """
    if EVIDENCE.encode() in data[: len(EVIDENCE) + 8]:
        return data
    begin = data.find(_BEGIN)
    if begin < 0:
        return None
    end = data.find(_END, begin)
    try:
        return unarmored(data[begin : end + len(_END) if end >= 0 else None].decode())
    except (MalformedError, UnicodeDecodeError) as error:
        raise VerificationError("evidence", f"the armored text is damaged: {error}") from None


def is_about(evidence: Evidence, pinned: Pinned) -> bool:
    """Whether ``evidence`` is about the directory of ``pinned``: its key is in the chain of configs."""
    return evidence.origin == pinned.origin and position_of_key(evidence.configs, pinned.key) is not None


def verify_evidence(data: bytes, pinned: Pinned | None) -> Convicted:
    """What the encoded evidence ``data`` proves, against the directory of ``pinned`` where that is given.

    Raises ``VerificationError``: it is damaged, proves nothing, or is about another directory.
    """
    try:
        evidence = Evidence.decode(data)
    except MalformedError as error:
        raise VerificationError("evidence", str(error)) from None
    if pinned is not None and not is_about(evidence, pinned):
        raise VerificationError(
            "evidence", f"is not about the directory of {pinned.vkey}: that key is not in its chain"
        )
    sentence = convict(evidence)
    first = Pinned(evidence.origin, evidence.configs[0].config.signer_key)
    return Convicted(evidence, sentence, first)


def check_unconvicted(store: StateStore, trusted: Trusted) -> None:
    """Raises ``EquivocationError`` if ``store`` keeps evidence against the directory of ``trusted``.

    And ``ConfigError`` for a file there that proves nothing: it was evidence when it was written, and nobody
    knows any more against whom.
    """
    # Later keys are not in the chain of older evidence; the first one is in each.
    first = Pinned(trusted.origin, trusted.configs[0].config.signer_key)
    for data, path in store.evidence():
        try:
            convicted = verify_evidence(evidence_in(data) or data, None)
        except VerificationError as error:
            raise ConfigError(
                f"the evidence {path} is damaged ({error.problem}): put a copy in its place, or move it away "
                "if the case is settled"
            ) from None
        if not is_about(convicted.evidence, first):
            continue
        found = EquivocationError(
            "convicted",
            f"{convicted.sentence}. That was proven before; what this directory says counts for nothing "
            "until you move the evidence away",
            data,
        )
        found.saved = path
        raise found
