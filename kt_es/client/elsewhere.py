"""Checkpoints of a directory that others were shown: by front ends, monitors and witnesses, and in files.

Nothing that they send is believed: a checkpoint counts only with the signature of the directory itself.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from kt_es.api.codec import decode_model
from kt_es.api.cosigned import CosignedBody
from kt_es.api.models import ConsistencyBody, HeadBody
from kt_es.api.operations import COSIGNED
from kt_es.api.paths import consistency_path, head_path
from kt_es.client.transport import Transport
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, MalformedError, RefusedError, UnavailableError
from kt_es.formats.evidence import MAX_EVIDENCE, MAX_EVIDENCE_FILE, evidence_in
from kt_es.formats.heads import LOG_NAMES, MAX_CHECKPOINT, LogName, log_origins
from kt_es.formats.notes import parse_note

TIMEOUT: Final = 10.0
"""Seconds for one checkpoint, at most."""

EVIDENCE_NAME: Final = re.compile(r"[a-z0-9-]{1,80}\.evidence", re.ASCII)
"""The names of files of evidence that monitors serve."""

_MOST_EVIDENCE: Final = 4
_MAX_LIST: Final = 64 * 1024


class Place(Protocol):
    """Where checkpoints of a directory are shown."""

    @property
    def url(self) -> str:
        """Its name in messages, without a password."""

    def checkpoints(self) -> Iterator[tuple[LogName, bytes]]:
        """Yield checkpoints and their logs. Nothing of it is verified. Raises ``UnavailableError``."""

    def evidence(self) -> Iterator[bytes]:
        """Yield what is said to be evidence there. Nothing of it is verified. Raises ``UnavailableError``."""

    def consistency(self, log: LogName, first: int, second: int) -> tuple[bytes, ...] | None:
        """Return its proof between two sizes of a log, unverified; None where it serves no proofs.

        Raises ``UnavailableError`` and ``MalformedError``.
        """

    def head(self, epoch: int) -> HeadBody | None:
        """Return its statement about an epoch, unverified; None where it serves no heads.

        Raises ``UnavailableError`` and ``MalformedError``.
        """

    def close(self) -> None: ...


def place_at(where: str, origin: str, *, verify: ssl.SSLContext | bool = True, public: bool = False) -> Place:
    """Return the place ``where``: a URL, or else the path of a file with a checkpoint that somebody saved.

    With ``public`` it is a URL, and no address of a private network is asked.

    Raises ``ConfigError`` for an address that cannot be used, and for a file that cannot be read or is no
    checkpoint of the directory.
    """
    if public or "://" in where:
        return Elsewhere(where, origin, verify=verify, public=public)
    if not where:
        raise ConfigError("a place to compare with is empty: name a URL or a file")
    saved = SavedCheckpoint(Path(where), origin)
    saved.check()
    return saved


class SavedCheckpoint:
    """A file with a checkpoint, as ``kt checkpoint`` prints it, or with evidence. It is read each time."""

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self._origin = origin

    @property
    def url(self) -> str:
        return str(self._path)

    def check(self) -> None:
        """Raise ``ConfigError`` unless the file has evidence, or a checkpoint of the directory."""
        try:
            if any(True for _ in self.evidence()):
                return
            for _, checkpoint in self.checkpoints():
                parse_note(checkpoint)
        except UnavailableError as error:
            raise ConfigError(str(error)) from None
        except MalformedError as error:
            raise ConfigError(
                f"{self._path} is no complete checkpoint ({error}): save it again with kt checkpoint"
            ) from None

    def close(self) -> None:
        """A file is not kept open."""

    def consistency(self, log: LogName, first: int, second: int) -> None:
        """A file proves nothing about other sizes."""

    def head(self, epoch: int) -> None:
        """A file has no heads."""

    def evidence(self) -> Iterator[bytes]:
        data = self._read()
        if _is_evidence(data):
            yield data

    def checkpoints(self) -> Iterator[tuple[LogName, bytes]]:
        data = self._read()
        logs = {origin: log for log, origin in log_origins(self._origin).items()}
        log = logs.get(data[:MAX_CHECKPOINT].partition(b"\n")[0].decode(errors="replace"))
        if log is None:
            raise UnavailableError(
                f"{self._path} is no checkpoint of {self._origin}; name one that kt checkpoint printed"
            )
        yield log, data[: MAX_CHECKPOINT + 1]

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_EVIDENCE_FILE + 1)
        except OSError as error:
            raise UnavailableError(
                f"{self._path} cannot be read: {error.strerror}; name a file, or a URL that begins with https://"
            ) from None


def _is_evidence(data: bytes) -> bool:
    try:
        return evidence_in(data) is not None
    except MalformedError:
        return False


class Elsewhere:
    """One place at ``url`` that shows checkpoints of the directory ``origin``. Safe for threads.

    Front ends, monitors and exported files have ``heads/checkpoint`` and ``mutations/checkpoint`` below it. A
    witness has the latest checkpoint of a log at the SHA-256 of its origin.

    Attributes:
        address: ``url`` as it was given, perhaps with a password.
    """

    def __init__(
        self,
        url: str,
        origin: str,
        *,
        timeout: float = TIMEOUT,
        verify: ssl.SSLContext | bool = True,
        public: bool = False,
    ) -> None:
        """Raises ``ConfigError`` for an address that cannot be used."""
        self._http = Transport(url, timeout=timeout, verify=verify, connections=2, public=public)
        self.address = url
        self._origins = log_origins(origin)

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
        for log in LOG_NAMES:
            if (checkpoint := self._checkpoint(log)) is not None:
                found += 1
                yield log, checkpoint
        if not found:
            raise UnavailableError(f"{self.url} shows no checkpoint of this directory; check the address")

    def cosigned(self) -> tuple[str, ...]:
        """Return the cosigned heads that a front end shows; nothing of them is verified. Others show none.

        Raises ``UnavailableError`` and ``MalformedError``.
        """
        try:
            answer = self._http.get(COSIGNED.path, self._http.deadline(), patient=False)
        except RefusedError:
            return ()
        return decode_model(CosignedBody, answer.body).heads

    def consistency(self, log: LogName, first: int, second: int) -> tuple[bytes, ...] | None:
        try:
            answer = self._http.get(
                consistency_path(log, first, second), self._http.deadline(), patient=False
            )
        except RefusedError:
            return None
        return decode_model(ConsistencyBody, answer.body).hashes

    def head(self, epoch: int) -> HeadBody | None:
        try:
            answer = self._http.get(head_path(epoch), self._http.deadline(), patient=False)
        except RefusedError:
            return None
        return decode_model(HeadBody, answer.body)

    def evidence(self) -> Iterator[bytes]:
        """Yield the evidence that a monitor shows, up to ``_MOST_EVIDENCE`` files. Others show none."""
        for name in self._evidence_names():
            try:
                yield self._http.fetch(
                    f"evidence/{name}", self._http.deadline(), limit=MAX_EVIDENCE, patient=False
                )
            except (RefusedError, MalformedError):
                continue

    def _evidence_names(self) -> list[str]:
        try:
            answer = self._http.get("evidence", self._http.deadline(), limit=_MAX_LIST, patient=False)
        except (RefusedError, MalformedError):
            return []
        listed = answer.body.get("evidence")
        names = (
            [one.get("name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        )
        found = [name for name in names if isinstance(name, str) and EVIDENCE_NAME.fullmatch(name)]
        return found[:_MOST_EVIDENCE]

    def _checkpoint(self, log: LogName) -> bytes | None:
        for path in (f"{log}/checkpoint", f"{sha256(self._origins[log].encode()).hex()}/checkpoint"):
            try:
                return self._http.fetch(path, self._http.deadline(), limit=MAX_CHECKPOINT, patient=False)
            except RefusedError:
                continue
            except MalformedError as error:
                raise UnavailableError(f"{self.url}: {error}") from None
        return None
