"""How many mails went to whom within an hour: a small SQLite file that outlives the process.

The processes of one front end share the file, so their limits are one. Each further front end counts for
itself. The file has hashes of addresses and clients under the key of the mail proofs, no address.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from kt_es.process.files import PRIVATE
from kt_es.server.responses import NotNowError

HOUR = 3600.0
_BUSY = 5.0  # seconds that a process waits for another one's transaction
_LOG = structlog.get_logger("kt_es.server")


@dataclass(frozen=True, slots=True)
class Counted:
    """A mail that was counted: its row, for ``MailLimits.forget``."""

    row: int


@dataclass(frozen=True, slots=True)
class TooMany:
    """No mail may be sent now.

    Attributes:
        what: Which limit is reached: ``address``, ``client`` or ``all``.
        wait: Seconds until the next mail may be sent.
    """

    what: str
    wait: float


class MailLimits:
    """Counts mails. Safe for threads and processes.

    Args:
        path: The file, which is made when the first mail is counted.
        secret: The key of the hashes.
        now: Gives seconds since 1970.
    """

    def __init__(self, path: Path, secret: bytes, now: Callable[[], float]) -> None:
        self._path = path
        self._secret = secret
        self._now = now

    def count(self, address: str, client: str, most: tuple[int, int, int]) -> Counted | TooMany:
        """Count a mail to ``address`` that ``client`` asked for, unless a limit is reached.

        ``most`` are the mails in an hour for the address, for the client and in all. Raises ``NotNowError``
        if the file cannot be used: then nothing may be sent, because nothing would limit it.
        """
        now, places = self._now(), (self._hash("address", address), self._hash("client", client))
        with self._transaction() as rows:
            # A clock that was set back would otherwise keep rows from the future for ever.
            rows.execute("DELETE FROM mails WHERE at <= ? OR at > ?", (now - HOUR, now + HOUR))
            for what, condition, values, limit in (
                ("address", "WHERE address = ?", places[:1], most[0]),
                ("client", "WHERE client = ?", places[1:], most[1]),
                ("all", "", (), most[2]),
            ):
                found = rows.execute(
                    f"SELECT at FROM mails {condition} ORDER BY at DESC LIMIT 1 OFFSET ?",  # noqa: S608
                    (*values, limit - 1),
                ).fetchone()
                if found is not None:
                    return TooMany(what, max(1.0, found[0] + HOUR - now))
            row = rows.execute("INSERT INTO mails VALUES (?, ?, ?)", (*places, now)).lastrowid
        return Counted(int(row or 0))

    def forget(self, counted: Counted) -> None:
        """Take back a mail that was not sent."""
        with self._transaction() as rows:
            rows.execute("DELETE FROM mails WHERE rowid = ?", (counted.row,))

    def _hash(self, kind: str, text: str) -> bytes:
        return hmac.digest(self._secret, f"kt-es mail limit {kind} {text}".encode(), hashlib.sha256)[:16]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that excludes all others, and commit it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE))
            with closing(sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None)) as rows:
                rows.execute("BEGIN IMMEDIATE")
                rows.execute("CREATE TABLE IF NOT EXISTS mails (address BLOB, client BLOB, at REAL)")
                rows.execute("CREATE INDEX IF NOT EXISTS mails_address ON mails (address, at)")
                rows.execute("CREATE INDEX IF NOT EXISTS mails_client ON mails (client, at)")
                yield rows
                rows.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            _LOG.error("the limits of mails cannot be kept", file=str(self._path), error=str(error))
            raise NotNowError("mails cannot be sent now; try again later", 10.0) from None
