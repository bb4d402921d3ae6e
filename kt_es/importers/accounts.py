"""The plan of an import, and how the keys of an account and of an import are combined. No network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.entries import MAX_PROFILE, MAX_PROFILE_KEYS, ProfileKey, encode_profile
from kt_es.formats.labels import normalize_label
from kt_es.importers.openpgp_keyring import merge_certificates
from kt_es.importers.packets import without_armor
from kt_es.importers.recognize import fingerprint_of, openpgp_certificates

PROFILE_LIMIT = f"{MAX_PROFILE} bytes and {MAX_PROFILE_KEYS} keys"
_SHOWN = 200
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what ``surrogateescape`` makes of other bytes


@dataclass(frozen=True, slots=True)
class ImportedAccount:
    """One label and the keys of its profile. The keys fit into one profile."""

    label: str
    keys: tuple[ProfileKey, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of the file that becomes no account.

    ``what`` may hold a name or an address from the file, so it is shown in the terminal and never logged.
    ``reason`` has no personal data, so that reasons can be counted. ``where`` is the number of the line,
    block or certificate, unless ``what`` is this number.
    """

    what: str
    reason: str
    where: str = ""

    @property
    def shown(self) -> str:
        return f"{self.where}, {self.what}" if self.where else self.what


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """Accounts in the order in which their labels first occur in the file. The same file gives the same plan.

    ``keys`` is the number of certificates or keys that were read. ``revoked`` is the number of those that
    contain their own revocation; they are published with it.
    """

    accounts: tuple[ImportedAccount, ...]
    skipped: tuple[Skipped, ...]
    keys: int
    revoked: int = 0


def read_bytes(path: Path) -> bytes:
    """Read a whole file. Raises ``ConfigError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


@dataclass(slots=True)
class Collector:
    """Collects keys by label while a file is read.

    Keys of the same name in one account count as the same key, so the reader merges different copies first.
    ``smaller`` makes a shorter form of a key, for accounts whose keys do not fit into one profile.
    """

    policy: str
    smaller: Callable[[ProfileKey], ProfileKey] | None = None
    _found: dict[str, dict[str, ProfileKey]] = field(default_factory=dict)
    _skipped: list[Skipped] = field(default_factory=list)

    def add(self, label: str, key: ProfileKey, where: str = "") -> None:
        """Add ``key`` to the account of ``label``, or note why ``label`` cannot be a label."""
        if _NOT_UTF8.search(label):
            self.skip(label, "the label is not UTF-8", where)
            return
        try:
            label = normalize_label(label, self.policy)
        except MalformedError as error:
            self.skip(label, f"the label {error.problem}", where)
            return
        self._found.setdefault(label, {}).setdefault(key.name, key)

    def skip(self, what: str, reason: str, where: str = "") -> None:
        # The text is not trusted: its control characters must not reach a terminal.
        shown = "".join(character if character.isprintable() else "?" for character in what[:_SHOWN])
        self._skipped.append(Skipped(shown, reason, where))

    def plan(self, keys: int, revoked: int = 0) -> ImportPlan:
        accounts = tuple(self._accounts())  # adds to the parts that are skipped
        return ImportPlan(accounts, tuple(self._skipped), keys, revoked)

    def _accounts(self) -> Iterator[ImportedAccount]:
        # Many labels share the same keys, so each set of keys is checked once.
        decided: dict[tuple[int, ...], tuple[ProfileKey, ...] | None] = {}
        shorter: dict[int, ProfileKey] = {}
        for label, by_name in self._found.items():
            identity = tuple(id(key) for key in by_name.values())
            if identity not in decided:
                decided[identity] = self._fitting(tuple(by_name.values()), shorter)
            keys = decided[identity]
            if keys is not None:
                yield ImportedAccount(label, keys)
            else:
                self.skip(label, f"its keys do not fit into one profile of at most {PROFILE_LIMIT}")

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
    """Return whether ``keys`` can be one profile."""
    if len(keys) > MAX_PROFILE_KEYS:
        return False
    try:
        encode_profile(keys)
    except MalformedError:
        return False
    return True


def combined(present: Sequence[ProfileKey], wanted: Sequence[ProfileKey]) -> tuple[ProfileKey, ...]:
    """Return the keys of ``present`` in their order, then the keys of ``wanted`` that are not among them.

    Two keys are the same if they have the same type and fingerprint, whatever their names are. All packets of
    both copies of an OpenPGP certificate are kept, so that an old copy removes no revocation.
    Raises ``MalformedError``.
    """
    keys = {_identity(key): key for key in present}
    for key in wanted:
        identity = _identity(key)
        known = keys.get(identity)
        keys[identity] = key if known is None else _of_both(known, key)
    result = tuple(keys.values())
    if not fits(result):
        raise MalformedError("profile", f"with the keys that the account has it would exceed {PROFILE_LIMIT}")
    return result


def keeping(
    present: Sequence[ProfileKey], wanted: Sequence[ProfileKey], *, names: bool = False
) -> tuple[ProfileKey, ...]:
    """Return the keys of ``wanted``. An OpenPGP certificate keeps the packets of its copy in ``present``.

    Such a packet may be a revocation. With ``names``, a key that is in ``present`` keeps its name from there.
    """
    known = {_identity(key): key for key in present}
    kept = []
    for key in wanted:
        there = known.get(_identity(key), key)
        data = _of_both(there, key).data if key.type == "openpgp" else key.data
        # If nothing is added, the key stays as it was given, armored or binary.
        data = key.data if _certificate(key) == data else data
        kept.append(replace(key, data=data, name=there.name if names else key.name))
    return tuple(kept)


def _of_both(known: ProfileKey, copy: ProfileKey) -> ProfileKey:
    """Return ``known`` with the packets that only ``copy``, another copy of the same key, has."""
    if known.type != "openpgp" or not (old := _certificate(known)) or not (new := _certificate(copy)):
        return known
    merged = merge_certificates(old, new)
    return known if merged == old else replace(known, data=merged)


def lost(present: Sequence[ProfileKey], wanted: Sequence[ProfileKey]) -> tuple[ProfileKey, ...]:
    """Return the keys of ``present`` that are not among ``wanted``."""
    kept = {_identity(key) for key in wanted}
    return tuple(key for key in present if _identity(key) not in kept)


def _identity(key: ProfileKey) -> tuple[str, str]:
    if key.type == "openpgp":
        certificate = _certificate(key)
        # A key of a profile with several certificates is identified by all of its bytes.
        return key.type, fingerprint_of("openpgp" if certificate else "raw", certificate or key.data)
    return key.type, fingerprint_of(key.type, key.data)


def _certificate(key: ProfileKey) -> bytes:
    """Return the only certificate of ``key`` in binary form; empty if ``key`` has several or none."""
    certificates = openpgp_certificates(without_armor(key.data))
    return certificates[0] if len(certificates) == 1 else b""
