"""``kt get --save DIR``: a directory that holds exactly what was proven, and nothing of an earlier time."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from kt_es.errors import ConfigError
from kt_es.formats.profiles import ProfileKey
from kt_es.process.files import PUBLIC, create_file, sync_directory

MANIFEST = ".kt-saved.json"
_MAX_MANIFEST = 64 * 1024


def save_profile(directory: Path, keys: Sequence[ProfileKey]) -> None:
    """Make ``directory`` hold the ``keys``, one file each, named by number and type.

    The files are written into a new directory, which then takes the place of the old one: a crash leaves no
    mixture. Only files that an earlier save wrote are removed; its manifest names them. Raises
    ``ConfigError`` if anything else stands there, or if the directory cannot be written.
    """
    try:
        written = _written_before(directory)
        fresh = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.new")
        fresh.mkdir(mode=0o755, parents=True)
        names = [f"{number}.{key.type}" for number, key in enumerate(keys)]
        for name, key in zip(names, keys, strict=True):
            create_file(fresh / name, key.data, PUBLIC)
        create_file(fresh / MANIFEST, json.dumps({"files": names}).encode(), PUBLIC)
        _take_place(fresh, directory, written)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written: {error.strerror}") from None


def _take_place(fresh: Path, directory: Path, written: Sequence[str] | None) -> None:
    if written is None:
        # Nothing is there, or an empty directory, which a renamed one replaces.
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
    """The files that an earlier save left; None where there is no such directory, or an empty one."""
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{directory} is not a directory: name another one to save to")
    there = {path.name for path in directory.iterdir()}
    if not there:
        return None
    names = _manifest(directory / MANIFEST) if MANIFEST in there else []
    strangers = sorted(there - {*names, MANIFEST})
    if MANIFEST not in there or strangers:
        raise ConfigError(
            f"{directory} holds files that `kt get --save` did not write ({', '.join(strangers[:3])}): "
            "name another directory"
        )
    return names


def _manifest(path: Path) -> list[str]:
    """The names in a manifest; it was written here, but anybody may have changed it since."""
    with path.open("rb") as file:
        data = file.read(_MAX_MANIFEST)
    try:
        names = json.loads(data)["files"]
    except (ValueError, TypeError, KeyError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(
        isinstance(name, str) and name == Path(name).name for name in names
    ):
        raise ConfigError(f"{path} is damaged: remove the directory, or name another one")
    return names
