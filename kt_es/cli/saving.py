"""Files that commands write: private files, and the proof or the proven keys of ``kt get``."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.entries import MAX_PROFILE, ProfileKey
from kt_es.formats.proofs import MAX_PROOF_FILE, ProofFile
from kt_es.process.files import PUBLIC, create_file, replace_file, sync_directory
from kt_es.process.space import unwritable

MANIFEST = ".kt-saved.json"
_MAX_MANIFEST = 256 * 1024
_NAME = re.compile(r"[0-9]{1,3}\.[a-z0-9]{1,16}")


def write_private(path: Path, data: bytes) -> None:
    """Write a whole file, on disk before its name is. Raises the errors of ``space.unwritable``."""
    try:
        replace_file(path, data)
    except OSError as error:
        raise unwritable(path, error) from None


def save_proof(path: Path, proof: ProofFile) -> None:
    """Write ``proof`` to ``path``, which must be new or an earlier proof: a key would be lost.

    Raises ``ConfigError``.
    """
    try:
        if os.path.lexists(path):
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode) or not _is_proof(path):
                raise ConfigError(f"{path} exists and is no saved proof: name another file")
        elif not path.absolute().parent.is_dir():
            raise ConfigError(f"{path.parent} is not a directory: make it first, or name another one")
        replace_file(path, proof.encode(), PUBLIC)
    except OSError as error:
        raise unwritable(path, error) from None


def _is_proof(path: Path) -> bool:
    with path.open("rb") as file:
        data = file.read(MAX_PROOF_FILE + 1)
    try:
        ProofFile.decode(data)
    except MalformedError:
        return False
    return True


def save_profile(directory: Path, keys: Sequence[ProfileKey]) -> None:
    """Make ``directory`` hold exactly ``keys``, one file each, named by number and type.

    The files are written into a new directory, which then replaces the old one: there is never a mixture of
    both. Only files of an earlier save are removed; its manifest has the hash of each.
    Raises ``ConfigError``.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 - links are not to be followed
    fresh = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.new")
    try:
        written = _written_before(directory)
        fresh.mkdir(mode=0o755, parents=True)
        files = {f"{number}.{key.type}": key.data for number, key in enumerate(keys)}
        for name, data in files.items():
            create_file(fresh / name, data, PUBLIC)
        hashes = {name: sha256(data).hex() for name, data in files.items()}
        create_file(fresh / MANIFEST, json.dumps({"files": hashes}).encode(), PUBLIC)
        _replace(fresh, directory, written)
    except OSError as error:
        raise unwritable(directory, error) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replace(fresh: Path, directory: Path, written: Sequence[str] | None) -> None:
    """Replace ``directory``, which has the files ``written`` and its manifest, by ``fresh``.

    A crash between the two renames leaves the old files under another name, and the next save succeeds.
    """
    if written is None:
        # There is nothing, or an empty directory, which the rename replaces.
        fresh.rename(directory)
    else:
        old = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.old")
        directory.rename(old)
        fresh.rename(directory)
        for name in (*written, MANIFEST):
            (old / name).unlink(missing_ok=True)
        old.rmdir()
    sync_directory(directory.parent)


def _written_before(directory: Path) -> Sequence[str] | None:
    """Return the files of an earlier save; None if the directory does not exist or is empty."""
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{directory} is not a directory: name another one to save to")
    there = {path.name for path in directory.iterdir()}
    if not there:
        return None
    hashes = _manifest(directory / MANIFEST) if MANIFEST in there else {}
    others = sorted(there - {MANIFEST})
    strangers = [name for name in others if name not in hashes or _hash_of(directory / name) != hashes[name]]
    if MANIFEST not in there or strangers:
        shown = ", ".join(strangers[:3])
        raise ConfigError(
            f"{directory} holds files that `kt get --save` did not write, or not so ({shown}): "
            "name another directory"
        )
    return others


def _hash_of(path: Path) -> str | None:
    """Return the hash of a file; None if a save cannot have written it."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_PROFILE:
        return None
    return sha256(path.read_bytes()).hex()


def _manifest(path: Path) -> Mapping[str, str]:
    """Read the names and hashes in a manifest, which anybody may have changed since it was written."""
    with path.open("rb") as file:
        data = file.read(_MAX_MANIFEST)
    try:
        hashes = json.loads(data)["files"]
    except (ValueError, TypeError, KeyError, RecursionError):
        hashes = None
    if not isinstance(hashes, dict) or not all(
        _NAME.fullmatch(name) and isinstance(value, str) for name, value in hashes.items()
    ):
        raise ConfigError(f"{path} is damaged: remove the directory, or name another one")
    return hashes
