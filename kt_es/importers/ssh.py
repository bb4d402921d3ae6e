"""Imports SSH public keys: ``authorized_keys``, ``*.pub`` and ``allowed_signers``. sshd(8), ssh-keygen(1)."""

from __future__ import annotations

import base64
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from cryptography.utils import CryptographyDeprecationWarning

from kt_es.errors import MalformedError
from kt_es.formats.entries import ProfileKey
from kt_es.importers.accounts import Collector, ImportPlan, read_bytes
from kt_es.importers.recognize import fingerprint_of
from kt_es.importers.views import utf8_text

_BLANKS = " \t"
# A field has no blanks outside double quotes. Within them a backslash escapes a quote. A quote that is never
# closed extends to the end of the line: a search for its end from each further quote would take minutes.
_FIELD = re.compile(r'(?:"(?:[^"\\]|\\.?)*+(?:"|$)|[^ \t"])+')
_KEY_TYPE = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa|webauthn-sk-ecdsa)-[a-z0-9@.-]+")
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|$)')
_ASSIGNMENT = re.compile(r"[A-Za-z-]+=")
_DATES = ("valid-after", "valid-before", "expiry-time")
_TWICE = "given twice"  # not a date, so the line is not in force
_OPTIONS = frozenset(
    (
        *("agent-forwarding", "cert-authority", "command", "environment", "expiry-time", "from"),
        *("no-agent-forwarding", "no-port-forwarding", "no-pty", "no-touch-required", "no-user-rc"),
        *("no-x11-forwarding", "permitlisten", "permitopen", "port-forwarding", "principals", "pty"),
        *("restrict", "tunnel", "user-rc", "verify-required", "x11-forwarding"),
        *("namespaces", "valid-after", "valid-before"),
    )
)
# Far longer than the longest RSA key. The limit of OpenSSH is lower.
_MAX_LINE = 64 * 1024
# A date of ssh-keygen(1) and sshd(8): a day, or a time with minutes or seconds, local unless Z follows it.
_DATE = re.compile(r"(\d{8})(\d{4}(?:\d{2})?)?(Z?)", re.ASCII)
_AMBIGUOUS = "is either an allowed signer or a key with an unknown option"


@dataclass(frozen=True, slots=True)
class _Line:
    """One line. ``before`` holds the fields before the key that are not options: one field of principals."""

    where: str
    before: tuple[str, ...]
    options: dict[str, str]
    kind: str
    blob: str
    comment: str


def read_ssh(path: Path, policy: str, now: datetime | None = None) -> ImportPlan:
    """Return the accounts of the key file at ``path`` in a directory with the label policy ``policy``.

    The labels of a line are its principals (``allowed_signers``) or else its comment (``authorized_keys``).
    Certificate authorities, patterns, and keys that the library cannot read are skipped. Lines that have
    expired, are not valid yet at ``now``, or are valid only for some namespaces are skipped too, because a
    profile cannot express this. The name of a key is its fingerprint as ``ssh-keygen -l`` prints it. Its
    bytes are ``type base64`` without options and comment. Raises ``ConfigError`` or ``MalformedError``.
    """
    found = Collector(policy)
    lines = list(_lines(utf8_text(read_bytes(path))))
    keys = [line for _, line in lines if line is not None]
    if not keys:
        raise MalformedError("SSH key file", "has no usable SSH public key in it")
    signers = _are_allowed_signers(keys)
    now = now or datetime.now(UTC)
    count = 0
    for where, line in lines:
        if line is None:
            found.skip(where, "is no SSH public key")
            continue
        principals, problem = _principals(line, signers=signers)
        key = None
        if not problem:
            key, problem = _key(line)
        if key is None:
            found.skip(where, problem)
            continue
        count += 1
        problem = _not_in_force(line, now)
        if problem:
            found.skip(where, problem)
        else:
            _add(found, line, principals, key)
    return found.plan(count)


def _lines(data: bytes) -> Iterator[tuple[str, _Line | None]]:
    """Yield the lines with their numbers, without empty lines and comments. None is a line without a key.

    Only LF and CRLF end a line.
    """
    for number, raw in enumerate(data.split(b"\n"), 1):
        content = raw.removesuffix(b"\r").decode("utf-8", "surrogateescape").strip(_BLANKS)
        if content and not content.startswith("#"):
            yield f"line {number}", _split(f"line {number}", content)


def _split(where: str, content: str) -> _Line | None:
    if len(content) > _MAX_LINE:
        return None
    fields = [(match[0], match.end()) for match in _FIELD.finditer(content)]
    for place, ((kind, _), (blob, end)) in enumerate(pairwise(fields)):
        if not _KEY_TYPE.fullmatch(kind) or not blob.startswith("AAAA"):
            continue
        before = [field for field, _ in fields[:place]]
        options = _options(before[-1]) if before else {}
        principals = before[: len(before) - bool(options)]
        return _Line(where, tuple(principals), options, kind, blob, content[end:].strip(_BLANKS))
    return None


def _options(field: str) -> dict[str, str]:
    """Return the options in ``field`` with their values; empty if ``field`` is something else."""
    options, end = {}, 0
    while end < len(field):
        match = _OPTION.match(field, end)
        if match is None or match[1].lower() not in _OPTIONS:
            return {}
        name = match[1].lower()
        # OpenSSH refuses a date that is given twice, or takes the earlier one.
        options[name] = _TWICE if name in options and name in _DATES else match[2] or ""
        end = match.end()
    return {} if field.endswith(",") else options


def _are_allowed_signers(lines: Sequence[_Line]) -> bool:
    """Return whether the file is certainly an ``allowed_signers`` file, whose lines begin with principals.

    In any other file a word before a key may be an unknown option, which names nobody.
    """
    if not all(line.before for line in lines):
        return False
    if any(line.options or "@" in line.before[0] for line in lines):
        return True
    return not any(line.comment for line in lines)


def _principals(line: _Line, *, signers: bool) -> tuple[list[str], str]:
    """Return the principals of ``line``, or the reason why the owner of the key is unclear."""
    if not line.before:
        return [], ""
    if len(line.before) > 1:
        return [], "has an unknown option, or options with a blank between them"
    (field,) = line.before
    if field.startswith('"') and field.endswith('"') and len(field) > 1:
        field = field[1:-1]
    if '"' in field or _ASSIGNMENT.match(field):
        return [], "has an unknown option, or options that cannot be read"
    if not signers and "@" not in field:
        return [], _AMBIGUOUS
    return field.split(","), ""


def _not_in_force(line: _Line, now: datetime) -> str:
    """Return why the key is not valid now or not for every purpose; empty if it is valid."""
    if "namespaces" in line.options:
        return "is restricted to namespaces"
    for name in _DATES:
        if name not in line.options:
            continue
        date = _date(line.options[name])
        if date is None:
            return "has a date that cannot be read"
        if name == "valid-after" and now < date:
            return "is not valid yet"
        if name != "valid-after" and now > date:
            return "has expired"
    return ""


def _date(text: str) -> datetime | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        date = datetime.strptime(match[1] + (match[2] or "0000").ljust(6, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007
        return date.replace(tzinfo=UTC) if match[3] else date.astimezone()
    except (ValueError, OverflowError):
        return None


def _key(line: _Line) -> tuple[ProfileKey | None, str]:
    """Return the key of ``line``, or None and the reason why it cannot be published."""
    if "cert-authority" in line.options:
        return None, "is the key of a certificate authority, not of a user"
    if "-cert-v01@" in line.kind:
        return None, "is a certificate, not a key"
    if not line.blob.isascii():
        return None, "the key is damaged"
    data = f"{line.kind} {line.blob}".encode()
    with warnings.catch_warnings():
        # Old kinds of keys are published too. The people who use a key decide whether to accept it.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            load_ssh_public_key(data)
            base64.b64decode(line.blob, validate=True)
        except (UnsupportedAlgorithm, NotImplementedError):
            # NotImplementedError: the key has a compressed point, which OpenSSH does not write.
            return None, f"the key type {line.kind} is not supported"
        except ValueError:
            return None, "the key is damaged"
    return ProfileKey(fingerprint_of("ssh", data), "ssh", data), ""


def _add(found: Collector, line: _Line, principals: Sequence[str], key: ProfileKey) -> None:
    if not line.before:
        if line.comment:
            found.add(line.comment, key, line.where)
        else:
            found.skip(line.where, "the key has no comment to be its label")
        return
    for principal in principals:
        if any(character in principal for character in "*?!"):
            found.skip(principal, "the principal is a pattern, not one user", line.where)
        else:
            found.add(principal, key, line.where)
