"""Checkpoints of a directory that others show: front ends, monitors, witnesses, and files of web servers.

Nothing that they send is believed: a checkpoint counts only with the signature of the directory itself.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from kt_es.client.transport import Transport
from kt_es.crypto.hashes import sha256
from kt_es.errors import MalformedError, RefusedError, UnavailableError
from kt_es.formats.heads import MAX_CHECKPOINT, heads_origin, mutations_origin

LogName = Literal["heads", "mutations"]
LOGS: Final[tuple[LogName, ...]] = ("heads", "mutations")

TIMEOUT: Final = 10.0
"""Seconds for one checkpoint, at most."""

MAX_ELSEWHERE: Final = 64
"""The largest number of places that one process compares with."""


class Elsewhere:
    """One place at ``url`` that shows checkpoints of the directory ``origin``. Safe for threads.

    Front ends, monitors and exported files have ``heads/checkpoint`` and ``mutations/checkpoint`` below it. A
    witness has the latest checkpoint of a log at the SHA-256 of its origin.
    """

    def __init__(
        self, url: str, origin: str, *, timeout: float = TIMEOUT, verify: ssl.SSLContext | bool = True
    ) -> None:
        """Raises ``ConfigError`` for an address that cannot be used."""
        self._http = Transport(url, timeout=timeout, verify=verify, connections=2)
        self._origins: Mapping[LogName, str] = {
            "heads": heads_origin(origin),
            "mutations": mutations_origin(origin),
        }

    @property
    def url(self) -> str:
        """The address without a password, for messages."""
        return self._http.base_url

    def close(self) -> None:
        self._http.close()

    def checkpoints(self) -> Iterator[tuple[LogName, bytes]]:
        """Yield the checkpoint of each log that is shown there. Nothing of it is verified.

        Raises:
            UnavailableError: The place cannot be reached, or shows no checkpoint of the directory.
        """
        found = 0
        for log in LOGS:
            if (checkpoint := self._checkpoint(log)) is not None:
                found += 1
                yield log, checkpoint
        if not found:
            raise UnavailableError(f"{self.url} shows no checkpoint of this directory; check the address")

    def _checkpoint(self, log: LogName) -> bytes | None:
        for path in (f"{log}/checkpoint", f"{sha256(self._origins[log].encode()).hex()}/checkpoint"):
            try:
                return self._http.fetch(path, self._http.deadline(), limit=MAX_CHECKPOINT, patient=False)
            except RefusedError:
                continue
            except MalformedError as error:
                raise UnavailableError(f"{self.url}: {error}") from None
        return None
