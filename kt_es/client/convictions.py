"""What evidence proves about a directory, and what a client remembers of it.

A directory that was convicted stays so: its operator would like a client to go on with the side that is
served now. All that a client asks of it fails from then on, until a person has moved the evidence away.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.client.state import StateStore
from kt_es.client.trusted import Pinned, Trusted, position_of_key
from kt_es.errors import EquivocationError, MalformedError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Convicted:
    """Evidence that proves the contradiction in ``sentence``. ``first`` is the directory's first key."""

    evidence: Evidence
    sentence: str
    first: Pinned


def verify_evidence(data: bytes, pinned: Pinned | None) -> Convicted:
    """What the encoded evidence ``data`` proves, against the directory of ``pinned`` where that is given.

    Raises ``VerificationError``: it is damaged, proves nothing, or is about another directory.
    """
    try:
        evidence = Evidence.decode(data)
    except MalformedError as error:
        raise VerificationError("evidence", str(error)) from None
    if pinned is not None:
        known = position_of_key(evidence.configs, pinned.key) is not None
        if evidence.origin != pinned.origin or not known:
            raise VerificationError(
                "evidence", f"is not about the directory of {pinned.vkey}: that key is not in its chain"
            )
    sentence = convict(evidence)
    first = Pinned(evidence.origin, evidence.configs[0].config.signer_key)
    return Convicted(evidence, sentence, first)


def check_unconvicted(store: StateStore, trusted: Trusted) -> None:
    """Raises ``EquivocationError`` if ``store`` keeps evidence against the directory of ``trusted``."""
    for data, path in store.evidence():
        # Later keys are not in the chain of older evidence; the first one is in each.
        first = Pinned(trusted.origin, trusted.configs[0].config.signer_key)
        try:
            convicted = verify_evidence(data, first)
        except VerificationError:
            continue  # It convicts somebody else, or nobody.
        error = EquivocationError(
            "convicted",
            f"{convicted.sentence}. That was proven before; what this directory says counts for nothing "
            "until you move the evidence away",
            data,
        )
        error.saved = path
        raise error
