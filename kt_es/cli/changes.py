"""What ``kt get`` says of an account since this client saw it last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kt_es.cli.output import at
from kt_es.client.client import Client
from kt_es.client.history import Version
from kt_es.client.memory import Account
from kt_es.client.trust import Lookup
from kt_es.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Changes:
    """Lines for people, and the same as ``--json`` shows it."""

    lines: tuple[str, ...]
    document: dict[str, Any]


def changes_since(client: Client, lookup: Lookup) -> Changes | None:
    """What changed since the last time; None where ``lookup`` is about a past epoch of its log.

    A change is shown by the verified history: each version since then, since when, and who signed it.
    """
    before = lookup.before
    if not lookup.latest or (before is not None and before.last.epoch > lookup.epoch):
        return None
    if before is None:
        return Changes(("never looked up before: remembered from now on",), {"seen_before": False})
    document = _document(before)
    if before.last.entry == lookup.sight.entry:
        return Changes((_unchanged(before),), {**document, "changed": False, "versions": []})
    seen = before.last
    new = 0 if lookup.entry is None else lookup.entry.version
    what = f"version {seen.version} → {new}" if seen.version else "published since then"
    lines = [f"CHANGED since {at(seen.at)}, when epoch {seen.epoch} was seen: {what}"]
    versions: list[Version] = []
    try:
        history = client.history(lookup.label).versions
        versions = [version for version in history if seen.version < version.number <= new]
    except UnavailableError as error:
        lines.append(f"the history of the change is not available now: {error}")
    lines += [_version_line(version) for version in versions]
    shown = [
        {
            "version": version.number,
            "epoch": version.epoch,
            "timestamp": version.timestamp,
            "signed_by": [key.id.hex() for key in version.signers],
        }
        for version in versions
    ]
    return Changes(tuple(lines), {**document, "changed": True, "versions": shown})


def _unchanged(before: Account) -> str:
    first = f"unchanged since {at(before.first.at)}, first seen in epoch {before.first.epoch}"
    return first if before.last.version else f"still nobody: {first}"


def _document(before: Account) -> dict[str, Any]:
    return {
        "seen_before": True,
        "version": before.last.version or None,
        "epoch": before.last.epoch,
        "first_seen": before.first.at,
        "last_seen": before.last.at,
    }


def _version_line(version: Version) -> str:
    signers = ", ".join(key.id.hex() for key in version.signers)
    return (
        f"version {version.number} since epoch {version.epoch}, {at(version.timestamp)}, signed by {signers}"
    )
