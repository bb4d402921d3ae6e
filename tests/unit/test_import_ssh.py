"""SSH key files: principals, comments, options, and lines that are no user's key."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kt_es.errors import MalformedError
from kt_es.importers.ssh import read_ssh


def public(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.fixture(scope="module")
def keys() -> list[str]:
    return [
        public(ed25519.Ed25519PrivateKey.generate()),
        public(ec.generate_private_key(ec.SECP256R1())),
        public(rsa.generate_private_key(65537, 2048)),
    ]


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "keys"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_authorized_keys(tmp_path: Path, keys: list[str]) -> None:
    plan = read_ssh(
        write(
            tmp_path,
            "# comment",
            "",
            f"{keys[0]} Alice@example.org",
            f'restrict,command="echo \\"bob@example.net ssh-rsa AAAA\\"",no-pty {keys[1]} bob@example.org',
            f"{keys[2]}   alice@example.org  ",
        ),
        "email",
    )
    assert [(account.label, len(account.keys)) for account in plan.accounts] == [
        ("alice@example.org", 2),
        ("bob@example.org", 1),
    ]
    assert [key.data.decode() for key in plan.accounts[0].keys] == [keys[0], keys[2]]
    assert (plan.keys, plan.skipped) == (3, ())


def test_allowed_signers(tmp_path: Path, keys: list[str]) -> None:
    plan = read_ssh(
        write(
            tmp_path,
            f"alice@example.org,a@example.com {keys[0]} any comment",
            f'bob@example.org namespaces="git",valid-after="20200101" {keys[1]}',
            f"*@example.org,!carol@example.org,dave@example.org {keys[2]}",
            f"*@example.org cert-authority {keys[2]}",
        ),
        "email",
    )
    assert [account.label for account in plan.accounts] == [
        "alice@example.org",
        "a@example.com",
        "bob@example.org",
        "dave@example.org",
    ]
    assert [skipped.reason for skipped in plan.skipped] == [
        "the principal is a pattern, not one user",
        "the principal is a pattern, not one user",
        "is the key of a certificate authority, not of a user",
    ]


def test_the_name_is_the_fingerprint_that_openssh_prints(tmp_path: Path, keys: list[str]) -> None:
    (account,) = read_ssh(write(tmp_path, f"{keys[0]} alice@example.org"), "email").accounts
    digest = hashlib.sha256(base64.b64decode(keys[0].split()[1])).digest()
    (key,) = account.keys
    assert key.name == "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    assert key.type == "ssh"


def test_comments_that_are_no_address(tmp_path: Path, keys: list[str]) -> None:
    path = write(tmp_path, f"{keys[0]} alice@laptop", keys[1])
    mail, text = read_ssh(path, "email"), read_ssh(path, "text")
    assert (len(mail.accounts), len(mail.skipped)) == (0, 2)
    assert [account.label for account in text.accounts] == ["alice@laptop"]
    assert [skipped.reason for skipped in text.skipped] == ["the key has no comment to be its label"]


def test_bad_lines_are_skipped_with_the_reason(tmp_path: Path, keys: list[str]) -> None:
    kind, blob = keys[0].split()
    plan = read_ssh(
        write(
            tmp_path,
            f"{keys[0]} alice@example.org",
            f"{kind} {blob[:-8]} bob@example.org",
            f"ssh-rsa {blob} bob@example.org",
            f"ssh-new@example.org {blob} bob@example.org",
            f"ssh-ed25519-cert-v01@openssh.com {blob} bob@example.org",
            f"one two {keys[0]}",
            "no key at all",
            '"' * 70_000,
        ),
        "email",
    )
    assert [account.label for account in plan.accounts] == ["alice@example.org"]
    assert [(skipped.what, skipped.reason) for skipped in plan.skipped] == [
        ("line 2", "the key is damaged"),
        ("line 3", "the key is damaged"),
        ("line 4", "the key type ssh-new@example.org is not supported"),
        ("line 5", "is a certificate, not a key"),
        ("line 6", "is no SSH public key"),
        ("line 7", "is no SSH public key"),
        ("line 8", "is no SSH public key"),
    ]


def test_files_without_a_public_key_are_refused(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    for data in (b"", b"\x00\xff" * 100, private):
        path = tmp_path / "keys"
        path.write_bytes(data)
        with pytest.raises(MalformedError, match="no usable SSH public key"):
            read_ssh(path, "text")
