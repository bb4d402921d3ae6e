"""The alarms of a watch, kept until all hooks have accepted them.

The client's state keeps an alarm, from before its hooks run, with the names of the hooks that did not accept
it. So neither an unreachable webhook nor the end of the process loses an alarm: the next round retries.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from kt_es.cli.owners.hooks import Hooks
from kt_es.client.client import Client
from kt_es.errors import ConfigError, KtError

Document: TypeAlias = dict[str, Any]
"""An alarm as JSON."""

KIND = "alarms"
"""The kind under which a client's store keeps waiting alarms, by label."""

DELIVERED = "told"
"""The kind under which the store keeps, by label and entry, which hooks accepted its alarm."""

_ENTRY = "entry"  # the field of a document that names a version
_MOST = 100  # waiting alarms of one label; the oldest are dropped first
_Waiting: TypeAlias = list[tuple[Document, list[str]]]


class Alarms:
    """Runs ``hooks`` for alarms, and calls ``report`` for each hook that failed."""

    def __init__(self, client: Client, hooks: Hooks, report: Callable[[str], None]) -> None:
        self._client = client
        self._hooks = hooks
        self._report = report

    def set_off(self, label: str, document: Document) -> None:
        """Run the hooks that have not accepted this alarm, even if the alarm cannot be kept."""
        done = self._accepted(label, document)
        names = [name for name in self._hooks.names if self._hooks.identity(name) not in done]
        if names:
            self._keep(label, lambda waiting: [*waiting, (document, names)])
            self._deliver(label, document, names)

    def retry(self, label: str) -> Document | None:
        """Deliver the oldest waiting alarm of ``label`` again, and return it.

        Each call delivers one alarm, so that unreachable hooks do not stop the watch.

        Raises:
            ConfigError: the kept alarms are damaged.
        """
        waiting = _read(label, self._client.recall(KIND, label.encode()))
        if not waiting:
            return None
        document, missing = waiting[0]
        # The configured hooks may have changed. Without hooks the terminal has shown the alarm.
        names = [name for name in self._hooks.names if name in missing] or self._hooks.names
        self._deliver(label, document, names)
        return document

    def _deliver(self, label: str, document: Document, names: list[str]) -> None:
        failed = self._hooks.run(document, names)
        for line in failed.values():
            self._report(line)
        self._note_accepted(label, document, [name for name in names if name not in failed])

        def rest(waiting: _Waiting) -> _Waiting:
            others = [alarm for alarm in waiting if alarm[0] != document]
            return [*others, (document, list(failed))] if failed else others

        self._keep(label, rest)

    def _accepted(self, label: str, document: Document) -> frozenset[str]:
        """Return the hooks that accepted an alarm of this entry, or will be tried again."""
        entry = document.get(_ENTRY)
        if entry is None:
            return frozenset()
        try:
            done = set(_read_accepted(label, self._client.recall(DELIVERED, label.encode())).get(entry, ()))
            for other, missing in _read(label, self._client.recall(KIND, label.encode())):
                if other.get(_ENTRY) == entry:
                    done |= {self._hooks.identity(name) for name in self._hooks.names if name in missing}
        except KtError as error:
            self._report(str(error))
            return frozenset()
        return frozenset(done)

    def _note_accepted(self, label: str, document: Document, names: list[str]) -> None:
        """Remember that these hooks accepted the alarm."""
        entry, key = document.get(_ENTRY), label.encode()
        if entry is None or not names:
            return
        done = [self._hooks.identity(name) for name in names]
        try:
            while True:
                known = self._client.recall(DELIVERED, key)
                entries = _read_accepted(label, known)
                before = entries.pop(entry, [])
                # The newest entry is the last to be dropped.
                entries[entry] = sorted({*before, *done})[-_MOST:]
                kept = dict(list(entries.items())[-_MOST:])
                if self._client.exchange(DELIVERED, key, known, json.dumps(kept).encode()):
                    return
        except KtError as error:
            self._report(f"which hooks were told is not kept: {error}")

    def _keep(self, label: str, change: Callable[[_Waiting], _Waiting]) -> None:
        """Change the waiting alarms of ``label``. Other processes may share the state."""
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
        valid = all(
            isinstance(document[field], str) for document, _ in waiting for field in ("kind", "sentence")
        )
    except (ValueError, TypeError, KeyError):
        valid = False
    if not valid:
        raise ConfigError(f"the alarms of {label} that wait for a hook are damaged")
    return waiting


def _read_accepted(label: str, data: bytes | None) -> dict[str, list[str]]:
    if data is None:
        return {}
    try:
        return {str(entry): [str(hook) for hook in hooks] for entry, hooks in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"what the hooks of {label} were told is damaged") from None
