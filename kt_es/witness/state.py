"""The key of a witness, and what it has cosigned last of each log: one folder, which belong together.

A witness that forgets what it has cosigned may cosign a fork. So the key is made together with the memory, a
key without its memory is refused, and everything is read and verified at the start. ``witness.json`` names
the logs that were ever cosigned, so that a lost file of one is noticed as well. A backup of the folder is
an older memory: it must not be used, a new key takes its place.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kt_es.crypto.mldsa import MlDsaKey, is_available
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.errors import ConfigError, DivergenceError, MalformedError, VerificationError
from kt_es.formats.cosignatures import (
    COSIGNATURE_ML_DSA,
    MAX_NAME,
    CosignerKey,
    cosign,
    cosign_ml_dsa,
    read_cosigned,
)
from kt_es.formats.heads import Checkpoint
from kt_es.formats.notes import Note, NoteSignature, parse_note
from kt_es.formats.witnessing import origin_hash, witnessed
from kt_es.process.files import create_file, read_key, replace_file, sync_directory
from kt_es.process.folders import one_process
from kt_es.process.space import unwritable

KEY: Final = "key.pem"
ML_DSA_KEY: Final = "ml-dsa-44.pem"
NAME: Final = "witness.json"
LOGS: Final = "logs"
FORKS: Final = "forks"
MAX_STATE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """The name and the private keys of a witness, in ``folder``. ``ml_dsa`` may be missing."""

    folder: Path
    name: str
    key: PrivateKey
    ml_dsa: MlDsaKey | None = None

    @property
    def public(self) -> CosignerKey:
        """The key of Ed25519, which every witness has."""
        return CosignerKey(self.name, self.key.public)

    @property
    def keys(self) -> tuple[CosignerKey, ...]:
        """All keys."""
        if self.ml_dsa is None:
            return (self.public,)
        return self.public, CosignerKey(self.name, self.ml_dsa.public, COSIGNATURE_ML_DSA)

    def cosign(self, text: str, timestamp: int) -> tuple[NoteSignature, ...]:
        """Return one cosignature by each key."""
        lines = cosign(text, self.name, self.key, timestamp)
        if self.ml_dsa is not None:
            lines += cosign_ml_dsa(text, self.name, self.ml_dsa, timestamp)
        return parse_note(f"{text}\n{lines}").signatures


@contextmanager
def opened(
    folder: Path,
    name: str | None,
    random: Callable[[int], bytes] = os.urandom,
    *,
    ml_dsa: bool = False,
    option: str = "--name",
) -> Iterator[Identity]:
    """Yield the witness in ``folder``, for this process alone. A new folder gets a new key.

    Args:
        folder: The folder, private to its user.
        name: The key name. A new witness needs one; an old one keeps its own.
        random: Returns random bytes.
        ml_dsa: Adds a key of ML-DSA-44, if there is none yet.
        option: The option by which a user gives ``name``, for messages.

    Raises:
        ConfigError: The name is missing, malformed or another one, or the key lacks its memory.
        LockedError: Another process uses the folder.
    """
    with one_process(folder, "witness"):
        if not (folder / NAME).exists():
            _begin(folder, name, random, option)
        if ml_dsa:
            _add_ml_dsa(folder, random)
        yield _existing(folder, name)


def _begin(folder: Path, name: str | None, random: Callable[[int], bytes], option: str) -> None:
    """Make the key, then the folder of logs, and last the file with the name, which marks them complete."""
    if name is None:
        raise ConfigError(f"{folder} is new and needs {option}, such as witness.example.org/w1")
    try:
        CosignerKey(name, bytes(32))
    except MalformedError as error:
        raise ConfigError(f"{option} {name!r}: {error.problem}") from None
    if len(name.encode()) > MAX_NAME:
        raise ConfigError(f"{option} has {len(name.encode())} bytes: choose a name of at most {MAX_NAME}")
    if any((folder / LOGS).glob("*")) or (folder / FORKS).exists():
        raise ConfigError(
            f"{folder} has logs of a witness, but not its {NAME}: what it cosigned may be lost; begin with a "
            "new folder, a new key and a new name"
        )
    try:
        if not (folder / KEY).exists():
            create_file(folder / KEY, PrivateKey.from_seed(ED25519, random(32)).to_pem())
        key = read_key(folder / KEY, "the witness key", PrivateKey.from_pem)
        (folder / LOGS).mkdir(mode=0o700, exist_ok=True)
        sync_directory(folder)
        replace_file(folder / NAME, _described(CosignerKey(name, key.public), ()))
    except OSError as error:
        raise unwritable(folder, error) from None


def _add_ml_dsa(folder: Path, random: Callable[[int], bytes]) -> None:
    """Make a second key beside the first one. Both have the same memory."""
    if not is_available():
        raise ConfigError("ML-DSA-44 needs a newer library cryptography: upgrade it, or leave --ml-dsa out")
    path = folder / ML_DSA_KEY
    try:
        if not path.exists():
            create_file(path, MlDsaKey.from_seed(random(32)).to_pem())
    except OSError as error:
        raise unwritable(path, error) from None


def _existing(folder: Path, name: str | None) -> Identity:
    key = read_key(folder / KEY, "the witness key", PrivateKey.from_pem)
    try:
        found = json.loads((folder / NAME).read_bytes())
        path = folder / ML_DSA_KEY
        ml_dsa = read_key(path, "the witness key", MlDsaKey.from_pem) if path.exists() else None
        identity = Identity(folder, found["name"], key, ml_dsa)
        if key.algorithm != ED25519 or identity.public.vkey != found["vkey"]:
            raise ConfigError(
                f"{folder / KEY} is not the key of {folder / NAME}: restore the one that it names"
            )
    except (OSError, ValueError, TypeError, KeyError, MalformedError) as error:
        raise ConfigError(f"{folder / NAME} cannot be used: {error}") from None
    if name not in (None, identity.name):
        raise ConfigError(f"{folder} is the witness {identity.name}, not {name}: name another folder")
    return identity


def _described(key: CosignerKey, logs: Iterable[str]) -> bytes:
    return json.dumps({"name": key.name, "vkey": key.vkey, "logs": sorted(logs)}, indent=1).encode()


def _listed(folder: Path) -> frozenset[str]:
    """Return the hashes of the logs that ``witness.json`` names, which earlier versions did not."""
    try:
        logs = json.loads((folder / NAME).read_bytes()).get("logs", [])
        if isinstance(logs, list) and all(isinstance(log, str) for log in logs):
            return frozenset(logs)
        problem = "logs must be a list of names"
    except (OSError, ValueError, AttributeError) as error:
        problem = str(error)
    raise DivergenceError(
        f"{folder / NAME}: {problem}; the memory of this witness is damaged, so it must not go on"
    )


class CosignedLogs:
    """The checkpoint of each log that was cosigned last. A log's entry is used under its own lock.

    Raises:
        DivergenceError: A file was not written by this witness, or is lost. Nothing may be cosigned any more.
        UnavailableError: The disk is full, and ``witness.json`` does not name all logs yet.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._folder = identity.folder / LOGS
        self._forks = identity.folder / FORKS
        self._notes: dict[str, Note] = {}
        self._listing = threading.Lock()  # held while ``witness.json`` is written
        try:
            # A file whose name begins with a dot was never complete.
            paths = sorted(path for path in self._folder.iterdir() if not path.name.startswith("."))
            for path in paths:
                self._notes[path.name] = _verified(path, identity)
        except OSError as error:
            raise DivergenceError(
                f"{self._folder} cannot be read ({error.strerror}): without its memory this witness must not "
                "go on; begin with a new folder, a new key and a new name"
            ) from None
        self._listed = _listed(identity.folder)
        if lost := sorted(self._listed - self._notes.keys()):
            raise DivergenceError(
                f"{self._folder / lost[0]} is lost, and so what was cosigned of {len(lost)} of the logs of "
                "this witness; it must not go on: begin with a new folder, a new key and a new name"
            )
        # A witness of an earlier version, or one that was killed between the two files.
        self._list(self._notes.keys())

    def note(self, name: str) -> Note | None:
        """Return the cosigned note of the log whose origin has the hash ``name``."""
        return self._notes.get(name)

    def latest(self, origin: str) -> Checkpoint | None:
        note = self.note(origin_hash(origin))
        return None if note is None else witnessed(note.text)

    def put(self, origin: str, note: Note) -> None:
        """Store a cosigned note; it is durable on return. Raises ``UnavailableError`` if the disk is full."""
        name = origin_hash(origin)
        try:
            replace_file(self._folder / name, note.encode().encode())
        except OSError as error:
            raise unwritable(self._folder, error) from None
        # After the file, so that a witness that is killed between them has nothing listed that it lacks.
        self._list({name})
        self._notes[name] = note

    def _list(self, names: Set[str]) -> None:
        """Name these logs in ``witness.json``; it is durable on return. Raises ``UnavailableError``."""
        with self._listing:
            listed = self._listed | names
            if listed == self._listed:
                return
            try:
                replace_file(self._identity.folder / NAME, _described(self._identity.public, listed))
            except OSError as error:
                raise unwritable(self._identity.folder / NAME, error) from None
            self._listed = listed

    def keep_fork(self, origin: str, request: bytes, *, is_proven: bool) -> Path | None:
        """Keep the first request of each log that proves a fork, and the first that proves none.

        Return its path, None if an earlier one is kept. False proofs, which anybody can send, do not take the
        place of a proven fork.
        """
        path = self._forks / (origin_hash(origin) + ("" if is_proven else ".unproven"))
        try:
            create_file(path, request)
        except FileExistsError:
            return None
        except OSError as error:
            raise unwritable(path, error) from None
        return path


def _verified(path: Path, identity: Identity) -> Note:
    """Return the note in a file that this witness has written."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_STATE else b""
        note = parse_note(data)
        cosigned = read_cosigned(data, [identity.public])
        if cosigned.cosigners and origin_hash(witnessed(note.text).origin) == path.name:
            return note
        problem = "is not cosigned by this witness, or of another log"
    except (MalformedError, VerificationError) as error:
        problem = str(error)
    raise DivergenceError(f"{path}: {problem}; the memory of this witness is damaged, so it must not go on")
