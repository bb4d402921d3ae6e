"""The alarms of a watch, until its hooks have taken them.

An alarm is kept in the client's state before its hooks run, with the names of those that have not taken it.
So neither a webhook that is away nor the end of the process loses one: the next round tries again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from kt_es.cli.hooks import Hooks
from kt_es.client.client import Client
from kt_es.errors import ConfigError, KtError

Document: TypeAlias = dict[str, Any]
"""What is told of an alarm, as JSON."""

KIND = "alarms"
"""The kind under which a client's store keeps the alarms that wait, by label."""

TOLD = "told"
"""The kind under which it keeps, by label and entry, which hooks were told."""

_ENTRY = "entry"  # the field of a document that names a version
_MOST = 100  # alarms that wait for one label; the oldest ones go first
_Waiting: TypeAlias = list[tuple[Document, list[str]]]


class Alarms:
    """Sets off ``hooks``; ``report`` is told of each that failed."""

    def __init__(self, client: Client, hooks: Hooks, report: Callable[[str], None]) -> None:
        self._client = client
        self._hooks = hooks
        self._report = report

    def set_off(self, label: str, document: Document) -> None:
        """Run the hooks that were not told of it. An alarm that cannot be kept sets them off all the same."""
        told = self._told(label, document)
        names = [name for name in self._hooks.names if self._hooks.identity(name) not in told]
        if names:
            self._keep(label, lambda waiting: [*waiting, (document, names)])
            self._deliver(label, document, names)

    def retry(self, label: str) -> Document | None:
        """Try the alarm once more that waits longest for ``label``, and return it.

        One at a time: hooks that are away must not keep the watch from watching. Raises ``ConfigError`` for a
        state that is damaged.
        """
        waiting = _read(label, self._client.recall(KIND, label.encode()))
        if not waiting:
            return None
        document, missing = waiting[0]
        # The hooks may be others by now. Without any, the terminal has it.
        names = [name for name in self._hooks.names if name in missing] or self._hooks.names
        self._deliver(label, document, names)
        return document

    def _deliver(self, label: str, document: Document, names: list[str]) -> None:
        failed = self._hooks.run(document, names)
        for line in failed.values():
            self._report(line)
        self._note(label, document, [name for name in names if name not in failed])

        def rest(waiting: _Waiting) -> _Waiting:
            others = [one for one in waiting if one[0] != document]
            return [*others, (document, list(failed))] if failed else others

        self._keep(label, rest)

    def _told(self, label: str, document: Document) -> frozenset[str]:
        """The hooks that were told of this entry, or wait to be told again; nothing if it is about none."""
        entry = document.get(_ENTRY)
        if entry is None:
            return frozenset()
        try:
            told = set(_read_told(label, self._client.recall(TOLD, label.encode())).get(entry, ()))
            for other, missing in _read(label, self._client.recall(KIND, label.encode())):
                if other.get(_ENTRY) == entry:
                    told |= {self._hooks.identity(name) for name in self._hooks.names if name in missing}
        except KtError as error:
            self._report(str(error))
            return frozenset()
        return frozenset(told)

    def _note(self, label: str, document: Document, names: list[str]) -> None:
        """Remember that these hooks were told."""
        entry, key = document.get(_ENTRY), label.encode()
        if entry is None or not names:
            return
        told = [self._hooks.identity(name) for name in names]
        try:
            while True:
                known = self._client.recall(TOLD, key)
                entries = _read_told(label, known)
                before = entries.pop(entry, [])
                # The one that was told last is the last one kept.
                entries[entry] = sorted({*before, *told})[-_MOST:]
                kept = dict(list(entries.items())[-_MOST:])
                if self._client.exchange(TOLD, key, known, json.dumps(kept).encode()):
                    return
        except KtError as error:
            self._report(f"which hooks were told is not kept: {error}")

    def _keep(self, label: str, change: Callable[[_Waiting], _Waiting]) -> None:
        """Change what waits for ``label``; other processes may share the state."""
        key = label.encode()
        try:
            while True:
                known = self._client.recall(KIND, key)
                before = _read(label, known)
                after = change(before)[-_MOST:]
                if after == before or self._client.exchange(KIND, key, known, json.dumps(after).encode()):
                    return
        except KtError as error:
            self._report(f"the alarm is not kept for hooks that fail: {error}")


def _read(label: str, data: bytes | None) -> _Waiting:
    if data is None:
        return []
    try:
        waiting = [({**document}, [str(name) for name in names]) for document, names in json.loads(data)]
        told = all(
            isinstance(document[field], str) for document, _ in waiting for field in ("kind", "sentence")
        )
    except (ValueError, TypeError, KeyError):
        told = False
    if not told:
        raise ConfigError(f"the alarms of {label} that wait for a hook are damaged")
    return waiting


def _read_told(label: str, data: bytes | None) -> dict[str, list[str]]:
    if data is None:
        return {}
    try:
        return {str(entry): [str(hook) for hook in hooks] for entry, hooks in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"what the hooks of {label} were told is damaged") from None
