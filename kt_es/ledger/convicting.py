"""Evidence files of a process that follows the logs, in the folder ``evidence`` of its data directory.

A contradiction is reported whether or not its evidence can be written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import structlog

from kt_es.errors import ConfigError, EquivocationError, MalformedError
from kt_es.evidence import convicted_before
from kt_es.formats.entries import PublicKey
from kt_es.formats.evidence import MAX_EVIDENCE_FILE, Evidence, EvidenceKind
from kt_es.formats.heads import SignedMapHead
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.process.files import create_file

FOLDER = "evidence"

_LOG = structlog.get_logger("kt_es.ledger")


@contextmanager
def keeping_evidence(data: Path | None) -> Iterator[None]:
    """Save evidence below ``data`` if the block raises ``EquivocationError``."""
    try:
        yield
    except EquivocationError as error:
        keep(data, error)
        raise


def keep(data: Path | None, error: EquivocationError) -> None:
    """Save the evidence of ``error`` unless it was saved, and set ``error.saved`` to its path."""
    if data is None or error.evidence is None or error.saved is not None:
        return
    try:
        error.saved = _save(data / FOLDER, _stem(error.evidence), error.evidence)
    except OSError as problem:
        _LOG.error("evidence not saved", folder=str(data / FOLDER), problem=problem.strerror or str(problem))


def warn_if_unsavable(data: Path) -> None:
    """Log a warning if no evidence could be saved below ``data``, which need not exist and is not made.

    For a process that needs no other file there, and so would notice this only when it has evidence.
    """
    folder = (data / FOLDER).absolute()
    try:
        with TemporaryFile(dir=next(path for path in (folder, *folder.parents) if path.exists())):
            return
    except OSError as error:
        _LOG.warning(
            "evidence cannot be saved here",
            folder=str(data),
            problem=error.strerror or str(error),
            mend="make the folder writable and start the process again; evidence is printed meanwhile",
        )


def check_unconvicted(data: Path | None, ledger: Ledger) -> None:
    """Raise ``EquivocationError`` if evidence below ``data`` convicts the directory that ``ledger`` follows.

    A watcher that restarts must not trust a log that shows one side of a proven contradiction. Raises
    ``ConfigError`` for a file that cannot be read.
    """
    origin, keys = ledger.committed.standing.origin, signer_keys(ledger)
    for path in evidence_files(data):
        try:
            with path.open("rb") as file:
                kept = file.read(MAX_EVIDENCE_FILE + 1)
        except OSError as error:
            raise ConfigError(f"the evidence {path} cannot be read: {error.strerror}") from None
        if found := convicted_before(kept, str(path), origin, keys):
            found.saved = path
            raise found


def signer_keys(ledger: Ledger) -> Set[PublicKey]:
    """Return the signer keys of the pinned directory that are known here."""
    if ledger.committed.epoch:
        chain = {signed.config.signer_key for signed in config_chain(ledger, ledger.committed)}
        if ledger.pinned in chain:
            return chain
    return {ledger.pinned}


def evidence_files(data: Path | None) -> Sequence[Path]:
    """Return the files in the folder of evidence below ``data``."""
    if data is None or not (data / FOLDER).is_dir():
        return ()
    return sorted(path for path in (data / FOLDER).iterdir() if not path.name.startswith("."))


def _stem(data: bytes) -> str:
    """Return the name of the file: the kind of evidence, and the epoch or size that it is about."""
    try:
        evidence = Evidence.decode(data)
        kind = evidence.kind.value
        if evidence.kind is EvidenceKind.CHECKPOINTS:
            size = int(evidence.statements[0].splitlines()[1])
            return f"{kind}-size-{size}"
        if evidence.kind is EvidenceKind.HEAD_CHECKPOINT:
            return f"{kind}-epoch-{SignedMapHead.decode(evidence.statements[0]).head.epoch}"
        return f"{kind}-epoch-{max(signed.head.epoch for signed in evidence.heads())}"
    except (MalformedError, ValueError, IndexError):
        return "evidence"


def _save(folder: Path, stem: str, data: bytes) -> Path:
    """Write ``data`` to a new file in ``folder`` unless a file has the same bytes, and return the path.

    No file or link is ever replaced. Raises ``OSError`` if nothing could be written.
    """
    for number in itertools.count(1):
        path = folder / (f"{stem}.evidence" if number == 1 else f"{stem}-{number}.evidence")
        try:
            create_file(path, data)
            return path
        except FileExistsError:
            if not folder.is_dir():
                raise
            if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
                return path
    raise AssertionError
