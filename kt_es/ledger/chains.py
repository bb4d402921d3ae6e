"""The chain of an index: each entry follows the one before and is signed as a change of it has to be."""

from __future__ import annotations

from dataclasses import replace

from kt_es.epochs import Current, is_authorized
from kt_es.formats.entries import Mutation


def breach_of_chain(mutation: Mutation, before: Mutation | None, origin: str, begun_with: bool) -> str:
    """Why ``mutation`` cannot have been accepted after ``before``; nothing if it can.

    ``begun_with``: a snapshot may have brought it without the ones before; then only those of its signatures
    can be verified that are by its own keys.
    """
    entry = mutation.entry
    if before is None:
        if entry.version == 1 and entry.previous is None:
            return "" if is_authorized(mutation, None, origin) else "is not signed as it must be"
        if not begun_with:
            return f"is version {entry.version}, but the one before is missing"
        ids = {key.id for key in entry.authorized_keys}
        own = tuple(signature for signature in mutation.signatures if signature.key_id in ids)
        good = bool(own) and is_authorized(replace(mutation, signatures=own), None, origin)
        return "" if good else "is not signed as it must be"
    if entry.version != before.entry.version + 1 or entry.previous != before.entry_hash:
        return f"does not follow version {before.entry.version}"
    held = Current(before.entry, before.entry_hash)
    return "" if is_authorized(mutation, held, origin) else "is not signed as it must be"
