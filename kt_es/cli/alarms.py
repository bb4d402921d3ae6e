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

_MOST = 100  # alarms that wait for one label; the oldest ones go first
_Waiting: TypeAlias = list[tuple[Document, list[str]]]


class Alarms:
    """Sets off ``hooks``; ``report`` is told of each that failed."""

    def __init__(self, client: Client, hooks: Hooks, report: Callable[[str], None]) -> None:
        self._client = client
        self._hooks = hooks
        self._report = report

    def set_off(self, label: str, document: Document) -> None:
        """Run the hooks. An alarm that cannot be kept sets them off all the same."""
        names = self._hooks.names
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

        def rest(waiting: _Waiting) -> _Waiting:
            others = [one for one in waiting if one[0] != document]
            return [*others, (document, list(failed))] if failed else others

        self._keep(label, rest)

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
