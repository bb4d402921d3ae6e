"""Verifying a saved file without a network: proofs of lookups, and evidence.

Where this client has a state towards the file's directory, the file is held against it. Nothing in a file is
trusted: it can add to what is remembered of an account, and only under a key that somebody vouched for.
"""

from __future__ import annotations

from kt_es.client.accounts import keep_sight, recalled
from kt_es.client.convictions import check_unconvicted
from kt_es.client.heads import SLACK, contradictions, verify_order
from kt_es.client.state import StateStore
from kt_es.client.trust import Lookup, verify_proof_file
from kt_es.client.trusted import Pinned, Trusted, extend
from kt_es.errors import EquivocationError
from kt_es.formats.proofs import ProofFile


def verify_proof(
    file: ProofFile, pinned: Pinned, store: StateStore | None, *, vouched: bool, slack: int = SLACK
) -> Lookup:
    """What a saved proof proves, held against the state in ``store`` where there is one.

    ``vouched`` says that somebody else than the file vouches for ``pinned``. The evidence of a contradiction
    is saved in ``store``.
    """
    if store is None:
        return verify_proof_file(file, pinned, slack=slack)
    trusted = store.load()
    if trusted is not None:
        check_unconvicted(store, trusted)
    try:
        lookup = verify_proof_file(file, pinned, slack=slack, recall=lambda index: recalled(store, index))
        if trusted is not None:
            known = _compare(trusted, lookup)
            if vouched and known.position(lookup.head.config_hash) >= trusted.in_force:
                keep_sight(store, known, lookup)
    except EquivocationError as error:
        if error.evidence is not None:
            error.saved = store.save_evidence(error.evidence)
        raise
    return lookup


def _compare(trusted: Trusted, lookup: Lookup) -> Trusted:
    """``trusted`` with the configs of the file, which contradicts nothing in it."""
    file = lookup.proof
    known = extend(trusted, file.configs)
    for lie in contradictions(known, file.answer.smh_bytes, [file.answer.heads_checkpoint]):
        raise lie
    verify_order(known, file.answer.smh_bytes, lookup.head)
    return known
