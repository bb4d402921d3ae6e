"""PEM bundles: labels from subjects and addresses, damage, what is no certificate."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kt_es.errors import MalformedError
from kt_es.formats.entries import MAX_PROFILE, encode_profile
from kt_es.importers.pem import read_pem


def certificate(
    subject: dict[x509.ObjectIdentifier, str],
    addresses: tuple[str, ...] = (),
    extension: x509.ExtensionType | None = None,
) -> bytes:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject.items()])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2001, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2002, 1, 1, tzinfo=UTC))
    )
    if addresses:
        names = [x509.RFC822Name(address) for address in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, None).public_bytes(Encoding.PEM)


def armor(der: bytes) -> bytes:
    text = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"


def write(tmp_path: Path, *blocks: bytes) -> Path:
    path = tmp_path / "bundle.pem"
    path.write_bytes(b"\n# a comment between blocks\n".join(blocks))
    return path


def test_labels_are_names_of_the_subject(tmp_path: Path) -> None:
    one = certificate({NameOID.COMMON_NAME: "Root A", NameOID.ORGANIZATION_NAME: "Org"})
    two = certificate({NameOID.ORGANIZATIONAL_UNIT_NAME: "Unit", NameOID.ORGANIZATION_NAME: "Org"})
    three = certificate({NameOID.ORGANIZATION_NAME: "Org"})
    four = certificate({NameOID.COMMON_NAME: "Root A"})
    five = certificate({NameOID.COUNTRY_NAME: "XX"})
    plan = read_pem(write(tmp_path, one, two, three, four, five), "text")
    assert [(account.label, len(account.keys)) for account in plan.accounts] == [
        ("Root A", 2),
        ("Unit", 1),
        ("Org", 1),
    ]
    assert [key.data for key in plan.accounts[0].keys] == [one, four]
    assert {key.type for account in plan.accounts for key in account.keys} == {"pem"}
    assert plan.keys == 5
    assert [skipped.reason for skipped in plan.skipped] == ["the certificate has no name"]


def test_labels_of_an_email_directory_are_addresses(tmp_path: Path) -> None:
    one = certificate({NameOID.COMMON_NAME: "Alice"}, ("Alice@example.org", "alice@example.com"))
    two = certificate({NameOID.EMAIL_ADDRESS: "bob@example.org"})
    three = certificate({NameOID.COMMON_NAME: "carol@example.org"})
    plan = read_pem(write(tmp_path, one, two, three), "email")
    assert [account.label for account in plan.accounts] == [
        "alice@example.org",
        "alice@example.com",
        "bob@example.org",
    ]
    assert [skipped.reason for skipped in plan.skipped] == ["the certificate has no e-mail address"]


def test_the_name_of_a_key_is_its_fingerprint(tmp_path: Path) -> None:
    block = certificate({NameOID.COMMON_NAME: "Root"})
    (account,) = read_pem(write(tmp_path, block), "text").accounts
    der = x509.load_pem_x509_certificate(block).public_bytes(Encoding.DER)
    assert account.keys[0].name == hashlib.sha256(der).hexdigest().upper()


def test_damaged_blocks_and_other_blocks_are_skipped_and_private_keys_never_published(tmp_path: Path) -> None:
    good = certificate({NameOID.COMMON_NAME: "Good"})
    cut = good[: len(good) // 2] + b"\n"
    flipped = good.replace(good.splitlines()[2], b"A" * 64)
    der = x509.load_pem_x509_certificate(good).public_bytes(Encoding.DER)
    future = armor(der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020132"), 1))
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    legacy = (
        b"-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
    )
    plan = read_pem(write(tmp_path, cut, good, flipped, future, private, legacy), "text")
    assert [account.label for account in plan.accounts] == ["Good"]
    assert [skipped.reason for skipped in plan.skipped] == [
        "the certificate is damaged",
        "the certificate is damaged",
        "the certificate is damaged",
        "is a PRIVATE KEY, not a certificate",
        "is a RSA PRIVATE KEY, not a certificate",
    ]
    assert all(b"PRIVATE" not in key.data for account in plan.accounts for key in account.keys)


def test_a_certificate_with_a_private_key_in_an_extension_is_skipped(tmp_path: Path) -> None:
    hidden = Ed25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    made = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), hidden)
    plan = read_pem(write(tmp_path, certificate({NameOID.COMMON_NAME: "Dora"}, extension=made)), "text")
    assert plan.accounts == ()
    assert [skipped.reason for skipped in plan.skipped] == ["the certificate holds a private key (PKCS #8)"]


@pytest.mark.parametrize("data", [b"", b"hello\n", bytes(range(256))])
def test_what_is_no_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(MalformedError, match="no PEM block"):
        read_pem(write(tmp_path, data), "text")


def test_the_roots_of_certifi_all_find_an_account() -> None:
    plan = read_pem(Path(certifi.where()), "text")
    assert plan.keys > 50
    assert plan.skipped == ()
    assert sum(len(account.keys) for account in plan.accounts) == plan.keys
    assert all(len(encode_profile(account.keys)) <= MAX_PROFILE for account in plan.accounts)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("x5_bad_policy_ext.pem", ("carl20@example.org", "Carl")),
        ("x6_odd_othername.pem", ("dora20@example.org", "Dora")),
    ],
)
def test_a_damaged_extension_does_not_hide_the_address(name: str, labels: tuple[str, str]) -> None:
    path = Path(__file__).parents[1] / "cases" / "pem-unrelated-extension" / name
    for policy, label in zip(("email", "text"), labels, strict=True):
        plan = read_pem(path, policy)
        assert ([account.label for account in plan.accounts], plan.skipped) == ([label], ())


def test_addresses_that_are_not_utf8_are_two_and_none(tmp_path: Path) -> None:
    """Latin-1 in a subject: nobody is published under a name with a character replaced."""
    blocks = []
    for letter in (b"\xe9", b"\xe8"):
        good = certificate({NameOID.COMMON_NAME: "jose"}, ("josX@example.org",))
        der = base64.b64decode(b"".join(good.splitlines()[1:-1]))
        blocks.append(armor(der.replace(b"josX@", b"jos" + letter + b"@").replace(b"jose", b"jos" + letter)))
    for policy in ("email", "text"):
        plan = read_pem(write(tmp_path, *blocks), policy)
        assert plan.accounts == ()
        assert [skipped.reason for skipped in plan.skipped] == ["the label is not UTF-8"] * 2
