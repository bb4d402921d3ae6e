"""SSH public keys: ``authorized_keys``, ``*.pub`` and ``allowed_signers`` files. sshd(8), ssh-keygen(1)."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from cryptography.utils import CryptographyDeprecationWarning

from kt_es.errors import MalformedError
from kt_es.formats.profiles import ProfileKey
from kt_es.importers.accounts import Collector, ImportPlan, read_bytes

# A field: no blanks outside double quotes, in which a backslash quotes a quote. A quote that is never
# closed runs to the end of the line: looking for its end from each quote in it anew would take minutes.
_FIELD = re.compile(r'(?:"(?:[^"\\]|\\.?)*+(?:"|$)|[^\s"])+')
_KEY_TYPE = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa|webauthn-sk-ecdsa)-[a-z0-9@.-]+")
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="(?:[^"\\]|\\.)*")?(?:,|$)')
_OPTIONS = frozenset(
    (
        *("agent-forwarding", "cert-authority", "command", "environment", "expiry-time", "from"),
        *("no-agent-forwarding", "no-port-forwarding", "no-pty", "no-touch-required", "no-user-rc"),
        *("no-x11-forwarding", "permitlisten", "permitopen", "port-forwarding", "principals", "pty"),
        *("restrict", "tunnel", "user-rc", "verify-required", "x11-forwarding"),
        *("namespaces", "valid-after", "valid-before"),
    )
)
# Far above the longest RSA key; OpenSSH itself stops earlier.
_MAX_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Line:
    principals: str
    options: frozenset[str]
    kind: str
    blob: str
    comment: str


def read_ssh(path: Path, policy: str) -> ImportPlan:
    """The accounts of the key file at ``path`` in a directory of the label policy ``policy``.

    The labels of a line are its principals (``allowed_signers``) or else its comment
    (``authorized_keys``). Certificate authorities, patterns and keys that OpenSSH could read but the
    library cannot are skipped. A key's name is its fingerprint as ``ssh-keygen -l`` prints it, its bytes
    are ``type base64`` without options and comment.

    Raises ``ConfigError`` where the file cannot be read and ``MalformedError`` where no line has a key.
    """
    text = read_bytes(path).decode("utf-8", "replace")
    found = Collector(policy)
    count = 0
    for number, content in enumerate(text.splitlines(), 1):
        if not content.strip() or content.lstrip().startswith("#"):
            continue
        line = _split(content)
        if line is None:
            found.skip(f"line {number}", "is no SSH public key")
            continue
        key, problem = _key(line)
        if key is None:
            found.skip(f"line {number}", problem)
            continue
        count += 1
        _add(found, f"line {number}", line, key)
    if count == 0:
        raise MalformedError("SSH key file", "has no usable SSH public key in it")
    return found.plan(count)


def _split(content: str) -> _Line | None:
    if len(content) > _MAX_LINE:
        return None
    fields = [(match[0], match.end()) for match in _FIELD.finditer(content)]
    for place, ((kind, _), (blob, end)) in enumerate(pairwise(fields)):
        if not _KEY_TYPE.fullmatch(kind) or not blob.startswith("AAAA"):
            continue
        before = [field for field, _ in fields[:place]]
        options = _options(before[-1]) if before else frozenset()
        principals = before[: len(before) - bool(options)]
        if len(principals) > 1:
            return None
        return _Line("".join(principals).strip('"'), options, kind, blob, content[end:].strip())
    return None


def _options(field: str) -> frozenset[str]:
    """The names of the options in ``field``; empty where it is something else."""
    names, end = set(), 0
    while end < len(field):
        match = _OPTION.match(field, end)
        if match is None or match[1].lower() not in _OPTIONS:
            return frozenset()
        names.add(match[1].lower())
        end = match.end()
    return frozenset(names)


def _key(line: _Line) -> tuple[ProfileKey | None, str]:
    """The key of ``line``, or ``None`` and why it cannot be published."""
    if "cert-authority" in line.options:
        return None, "is the key of a certificate authority, not of a user"
    if "-cert-v01@" in line.kind:
        return None, "is a certificate, not a key"
    data = f"{line.kind} {line.blob}".encode()
    with warnings.catch_warnings():
        # Old kinds of keys are published like the others; whether to accept them is for who uses them.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            load_ssh_public_key(data)
            digest = hashlib.sha256(base64.b64decode(line.blob, validate=True)).digest()
        except (UnsupportedAlgorithm, NotImplementedError):
            # NotImplementedError: a compressed point, which OpenSSH does not write either.
            return None, f"the key type {line.kind} is not supported"
        except ValueError:
            return None, "the key is damaged"
    return ProfileKey("SHA256:" + base64.b64encode(digest).decode().rstrip("="), "ssh", data), ""


def _add(found: Collector, where: str, line: _Line, key: ProfileKey) -> None:
    if not line.principals:
        if line.comment:
            found.add(line.comment, key)
        else:
            found.skip(where, "the key has no comment to be its label")
        return
    for principal in line.principals.split(","):
        if any(character in principal for character in "*?!"):
            found.skip(principal, "the principal is a pattern, not one user")
        else:
            found.add(principal, key)
