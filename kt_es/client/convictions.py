"""What evidence proves about a directory, and what a client remembers of it.

All that a client asks of a directory that was convicted fails, until a person has moved the evidence away.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.client.state import StateStore
from kt_es.client.trusted import Pinned, Trusted, position_of_key
from kt_es.errors import MalformedError, VerificationError
from kt_es.evidence import convict, convicted_before
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
    known = pinned is None or position_of_key(evidence.configs, pinned.key) is not None
    if pinned is not None and (evidence.origin != pinned.origin or not known):
        raise VerificationError(
            "evidence", f"is not about the directory of {pinned.vkey}: that key is not in its chain"
        )
    sentence = convict(evidence)
    first = Pinned(evidence.origin, evidence.configs[0].config.signer_key)
    return Convicted(evidence, sentence, first)


def check_unconvicted(store: StateStore, trusted: Trusted) -> None:
    """Raise what ``convicted_before`` finds of the directory of ``trusted`` in ``store``."""
    # Later keys are not in the chain of older evidence; the first one is in each.
    keys = {trusted.configs[0].config.signer_key}
    for kept, path in store.evidence():
        if found := convicted_before(kept, str(path), trusted.origin, keys):
            found.saved = path
            raise found
