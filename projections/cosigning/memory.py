"""What each witness has cosigned last, on disk. It saves requests; the witness itself knows it for sure."""

from __future__ import annotations

import json
from pathlib import Path

from kt_es.errors import ConfigError
from kt_es.formats.cosignatures import CosignerKey
from kt_es.formats.heads import MAX_LOG_SIZE
from kt_es.process.files import replace_file
from kt_es.process.space import unwritable

FILE = "witnesses.json"
MAX_FILE = 1 << 20


class Memory:
    """The sizes by key of the witness and origin of the log. One thread uses it.

    Raises ``ConfigError`` if the file cannot be read or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._sizes: dict[str, dict[str, int]] = {}
        if self._path.exists():
            self._sizes = _read(self._path)

    def size(self, key: CosignerKey, origin: str) -> int:
        """Return the size that was cosigned last as far as is known, 0 if none was."""
        return self._sizes.get(key.vkey, {}).get(origin, 0)

    def keep(self, sizes: dict[tuple[CosignerKey, str], int]) -> None:
        """Store new sizes durably. Raises ``UnavailableError`` if the disk is full."""
        changed = {place: size for place, size in sizes.items() if self.size(*place) != size}
        if not changed:
            return
        for (key, origin), size in changed.items():
            self._sizes.setdefault(key.vkey, {})[origin] = size
        try:
            replace_file(self._path, json.dumps(self._sizes, indent=1).encode())
        except OSError as error:
            raise unwritable(self._path, error) from None


def _read(path: Path) -> dict[str, dict[str, int]]:
    problem = "is not what kt cosign writes"
    try:
        if path.stat().st_size <= MAX_FILE:
            found = json.loads(path.read_text())
            if isinstance(found, dict) and all(map(_is_sizes, found.values())):
                return found
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        problem = "is no JSON"
    raise ConfigError(f"{path} {problem}; remove it: the witnesses know what they have cosigned")


def _is_sizes(found: object) -> bool:
    return isinstance(found, dict) and all(
        type(size) is int and 0 <= size <= MAX_LOG_SIZE for size in found.values()
    )
