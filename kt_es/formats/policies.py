"""C2SP tlog-policy files (https://c2sp.org/tlog-policy): whose cosignatures make a checkpoint believed.

A policy is a file of lines. Items on a line are separated by spaces and tabs. Every line ends in a newline,
and lines that begin with ``#`` are comments::

  log <vkey> [<url>]
  witness <name> <vkey> [<url>]
  group <name> all|any|<k> <name>...
  quorum <name>|none

A group counts as a cosigner if at least ``k`` of its members do; ``any`` is 1 of them, ``all`` is each of
them. A line can only name what stands above it, each name is a member of at most one group, and there is
exactly one quorum. So a policy is a forest of thresholds, and each witness counts at most once.

The names have a meaning in their file only. The specification handles them as octets. Here they are text:
octets that are not UTF-8 are written as ``\\xNN``, and two names that would be written alike are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kt_es.crypto.hashes import sha256
from kt_es.errors import MalformedError
from kt_es.formats.notes import ED25519_NOTE, KEY_HASH_SIZE, decode_base64

MAX_POLICY_SIZE: Final = 256 * 1024
"""The largest policy file in bytes. It has room for 128 keys of ML-DSA-44."""

MAX_DEFINED: Final = 64
"""The largest number of logs, of witnesses and of groups. The specification asks for at least 32 of each."""

NO_QUORUM: Final = "none"
"""The quorum of a policy that needs no cosignature."""

COSIGNER_KEY_SIZES: Final[Mapping[int, int]] = {0x04: 32, 0x06: 1312}
"""The signature types of cosigners (c2sp.org/tlog-cosignature), with the bytes of their public keys."""

LOG_KEY_SIZES: Final[Mapping[int, int]] = {ED25519_NOTE: 32}
"""The signature types of logs that are accepted, and the sizes of their public keys in bytes."""

_REFUSED: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_THRESHOLD: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_SPACES: Final = re.compile(r"[ \t]+")


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A log that the policy accepts: its verifier key and, if there is one, its URL, which is not checked."""

    vkey: str
    url: str | None

    @property
    def origin(self) -> str:
        return self.vkey.partition("+")[0]


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness or monitor of a policy: its name there, its verifier key and, if the file has one, its URL.

    The URL is not checked.
    """

    name: str
    vkey: str
    url: str | None

    @property
    def key_name(self) -> str:
        """The name that the cosigner's signature lines have."""
        return self.vkey.partition("+")[0]


@dataclass(frozen=True, slots=True)
class Group:
    """``threshold`` of ``members``, which are names of cosigners and of groups above this one."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was parsed. ``groups`` are in the order of the file: members stand before their group."""

    logs: tuple[PolicyLog, ...]
    cosigners: tuple[Cosigner, ...]
    groups: tuple[Group, ...]
    quorum: str

    @classmethod
    def parse(cls, encoded: str | bytes) -> Policy:
        """Parse a policy file.

        Raises:
            MalformedError: The file is not a policy, or exceeds a limit. The error names the line.
        """
        data = encoded.encode("utf-8", "surrogateescape") if isinstance(encoded, str) else encoded
        reader = _Reader()
        for number, items in _lines(data):
            reader.read(number, items)
        return reader.policy()

    def is_satisfied(self, names: Collection[str]) -> bool:
        """Return whether cosignatures by the cosigners ``names`` are a quorum.

        Args:
            names: Names of cosigners as this policy has them. Names of groups count nothing.
        """
        if self.quorum == NO_QUORUM:
            return True
        counted = {cosigner.name for cosigner in self.cosigners if cosigner.name in names}
        for group in self.groups:
            if sum(member in counted for member in group.members) >= group.threshold:
                counted.add(group.name)
        return self.quorum in counted


class _Reader:
    """Takes the lines of one file in order and collects what they define."""

    def __init__(self) -> None:
        self._logs: list[PolicyLog] = []
        self._cosigners: list[Cosigner] = []
        self._groups: list[Group] = []
        self._names = {NO_QUORUM}
        self._members: set[str] = set()
        self._log_keys: set[bytes] = set()
        self._cosigner_keys: set[bytes] = set()
        self._quorum: str | None = None

    def read(self, number: int, items: list[str]) -> None:
        keyword, *rest = items
        try:
            match keyword, len(rest):
                case "log", 1 | 2:
                    self._log(*rest)
                case "witness", 2 | 3:
                    self._witness(*rest)
                case "group", count if count >= 3:
                    self._group(rest[0], rest[1], rest[2:])
                case "quorum", 1:
                    self._set_quorum(rest[0])
                case (("log" | "witness" | "group" | "quorum"), _):
                    raise _problem(f"has {len(rest)} items after {keyword}; {_FORMS[keyword]}")
                case _:
                    raise _problem(f"begins with {keyword!r}, not with log, witness, group or quorum")
        except MalformedError as error:
            raise _problem(f"line {number} {error.problem}") from None

    def policy(self) -> Policy:
        if self._quorum is None:
            raise _problem("has no quorum line; write 'quorum NAME', or 'quorum none' for no cosignatures")
        return Policy(tuple(self._logs), tuple(self._cosigners), tuple(self._groups), self._quorum)

    def _log(self, vkey: str, url: str | None = None) -> None:
        _check_room(self._logs, "logs")
        _check_key(vkey, "log", LOG_KEY_SIZES, self._log_keys)
        self._logs.append(PolicyLog(vkey, url))

    def _witness(self, name: str, vkey: str, url: str | None = None) -> None:
        _check_room(self._cosigners, "witnesses")
        _check_key(vkey, "witness", COSIGNER_KEY_SIZES, self._cosigner_keys)
        self._define(name)
        self._cosigners.append(Cosigner(name, vkey, url))

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        _check_room(self._groups, "groups")
        for member in members:
            if member == NO_QUORUM or member not in self._names:
                raise _problem(f"has the member {member!r}, which no line above defines")
            if member in self._members:
                raise _problem(f"has the member {member!r}, which is already a member of a group")
            self._members.add(member)
        needed = {"any": "1", "all": str(len(members))}.get(threshold, threshold)
        if not _THRESHOLD.fullmatch(needed) or int(needed) > len(members):
            raise _problem(
                f"has the threshold {threshold!r}; must be any, all or a number in 1 to {len(members)}"
            )
        self._define(name)
        self._groups.append(Group(name, int(needed), tuple(members)))

    def _set_quorum(self, name: str) -> None:
        if self._quorum is not None:
            raise _problem("is a second quorum line; a policy has exactly one")
        if name not in self._names:
            raise _problem(f"has the quorum {name!r}, which no line above defines")
        self._quorum = name

    def _define(self, name: str) -> None:
        if name in self._names:
            raise _problem(f"defines the name {name!r}, which is taken")
        self._names.add(name)


_FORMS: Final[Mapping[str, str]] = {
    "log": "must be 'log VKEY' or 'log VKEY URL'",
    "witness": "must be 'witness NAME VKEY' or 'witness NAME VKEY URL'",
    "group": "must be 'group NAME all|any|NUMBER MEMBER...'",
    "quorum": "must be 'quorum NAME' or 'quorum none'",
}


def _lines(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield number and items of each line that is not empty and no comment. Raises ``MalformedError``."""
    if len(data) > MAX_POLICY_SIZE:
        raise _problem(f"must have at most {MAX_POLICY_SIZE} bytes, has {len(data)}")
    *lines, rest = data.split(b"\n")
    if rest:
        raise _problem(f"line {len(lines) + 1} does not end in a newline, so the file may be incomplete")
    for number, line in enumerate(lines, 1):
        if refused := _REFUSED.search(line):
            octet = refused[0][0]
            raise _problem(f"line {number} has the control character 0x{octet:02x}; remove it")
        text = line.decode("utf-8", "backslashreplace").strip(" \t")
        if text and not text.startswith("#"):
            yield number, _SPACES.split(text)


def _check_key(vkey: str, what: str, sizes: Mapping[int, int], known: set[bytes]) -> None:
    """Check a verifier key and add its public key to ``known``. Raises ``MalformedError``."""
    name, hash_mark, rest = vkey.partition("+")
    key_hash, key_mark, encoded = rest.partition("+")
    if not (name and hash_mark and key_mark):
        raise _problem(f"has the {what} key {_short(vkey)}; a key has the form name+hash+base64")
    try:
        data = decode_base64(encoded, "policy")
    except MalformedError as error:
        raise _problem(f"has the {what} key {_short(vkey)}, which {error.problem}") from None
    kind, public_key = data[0] if data else -1, data[1:]
    if kind not in sizes:
        kinds = " or ".join(f"0x{known_kind:02x}" for known_kind in sizes)
        found = f"0x{kind:02x}" if data else "nothing"
        raise _problem(
            f"has the {what} key {_short(vkey)} of type {found}; a {what} has a key of type {kinds}"
        )
    if len(public_key) != sizes[kind]:
        raise _problem(
            f"has the {what} key {_short(vkey)} with {len(public_key)} bytes instead of {sizes[kind]}"
        )
    if sha256(name.encode() + b"\n" + data)[:KEY_HASH_SIZE].hex() != key_hash:
        raise _problem(f"has the {what} key {_short(vkey)}, whose hash is not that of its name and key")
    if public_key in known:
        raise _problem(f"has the public key of another {what} once more, in {_short(vkey)}")
    known.add(public_key)


def _check_room(defined: Collection[object], what: str) -> None:
    if len(defined) == MAX_DEFINED:
        raise _problem(f"is one more than the {MAX_DEFINED} {what} that a policy may have")


def _short(vkey: str) -> str:
    return repr(vkey if len(vkey) <= 80 else vkey[:77] + "...")


def _problem(problem: str) -> MalformedError:
    return MalformedError("policy", problem)
