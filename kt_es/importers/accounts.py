"""What an import would publish: accounts, and what was left out and why. No network, no signing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.labels import normalize_label
from kt_es.formats.profiles import MAX_PROFILE, MAX_PROFILE_KEYS, ProfileKey, encode_profile

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Account:
    """One label and the keys of its profile, which is known to fit."""

    label: str
    keys: tuple[ProfileKey, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in the file that no account was made of.

    ``what`` may hold a name or an address from the file: it is for the terminal of who imports, never
    for a log. ``reason`` has no personal data, so that reasons can be counted. ``where`` is the number of
    the line, block or certificate, unless ``what`` is that already.
    """

    what: str
    reason: str
    where: str = ""

    @property
    def shown(self) -> str:
        return f"{self.where}, {self.what}" if self.where else self.what


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """Accounts in the order in which their labels first stand in the file: the same file, the same plan.

    ``keys`` counts the certificates or keys that were read, ``revoked`` those of them that carry their
    own revocation and are published with it.
    """

    accounts: tuple[Account, ...]
    skipped: tuple[Skipped, ...]
    keys: int
    revoked: int = 0


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises ``ConfigError`` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


@dataclass(slots=True)
class Collector:
    """Gathers keys by label while a file is read.

    Keys of the same name in one account are the same key: whoever reads copies that differ merges them
    before. ``smaller`` turns a key into a shorter form of itself; it is used only for an account whose keys
    do not fit into one profile as they stand.
    """

    policy: str
    smaller: Callable[[ProfileKey], ProfileKey] | None = None
    _found: dict[str, dict[str, ProfileKey]] = field(default_factory=dict)
    _skipped: list[Skipped] = field(default_factory=list)

    def add(self, label: str, key: ProfileKey, where: str = "") -> None:
        """Gives ``key`` to the account of ``label``, or notes why that cannot be a label."""
        if not _is_utf8(label):
            self.skip(label, "the label is not UTF-8", where)
            return
        try:
            label = normalize_label(label, self.policy)
        except MalformedError as error:
            self.skip(label, f"the label {error.problem}", where)
            return
        self._found.setdefault(label, {}).setdefault(key.name, key)

    def skip(self, what: str, reason: str, where: str = "") -> None:
        # The text is a stranger's: it must not reach a terminal with control characters in it.
        shown = "".join(character if character.isprintable() else "?" for character in what[:_SHOWN])
        self._skipped.append(Skipped(shown, reason, where))

    def plan(self, keys: int, revoked: int = 0) -> ImportPlan:
        accounts = tuple(self._accounts())
        return ImportPlan(accounts, tuple(self._skipped), keys, revoked)

    def _accounts(self) -> Iterator[Account]:
        # Many labels share the same keys: what is decided once for these keys holds for all of them.
        decided: dict[tuple[int, ...], tuple[ProfileKey, ...] | None] = {}
        shorter: dict[int, ProfileKey] = {}
        for label, by_name in self._found.items():
            identity = tuple(id(key) for key in by_name.values())
            if identity not in decided:
                decided[identity] = self._fitting(tuple(by_name.values()), shorter)
            keys = decided[identity]
            if keys is not None:
                yield Account(label, keys)
            else:
                limit = f"{MAX_PROFILE} bytes and {MAX_PROFILE_KEYS} keys"
                self.skip(label, f"its keys do not fit into one profile of at most {limit}")

    def _fitting(
        self, keys: tuple[ProfileKey, ...], shorter: dict[int, ProfileKey]
    ) -> tuple[ProfileKey, ...] | None:
        if not fits(keys) and self.smaller is not None:
            for key in keys:
                if id(key) not in shorter:
                    shorter[id(key)] = self.smaller(key)
            keys = tuple(shorter[id(key)] for key in keys)
        return keys if fits(keys) else None


def fits(keys: Sequence[ProfileKey]) -> bool:
    """Whether ``keys`` can be one profile."""
    if len(keys) > MAX_PROFILE_KEYS:
        return False
    try:
        encode_profile(keys)
    except MalformedError:
        return False
    return True


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
