"""Which logs a witness knows: verifier keys of the command line, and lists of logs (C2SP tlog-list)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.cosignatures import MAX_NAME
from kt_es.formats.notes import VerifierKey
from kt_es.witness.judging import Logs

HEADER: Final = "logs/v0"
MAX_LIST: Final = 8 << 20
MAX_LOGS: Final = 10_000
_FIELDS: Final = ("vkey", "origin", "qpd", "contact")


def known_logs(vkeys: Iterable[str], lists: Iterable[Path]) -> Logs:
    """Return the keys of all logs by origin. A log that comes twice has several keys, as in a rotation.

    Raises ``ConfigError``.
    """
    found: dict[str, list[VerifierKey]] = {}
    for vkey in vkeys:
        key = _key(vkey, "--log")
        found.setdefault(key.name, []).append(key)
    for path in lists:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_LIST + 1)
        except OSError as error:
            raise ConfigError(f"list of logs {path} cannot be read: {error.strerror}") from None
        for origin, key in parse_list(data, str(path)):
            found.setdefault(origin, []).append(key)
    if len(found) > MAX_LOGS:
        raise ConfigError(f"there are {len(found)} logs: one witness knows at most {MAX_LOGS}")
    for origin, keys in found.items():
        if (size := len(origin.encode())) > MAX_NAME:
            raise ConfigError(
                f"the log {origin[:80]!r}... has an origin of {size} bytes, and ML-DSA-44 cosigns at most "
                f"{MAX_NAME}: leave it out"
            )
        if len({(key.name, key.key_hash) for key in keys}) < len(set(keys)):
            raise ConfigError(f"two keys of the log {origin} have the same name and key hash: leave one out")
    return {origin: tuple(dict.fromkeys(keys)) for origin, keys in found.items()}


def parse_list(data: bytes, where: str) -> list[tuple[str, VerifierKey]]:
    """Return origin and key of each log in a list. Raises ``ConfigError``, with the line."""
    if len(data) > MAX_LIST:
        raise ConfigError(f"{where}: a list of logs has at most {MAX_LIST} bytes")
    try:
        lines = [line.strip(" \t") for line in data.decode().split("\n")]
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: the list of logs is not UTF-8") from None
    for sign, fault in (("\ufeff", "a byte order mark"), ("\r", "a carriage return")):
        if number := next((at for at, line in enumerate(lines, 1) if sign in line), 0):
            raise ConfigError(f"{where}:{number}: there is {fault}; save the list with LF alone, as UTF-8")
    content = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not content or content[0][1] != HEADER:
        raise ConfigError(f"{where}: the first line of a list of logs is {HEADER}")
    found: list[tuple[str, VerifierKey]] = []
    before = "contact"
    for number, line in content[1:]:
        name, _, value = line.partition(" ")
        at = f"{where}:{number}"
        after = {"vkey": ("contact",), "origin": ("vkey",), "qpd": ("vkey", "origin"), "contact": ("qpd",)}
        if name not in _FIELDS or not value or before not in after[name]:
            raise ConfigError(f"{at}: expected {_expected(before)}, found {line[:80]!r}")
        if name == "vkey":
            key = _key(value, at)
            found.append((key.name, key))
        elif name == "origin":
            found[-1] = value, found[-1][1]
        before = name
    if before != "contact":
        raise ConfigError(f"{where}: the last log has no contact; is the list complete?")
    return found


def _expected(before: str) -> str:
    return {"contact": "vkey", "vkey": "origin or qpd", "origin": "qpd", "qpd": "contact"}[before]


def _key(vkey: str, where: str) -> VerifierKey:
    try:
        return VerifierKey.parse(vkey)
    except MalformedError as error:
        raise ConfigError(f"{where}: {vkey[:120]!r} is no key of a log: {error.problem}") from None
