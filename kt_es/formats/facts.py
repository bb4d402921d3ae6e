"""Facts about signatures: what was verified ahead, in a form that the decision can look up.

A fact is a hash over everything that the validity of one signature depends on. A set of facts is therefore
only a memory of work that was done: whether a signature is valid never depends on the set. See DECISIONS,
"Running".
"""

from __future__ import annotations

from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import signed_message
from kt_es.formats.entries import Mutation, PublicKey, Signature

FACT_SIZE = 32


def fact(key: PublicKey, signature: Signature, entry_hash: bytes, origin: str) -> bytes:
    """Return the name of a fact, 32 bytes: "``signature`` names ``key`` and is its signature over the entry".

    The hash covers everything that the fact depends on, so a fact can be about no other signature. All fields
    but the last one have a length that the algorithm determines.
    """
    algorithm = key.algorithm.to_bytes(1)
    return sha256(
        b"".join((algorithm, key.raw, signature.key_id, signature.value, entry_hash, origin.encode()))
    )


def facts_about(mutation: Mutation, origin: str) -> list[bytes]:
    """Verify the signatures of ``mutation`` by keys of its own entry. Return the facts that are true.

    A signature by a key of the entry before is left to ``is_authorized``, which knows that entry.
    """
    message = signed_message("entry", origin, mutation.entry_bytes)
    return [
        fact(key, signature, mutation.entry_hash, origin)
        for signature in mutation.signatures
        for key in mutation.entry.authorized_keys
        if key.id == signature.key_id and key.verifies(message, signature.value)
    ]
