"""Posts evidence to webhooks until each of them has accepted it, across restarts.

The queue is the folder of evidence itself. When a webhook has accepted a file, a marker with the hash of both
is written to the folder ``webhooks`` beside it. So nothing is lost if the process ends at any moment: a
webhook may get the same evidence twice, but never not at all.

What is posted is public: the evidence, the origin of the directory, and the sentence that it proves.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import structlog

from kt_es.client.deadlines import Deadline, bound_transport
from kt_es.client.elsewhere import EVIDENCE_NAME
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, MalformedError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.evidence import MAX_EVIDENCE_FILE, Evidence, evidence_in
from kt_es.formats.notes import encode_base64
from kt_es.ledger.convicting import FOLDER
from kt_es.process.files import create_file
from kt_es.process.log_filters import keep_secret
from kt_es.process.network import is_safe, uses_proxies
from kt_es.process.outage import Backoff

MARKERS: Final = "webhooks"
TIMEOUT: Final = 20.0
"""Seconds for one attempt."""
MAX_WEBHOOKS: Final = 16

_FIRST, _LAST = 0.5, 300.0  # seconds between two attempts

_LOG = structlog.get_logger("monitor")


def checked_webhook(url: str) -> str:
    """Return ``url`` if evidence may be posted there. Raises ``ConfigError``, which does not repeat it."""
    keep_secret(url)
    try:
        parts = urlsplit(url)
        usable = is_safe(url) and not parts.fragment and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("a webhook must be an https:// address, or an http:// address of this machine")
    return url


class Webhooks:
    """Posts what is in the folder of evidence below ``data``. One thread calls ``post`` and ``run``."""

    def __init__(
        self,
        urls: Sequence[str],
        data: Path,
        *,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """Raises ``ConfigError`` for an address that cannot be used."""
        if len(urls) > MAX_WEBHOOKS:
            raise ConfigError(f"at most {MAX_WEBHOOKS} webhooks may be configured, not {len(urls)}")
        self._urls = [checked_webhook(url) for url in dict.fromkeys(urls)]
        self._folder = data / FOLDER
        self._markers = data / MARKERS
        self._verify = verify
        # What is done, also if its marker could not be written.
        self._done: set[Path] = set()

    def run(self, stop: threading.Event) -> None:
        """Post until nothing is pending, or ``stop`` is set."""
        backoff = Backoff(_FIRST, _LAST)
        while not stop.is_set() and not self.post():
            stop.wait(backoff.pause())

    def post(self) -> bool:
        """Try each pending webhook once, and return whether nothing is pending any more."""
        for kept, url, marker in self._pending():
            host = urlsplit(url).hostname
            try:
                body = _document(kept)
            except (MalformedError, VerificationError) as error:
                # It proves nothing, so it is not for others. Every start of the monitor reports it.
                _LOG.error("evidence not posted", problem=str(error))
                self._done.add(marker)
                continue
            problem = self._post(url, body)
            if problem:
                _LOG.warning("webhook has not accepted the evidence", host=host, problem=problem)
                continue
            self._done.add(marker)
            _LOG.info("evidence posted", host=host)
            try:
                create_file(marker, b"")
            except OSError as error:
                _LOG.warning("evidence may be posted once more", host=host, problem=error.strerror)
        return next(self._pending(), None) is None

    def _pending(self) -> Iterator[tuple[bytes, str, Path]]:
        """Yield each file of evidence with each webhook that has not accepted it, and the marker to make."""
        for path in self._files():
            with path.open("rb") as file:
                kept = file.read(MAX_EVIDENCE_FILE + 1)
            for url in self._urls:
                marker = self._markers / sha256(url.encode() + b"\n" + kept).hex()
                if marker not in self._done and not marker.exists():
                    yield kept, url, marker

    def _post(self, url: str, body: bytes) -> str:
        """Return why the webhook has not accepted ``body``; empty if it has."""
        deadline = Deadline()
        try:
            with httpx.Client(verify=self._verify, timeout=TIMEOUT, trust_env=uses_proxies(url)) as client:
                bound_transport(client, deadline)
                with (
                    deadline.until(time.monotonic() + TIMEOUT),
                    client.stream("POST", url, content=body, headers=_HEADERS) as response,
                ):
                    # The answer's body is of no interest, so none of it is read.
                    accepted = 200 <= response.status_code < 300
                    return "" if accepted else f"it answered with the status {response.status_code}"
        except httpx.InvalidURL:
            # The message would repeat the address, whose path may be a password.
            return "its address cannot be used"
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__

    def _files(self) -> Iterator[Path]:
        if self._folder.is_dir():
            for path in sorted(self._folder.iterdir()):
                if EVIDENCE_NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                    yield path


_HEADERS: Final = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "kt-es"}


def _document(kept: bytes) -> bytes:
    """Return what is posted about the evidence in a file. Raises as ``convict`` does."""
    data = evidence_in(kept) or kept
    evidence = Evidence.decode(data)
    document = {
        "type": "kt-es evidence",
        "origin": evidence.origin,
        "kind": evidence.kind.value,
        "contradiction": convict(evidence),
        "sha256": sha256(data).hex(),
        "evidence": encode_base64(data),
    }
    return json.dumps(document).encode()
