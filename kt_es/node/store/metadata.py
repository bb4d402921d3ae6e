"""Events that the node itself writes into stream metadata and on deletion."""

from __future__ import annotations

import json
from uuid import uuid4

from kt_es.eventstore.metadata import JSON, TRUNCATE_BEFORE, json_object
from kt_es.node.store.records import Proposed, parsed


def metadata_event(current: bytes | None, truncate_before: int) -> Proposed:
    """A ``$metadata`` event that keeps what the stored event ``current`` says, but for ``$tb``."""
    values = json_object(parsed(current).event.data) if current is not None else {}
    values[TRUNCATE_BEFORE] = truncate_before
    return Proposed(str(uuid4()), "$metadata", JSON, b"", json.dumps(values).encode())


def tombstone_event() -> Proposed:
    """The last event that a tombstoned stream ever has."""
    return Proposed(str(uuid4()), "$streamDeleted", JSON, b"", b"{}")


def link_event(revision: int, stream: str, metadata: bytes = b"") -> Proposed:
    """A link to an event, type ``$>``, data ``revision@stream``."""
    return Proposed(str(uuid4()), "$>", "application/octet-stream", metadata, f"{revision}@{stream}".encode())
