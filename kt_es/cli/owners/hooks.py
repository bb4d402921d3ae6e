"""The hooks of a watch: an alarm runs a command, calls a webhook, or shows a notification on the desktop.

Each hook is bounded in time. A hook that fails is reported and changes nothing else. An address may hold a
secret, so no message repeats it.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click
import httpx

from kt_es.cli.options import options
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError
from kt_es.process.proxies import uses_proxies

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
            raise ConfigError(f"--on-alarm cannot be split into words: {error}") from None
        if command is not None and (not words or shutil.which(words[0]) is None):
            raise ConfigError(f"--on-alarm: there is no program {words[0] if words else command!r}")
        if webhook is not None:
            try:
                address = urlsplit(webhook)
                valid = address.scheme in ("http", "https") and bool(address.hostname)
                httpx.URL(webhook)
            except (ValueError, httpx.InvalidURL):
                valid = False
            if not valid:
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
        failures = {}
        for name in names:
            if failure := self._run(name, document, data):
                failures[name] = failure
        return failures

    def _run(self, name: str, document: Mapping[str, Any], data: bytes) -> str | None:
        if name == "webhook" and self.webhook is not None:
            return _posted(self.webhook, data, self.seconds)
        if name == "desktop":
            return _notified(document, self.seconds)
        return _ran(self.command, data, self.seconds)


def _ran(words: tuple[str, ...], data: bytes, seconds: float) -> str | None:
    try:
        process = subprocess.Popen(  # noqa: S603 (the user's own command)
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
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
            with httpx.stream(
                "POST",
                address,
                content=data,
                headers=headers,
                timeout=seconds,
                trust_env=uses_proxies(address),
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
