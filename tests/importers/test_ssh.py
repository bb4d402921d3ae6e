"""SSH key files: principals, comments, options, and lines that are no user's key."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
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
from tests.importers.plans import labels, reasons

CASES = Path(__file__).parents[1] / "cases"


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
            f'bob@example.org verify-required,valid-after="20200101" {keys[1]}',
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
        ("line 6", "has an unknown option, or options with a blank between them"),
        ("line 7", "is no SSH public key"),
        ("line 8", "is no SSH public key"),
    ]


LATER = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("policy", ["email", "text"])
@pytest.mark.parametrize("name", ["s2_bom_authorized", "s2_bom_comment_crlf", "s2_bom_signers"])
def test_a_mark_is_read_over(name: str, policy: str) -> None:
    plan = read_ssh(CASES / "ssh-bom-first-line" / name, policy)
    assert (labels(plan), plan.skipped) == (["alice@example.org", "bob@example.org"], ())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_encodings_with_two_bytes(tmp_path: Path, keys: list[str], encoding: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(f"{keys[0]} alice@example.org\r\n{keys[1]} bob@example.org".encode(encoding))
    assert labels(read_ssh(path, "email")) == ["alice@example.org", "bob@example.org"]


@pytest.mark.parametrize("policy", ["email", "text"])
def test_unknown_options_are_no_labels(policy: str) -> None:
    plan = read_ssh(CASES / "ssh-bad-options-become-labels" / "s4_options", policy)
    assert labels(plan) == ["alice@example.org", "bob@example.org"]
    assert [where for where, _ in reasons(plan)] == ["line 3", "line 4", "line 5"]


def test_options_that_cannot_be_read_name_nobody(tmp_path: Path, keys: list[str]) -> None:
    fields = (
        'frob="x"', "frob=x", 'restrict,frob="x"', "frob,restrict", 'from="a" frob', "restrict,",
        'command="x', 'command="a\\"b",frob', "frob",
    )  # fmt: skip
    for field in fields:
        plan = read_ssh(
            write(tmp_path, f"{keys[0]} a@example.org", f"{field} {keys[1]} b@example.org"), "text"
        )
        assert labels(plan) == ["a@example.org"], field
        assert [where for where, _ in reasons(plan)] == ["line 2"]
    (one,) = read_ssh(write(tmp_path, f"frob {keys[1]} b@example.org"), "text").skipped
    assert "unknown option" in one.reason


def test_principals_without_an_at_sign(tmp_path: Path, keys: list[str]) -> None:
    assert labels(read_ssh(write(tmp_path, f"alice,bob {keys[0]}", f"carl {keys[1]}"), "text")) == [
        "alice",
        "bob",
        "carl",
    ]
    quoted = write(tmp_path, f'"alice@example.org,bob" {keys[0]} a comment')
    assert labels(read_ssh(quoted, "text")) == ["alice@example.org", "bob"]


def test_the_cases_of_expired_lines() -> None:
    folder = CASES / "ssh-expired-lines"
    assert reasons(read_ssh(folder / "s3_expired_authorized", "email")) == [("line 1", "has expired")]
    plan = read_ssh(folder / "s3_expired_signers", "email")
    assert plan.accounts == ()
    assert reasons(plan) == [
        ("line 1", "has expired"),
        ("line 2", "is not valid yet"),
        ("line 3", "is restricted to namespaces"),
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('valid-before="20300102"', None),
        ('valid-before="20291230Z"', "has expired"),
        ('valid-before="203001010001Z"', None),
        ('valid-before="202912312359Z"', "has expired"),
        ('VALID-BEFORE="20291231235959Z"', "has expired"),
        ('valid-after="20300101000001Z"', "is not valid yet"),
        ('valid-after="20291231235959Z",valid-before="20300101000001Z"', None),
        ('valid-before="20300102",valid-before="20290101"', "has a date that cannot be read"),
        ('valid-before="20301301"', "has a date that cannot be read"),
        ('valid-before="soon"', "has a date that cannot be read"),
        ('valid-before=""', "has a date that cannot be read"),
        ('namespaces="git"', "is restricted to namespaces"),
    ],
)
def test_lines_that_do_not_hold_now(
    tmp_path: Path, keys: list[str], options: str, reason: str | None
) -> None:
    path = write(tmp_path, f"alice@example.org {options} {keys[0]}", f"bob@example.org {keys[1]}")
    plan = read_ssh(path, "email", LATER)
    assert [why for _, why in reasons(plan)] == ([] if reason is None else [reason])
    assert len(plan.accounts) == 2 - len(plan.skipped)


@pytest.mark.parametrize("name", ["s1_latin1_comments", "s1_latin1_signers"])
@pytest.mark.parametrize("policy", ["email", "text"])
def test_two_people_whose_names_are_not_utf8(name: str, policy: str) -> None:
    plan = read_ssh(CASES / "non-utf8-names-merge" / name, policy)
    assert plan.accounts == ()
    assert [why for _, why in reasons(plan)] == ["the label is not UTF-8"] * 2


def test_only_lf_and_crlf_end_a_line(tmp_path: Path, keys: list[str]) -> None:
    for odd in "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029":
        path = write(
            tmp_path, f"{keys[0]} a@example.org{odd}{keys[1]} mallory@example.org", keys[2] + " b@c.org"
        )
        for policy in ("email", "text"):
            plan = read_ssh(path, policy)
            assert labels(plan) == ["b@c.org"]
            assert [what.partition(",")[0] for what, _ in reasons(plan)] == ["line 1"]
        path = write(tmp_path, f"{keys[0]} a@example.org\u00a0", keys[2] + " b@c.org")
        assert labels(read_ssh(path, "email")) == ["b@c.org"]


def test_files_without_a_public_key_are_refused(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    for data in (b"", b"\x00\xff" * 100, private):
        path = tmp_path / "keys"
        path.write_bytes(data)
        with pytest.raises(MalformedError, match="no usable SSH public key"):
            read_ssh(path, "text")


def test_a_key_with_bytes_that_are_no_text(tmp_path: Path, keys: list[str]) -> None:
    path = tmp_path / "keys"
    good = f"{keys[1]} bob@example.org\n".encode()
    for odd in (b"\xdd", b"\x80", "ä".encode(), b"\x00"):
        blob = keys[0].encode()
        path.write_bytes(blob[:40] + odd + blob[41:] + b" alice@example.org\n" + good)
        plan = read_ssh(path, "email")
        assert (labels(plan), reasons(plan)) == (["bob@example.org"], [("line 1", "the key is damaged")])
