"""What ``kt get`` reads and prints when it looks up several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kt_es.cli.output import Output, at
from kt_es.client.trust import Lookup
from kt_es.errors import ConfigError
from kt_es.formats.entries import ProfileKey

MAX_LABELS_FILE = 16 * 1024 * 1024
"""Bytes of a file of labels."""


def read_labels(path: Path) -> list[str]:
    """Return the labels in a file, one a line; blank lines do not count. Raises ``ConfigError``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LABELS_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name another file") from None
    if len(data) > MAX_LABELS_FILE:
        raise ConfigError(f"{path} has more than {MAX_LABELS_FILE} bytes; split it into several files")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8; write one label a line, in UTF-8") from None
    labels = [line.strip(" \r\t") for line in lines]
    if not any(labels):
        raise ConfigError(f"{path} has no labels; write one label a line")
    return [label for label in labels if label]


def show_many(
    output: Output,
    lookups: Sequence[Lookup],
    changes: Sequence[str],
    documents: list[dict[str, Any]],
    others: Mapping[str, Any],
) -> None:
    """Print ``lookups`` for people, or ``documents`` with ``--json``.

    A check that all of them have, such as the one of the head, is printed once. ``changes`` are further lines
    about accounts, ``others`` further members for ``--json``.
    """
    shared = [check for check in lookups[0].checks if all(check in lookup.checks for lookup in lookups)]
    for check in shared:
        output.ok(check)
    for lookup in lookups:
        own = [check for check in lookup.checks if check not in shared]
        output.ok(f"{lookup.label}: {'; '.join(own)}" if own else lookup.label)
    for line in changes:
        output.note(f"  {line}")
    newest = max(lookups, key=lambda lookup: lookup.epoch)
    output.note(f"  as of {at(newest.timestamp)}, epoch {newest.epoch} of {newest.head.origin}")
    output.data({"lookups": documents, **others}, (line for lookup in lookups for line in _lines(lookup)))


def key_line(key: ProfileKey) -> str:
    """Return a key of a profile as one line."""
    is_text = key.type in ("ssh", "age")
    text = key.data.decode("ascii", "replace").strip() if is_text else f"{len(key.data)} bytes"
    return f"{key.type}  {key.name}  {text}"


def _lines(lookup: Lookup) -> list[str]:
    if lookup.absent:
        return [f"{lookup.label}  (nobody)"]
    if lookup.profile is None:
        return [f"{lookup.label}  (profile erased)" if lookup.erased else lookup.label]
    return [f"{lookup.label}  {key_line(key)}" for key in lookup.profile]
