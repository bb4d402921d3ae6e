"""The alarms of a watch and their hooks: kept until every hook accepted them.

Each hook is bounded in time. A hook that fails is reported and changes nothing else. An address may hold a
secret, so no message repeats it.

The client's state keeps an alarm, from before its hooks run, with the names of the hooks that did not accept
it. So neither an unreachable webhook nor the end of the process loses an alarm: the next round retries.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import click
import httpx

from kt_es.cli.options import options
from kt_es.client.client import Client
from kt_es.client.state import damaged
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, KtError
from kt_es.process.network import uses_proxies

Document: TypeAlias = dict[str, Any]
"""An alarm as JSON."""

KIND = "alarms"
"""The kind under which a client's store keeps waiting alarms, by label."""

DELIVERED = "told"
"""The kind under which the store keeps, by label and entry, which hooks accepted its alarm."""

_ENTRY = "entry"  # the field of a document that names a version
_MOST = 100  # waiting alarms of one label; the oldest are dropped first
_Waiting: TypeAlias = list[tuple[Document, list[str]]]

hook_options = options(
    click.option(
        "--on-alarm",
        metavar="COMMAND",
        help="On an alarm run this, without a shell; the alarm's JSON document is its standard input.",
    ),
    click.option("--webhook", metavar="URL", help="On an alarm POST its JSON document there."),
    click.option("--desktop", is_flag=True, help="On an alarm show a notification (notify-send)."),
)


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of a watch. ``seconds`` bounds each of them."""

    command: tuple[str, ...] = ()
    webhook: str | None = None
    desktop: bool = False
    seconds: float = 30.0

    @classmethod
    def of(cls, command: str | None, webhook: str | None, desktop: bool) -> Hooks:
        """Make hooks from options. Raises ``ConfigError`` for a command or an address that cannot work."""
        try:
            words = tuple(shlex.split(command or ""))
        except ValueError as error:
            raise ConfigError(
                f"--on-alarm cannot be split into words: {error}; write it as for a shell"
            ) from None
        if command is not None and (not words or shutil.which(words[0]) is None):
            program = words[0] if words else repr(command)
            raise ConfigError(f"--on-alarm: there is no program {program}; install it, or name its path")
        if webhook is not None:
            try:
                url = httpx.URL(webhook)
            except (ValueError, httpx.InvalidURL):
                url = httpx.URL()
            if url.scheme not in ("http", "https") or not url.host:
                raise ConfigError("--webhook must be an address that begins with http:// or https://")
        return cls(words, webhook, desktop)

    @property
    def names(self) -> list[str]:
        """The configured hooks, by the names of their options."""
        return [name for name, hook in self._configured.items() if hook]

    def identity(self, name: str) -> str:
        """Return what identifies the hook ``name``, without secrets. Another address is another hook."""
        return f"{name} {sha256(self._configured[name].encode()).hex()[:16]}"

    @property
    def _configured(self) -> dict[str, str]:
        """The value of each option, empty if it was not given."""
        return {
            "on-alarm": "\0".join(self.command),
            "webhook": self.webhook or "",
            "desktop": "desktop" if self.desktop else "",
        }

    def run(self, document: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
        """Run the hooks ``names`` with ``document``, and return a report of each that failed, by name."""
        data = json.dumps(document, ensure_ascii=False).encode()
        reports = {name: self._run(name, document, data) for name in names}
        return {name: report for name, report in reports.items() if report is not None}

    def _run(self, name: str, document: Mapping[str, Any], data: bytes) -> str | None:
        if name == "webhook" and self.webhook is not None:
            return _posted(self.webhook, data, self.seconds)
        if name == "desktop":
            return _notified(document, self.seconds)
        return _ran(self.command, data, self.seconds)


def _ran(words: tuple[str, ...], data: bytes, seconds: float) -> str | None:
    try:
        null = subprocess.DEVNULL
        process = subprocess.Popen(  # noqa: S603 (the user's own command)
            words, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
        )
    except (OSError, ValueError) as error:
        return f"the command {words[0]} cannot be run: {error}"
    try:
        process.communicate(data, timeout=seconds)
    except subprocess.TimeoutExpired:
        # The signal goes to the whole group, because a child of the command may outlive the command.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"the command {words[0]} took longer than {seconds:.0f} s and was ended"
    if process.returncode:
        return f"the command {words[0]} ended with {process.returncode}"
    return None


def _posted(address: str, data: bytes, seconds: float) -> str | None:
    """POST ``data`` without reading the body of the answer."""
    outcome: list[str | None] = []

    def post() -> None:
        headers = {"content-type": "application/json"}
        try:
            proxies = uses_proxies(address)
            with httpx.stream(
                "POST", address, content=data, headers=headers, timeout=seconds, trust_env=proxies
            ) as answer:
                failed = answer.status_code >= 300
                outcome.append(f"the webhook answered with {answer.status_code}" if failed else None)
        except (httpx.HTTPError, httpx.InvalidURL, ImportError, OSError, ValueError) as error:
            outcome.append(f"the webhook cannot be reached: {type(error).__name__}")

    # A thread is needed, because a timeout of httpx limits each read and not the whole call.
    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"the webhook took longer than {seconds:.0f} s"


def _notified(document: Mapping[str, Any], seconds: float) -> str | None:
    program = shutil.which("notify-send")
    if program is None:
        return "there is no notification: notify-send is not installed"
    title = f"kt watch: {document['label']}"
    return _ran((program, "--urgency=critical", "--", title, str(document["sentence"])), b"", seconds)


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

        Each call delivers one alarm, so that unreachable hooks do not stop the watch. Raises ``ConfigError``.
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
            self._report(f"the hooks that accepted the alarm are not kept: {error}")

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
    what = f"the memory of the alarms of {label} that wait for a hook"
    try:
        alarms = [] if data is None else json.loads(data)
        waiting = [({**document}, [str(name) for name in names]) for document, names in alarms]
        shown = [document[field] for document, _ in waiting for field in ("kind", "sentence")]
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(what, error) from None
    if not all(isinstance(text, str) for text in shown):
        raise damaged(what, TypeError("an alarm's kind or sentence is not a text"))
    return waiting


def _read_accepted(label: str, data: bytes | None) -> dict[str, list[str]]:
    try:
        accepted = {} if data is None else json.loads(data)
        return {str(entry): [str(hook) for hook in hooks] for entry, hooks in accepted.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged(f"the memory of the alarms of {label} that its hooks accepted", error) from None
