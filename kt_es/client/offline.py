"""Verification of a saved file without a network: a proof of a lookup, or evidence.

If the client has a state towards the directory of the file, the file is compared with that state. A file is
never trusted by itself. It can add to the memory of an account, but only under a key that somebody else than
the file vouches for.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.client.directory import check_unconvicted, keep_sight, recalled
from kt_es.client.heads import SLACK, contradictions, verify_order
from kt_es.client.state import StateStore
from kt_es.client.trust import Lookup, verify_proof_file
from kt_es.client.trusted import Pinned, extend, position_of_key
from kt_es.errors import EquivocationError, MalformedError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.formats.proofs import ProofFile


@dataclass(frozen=True, slots=True)
class Conviction:
    """Evidence that proves the contradiction in ``sentence``. ``first`` is the first key of the directory."""

    evidence: Evidence
    sentence: str
    first: Pinned


def verify_evidence(data: bytes, pinned: Pinned | None) -> Conviction:
    """Verify encoded evidence, and that it is about the directory of ``pinned`` if a key is given.

    Raises ``VerificationError``.
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
    return Conviction(evidence, sentence, Pinned(evidence.origin, evidence.configs[0].config.signer_key))


def verify_proof(
    file: ProofFile, pinned: Pinned, store: StateStore | None, *, vouched: bool, slack: int = SLACK
) -> Lookup:
    """Verify a saved proof, and compare it with the state in ``store`` if there is one.

    Args:
        file: The decoded file with the proof.
        pinned: The key that the directory is known by.
        store: The state of the client; evidence of a contradiction is saved there. None compares nothing.
        vouched: Somebody other than the file vouches for ``pinned``.
        slack: Milliseconds by which clocks may differ.
    """
    if store is None:
        return verify_proof_file(file, pinned, slack=slack)
    trusted = store.load()
    if trusted is not None:
        check_unconvicted(store, trusted)
    try:
        lookup = verify_proof_file(file, pinned, slack=slack, recall=lambda index: recalled(store, index))
        if trusted is not None:
            # The file must not contradict what is trusted here.
            known = extend(trusted, file.configs)
            smh = file.answer.smh_bytes
            for contradiction in contradictions(known, smh, [file.answer.heads_checkpoint]):
                raise contradiction
            verify_order(known, smh, lookup.head)
            if vouched and known.position(lookup.head.config_hash) >= trusted.in_force:
                keep_sight(store, known, lookup)
    except EquivocationError as error:
        if error.evidence is not None:
            error.saved = store.save_evidence(error.evidence)
        raise
    return lookup
