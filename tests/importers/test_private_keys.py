"""No private key is published by mistake: every kind, as text, binary, UTF-16 or base64, whole or cut off."""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)

from kt_es.cli.owners.keys import read_key_file
from kt_es.errors import ConfigError
from kt_es.importers.private import has_secret_packet, private_key_in

RSA = rsa.generate_private_key(65537, 2048)
DSA = dsa.generate_private_key(1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
X = x25519.X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
LOCKED = BestAvailableEncryption(b"password")
SECRET = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7lqpzry9x8gf2tvdw0s3jn54khce"


def clamped(seed: int) -> bytes:
    key = bytearray(random.Random(seed).randbytes(32))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return bytes(key)


def mpi(value: int) -> bytes:
    return value.bit_length().to_bytes(2, "big") + value.to_bytes((value.bit_length() + 7) // 8, "big")


def openpgp_rsa(tag: int = 5, version: int = 4, *, new: bool = True) -> bytes:
    """A secret key packet without protection, RFC 9580, section 5.5.3."""
    numbers = RSA.private_numbers()
    public = mpi(numbers.public_numbers.n) + mpi(numbers.public_numbers.e)
    head = bytes([version]) + (1_600_000_000).to_bytes(4, "big") + (b"\x00\x00" if version == 3 else b"")
    secret = b"".join(map(mpi, (numbers.d, numbers.p, numbers.q, numbers.iqmp)))
    body = head + b"\x01" + public + b"\x00" + secret + (sum(secret) % 65536).to_bytes(2, "big")
    if new:
        return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body


def openpgp_25519(algorithm: int = 27, version: int = 6) -> bytes:
    count = (32).to_bytes(4, "big") if version == 6 else b""
    body = bytes([version]) + (1_700_000_000).to_bytes(4, "big") + bytes([algorithm]) + count
    body += random.Random(1).randbytes(32) + b"\x00" + random.Random(2).randbytes(32)
    return bytes([0xC5, len(body)]) + body


def armor(kind: str, packets: bytes) -> bytes:
    body = base64.encodebytes(packets).decode()
    return f"-----BEGIN PGP {kind}-----\nComment: x\n\n{body}-----END PGP {kind}-----\n".encode()


def private(key: object, encoding: Encoding, kind: PrivateFormat, lock: object = NoEncryption()) -> bytes:
    return key.private_bytes(encoding, kind, lock)  # type: ignore[attr-defined, no-any-return]


def jwk(**members: object) -> bytes:
    return json.dumps({"kty": "OKP", "crv": "Ed25519", "x": SECRET, **members}).encode()


PEM, DER = Encoding.PEM, Encoding.DER
PKCS8, OLD, OPENSSH = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL, PrivateFormat.OpenSSH
PKCS12 = pkcs12.serialize_key_and_certificates(b"name", RSA, None, None, LOCKED)
PUTTY = (
    b"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\nComment: mine\r\nPublic-Lines: 1\r\nAAAA\r\n"
    b"Private-Lines: 1\r\nAAAAIOe3\r\nPrivate-MAC: 00\r\n"
)

BINARY = {
    "OpenPGP, new header": openpgp_rsa(),
    "OpenPGP, old header": openpgp_rsa(new=False),
    "OpenPGP, version 3": openpgp_rsa(version=3),
    "OpenPGP, subkey": openpgp_rsa(7),
    "OpenPGP, version 6": openpgp_25519(),
    "OpenPGP, version 4 with Ed25519": openpgp_25519(27, 4),
    "OpenPGP, version 4 with X25519": openpgp_25519(25, 4),
    "PKCS #8, RSA": private(RSA, DER, PKCS8),
    "PKCS #8, EC": private(EC, DER, PKCS8),
    "PKCS #8, Ed25519": private(ED, DER, PKCS8),
    "PKCS #8, X25519": private(X, DER, PKCS8),
    "PKCS #8, encrypted": private(RSA, DER, PKCS8, LOCKED),
    "PKCS #1": private(RSA, DER, OLD),
    "SEC 1": private(EC, DER, OLD),
    "DSA": private(DSA, DER, OLD),
    "PKCS #12": PKCS12,
    "Windows": b"\x07\x02\x00\x00\x00\xa4\x00\x00RSA2" + bytes(200),
}
TEXT = {
    "PKCS #8 as PEM": private(RSA, PEM, PKCS8),
    "PKCS #8 encrypted as PEM": private(EC, PEM, PKCS8, LOCKED),
    "PKCS #1 as PEM": private(RSA, PEM, OLD),
    "PKCS #1 encrypted as PEM": private(RSA, PEM, OLD, LOCKED),
    "SEC 1 as PEM": private(EC, PEM, OLD),
    "DSA as PEM": private(DSA, PEM, OLD),
    "OpenSSH": private(ED, PEM, OPENSSH),
    "OpenSSH, RSA": private(RSA, PEM, OPENSSH),
    "SSH2": b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nAAAA\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\n",
    "OpenPGP armored": armor("PRIVATE KEY BLOCK", openpgp_rsa()),
    "OpenPGP with the armor of a public key": armor("PUBLIC KEY BLOCK", openpgp_rsa()),
    "OpenPGP in the armor of a message": armor("MESSAGE", openpgp_25519()),
    "PuTTY": PUTTY,
    "PuTTY 2": PUTTY.replace(b"File-3", b"File-2"),
    "JWK": jwk(d=SECRET),
    "JWK, symmetric": json.dumps({"kty": "oct", "k": SECRET}).encode(),
    "JWK, d before kty": json.dumps({"d": SECRET, "kty": "EC"}, indent=2).encode(),
    "JWK set": json.dumps({"keys": [json.loads(jwk()), json.loads(jwk(d=SECRET))]}).encode(),
    "JWK, no whole JSON": jwk(d=SECRET)[:-1],
    "JWK, a line each": jwk() + b"\n" + jwk(d=SECRET),
    "age": b"# created: 2024\n# public key: age1...\nAGE-SECRET-KEY-1" + BECH32.upper().encode() + b"\n",
    "age, small letters": b"age-secret-key-1" + BECH32.encode(),
    "age, post-quantum": b"AGE-SECRET-KEY-PQ-1" + BECH32.upper().encode(),
    "age, plugin": b"AGE-PLUGIN-YUBIKEY-1" + BECH32[:20].upper().encode(),
    "WireGuard": base64.b64encode(clamped(1)) + b"\n",
    "WireGuard configuration": b"[Interface]\nPrivateKey = " + base64.b64encode(os.urandom(32)) + b"\n",
    "WireGuard preshared": b"[Peer]\nPresharedKey=" + base64.b64encode(os.urandom(32)) + b"\n",
    "service account": json.dumps({"private_key": private(RSA, PEM, PKCS8).decode()}).encode(),
}
ALL = {**BINARY, **TEXT}


def kept(data: bytes) -> bytes:
    return data


def in_utf16(data: bytes) -> bytes:
    return data.decode("latin-1").encode("utf-16")


def in_base64(data: bytes) -> bytes:
    return b"key: " + base64.b64encode(data)


COPIES: dict[str, Callable[[bytes], bytes]] = {
    "as it is": kept,
    "UTF-16": in_utf16,
    "UTF-16, big end first": lambda data: b"\xfe\xff" + data.decode("latin-1").encode("utf-16-be"),
    "UTF-16 without mark": lambda data: data.decode("latin-1").encode("utf-16-le"),
    "UTF-32": lambda data: data.decode("latin-1").encode("utf-32"),
    "mark": lambda data: b"\xef\xbb\xbf" + data,
    "read as Latin-1": lambda data: data.decode("latin-1").encode(),
    "read as code page 437": lambda data: data.decode("cp437").encode("utf-16"),
    "a line before": lambda data: b"\n" + data,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n") if data.isascii() else data,
    "base64": in_base64,
    "base64 in lines": lambda data: b"my key\n" + base64.encodebytes(data),
    "base64 in UTF-16": lambda data: in_utf16(in_base64(data)),
    "hexadecimal": lambda data: data.hex(" ").encode(),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("kind", ALL)
def test_private_keys_are_recognized_in_every_form(kind: str, copy: str) -> None:
    if kind == "WireGuard" and copy in ("base64", "base64 in lines", "base64 in UTF-16", "hexadecimal"):
        pytest.skip("32 bytes among others have nothing to be told by")
    assert private_key_in(COPIES[copy](ALL[kind])) is not None


@pytest.mark.parametrize("kind", BINARY)
def test_what_is_cut_off_is_still_a_private_key(kind: str) -> None:
    data = BINARY[kind]
    for length in (len(data) * 3 // 4, len(data) - 1):
        assert private_key_in(data[:length]) is not None


@pytest.mark.parametrize("kind", ALL)
def test_a_type_does_not_publish_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(ALL[kind])
    for given in (None, "raw", "pem", "openpgp"):
        with pytest.raises(ConfigError, match="nothing was published"):
            read_key_file(path, given)


def test_private_among_public(tmp_path: Path) -> None:
    public = RSA.public_key().public_bytes(PEM, PublicFormat.SubjectPublicKeyInfo)
    line = ED.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"
    for data in (public + TEXT["PKCS #1 as PEM"], line + TEXT["OpenSSH"], line * 100 + TEXT["age"]):
        path = tmp_path / "key"
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"holds an? "):
            read_key_file(path)


def test_no_bytes_by_chance() -> None:
    chance = random.Random(7)
    for size in (33, 100, 1000, 10_000, 100_000):
        assert private_key_in(chance.randbytes(size)) is None
    assert not has_secret_packet(b"")


def test_words_are_no_private_keys() -> None:
    line = ED.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for data in (
        line + b" of my PRIVATE KEY, d and kty",
        b"see AGE-SECRET-KEY- in the manual, and PrivateKey = in wg(8)",
        jwk(),
        json.dumps({"kty": "RSA", "n": SECRET, "e": "AQAB"}).encode(),
    ):
        assert private_key_in(data) is None


@pytest.mark.parametrize(
    "unit",
    [b"-", b"- ", b"\n", b"a\n", b"-----BEGIN ", b"AGE-PLUGIN-", b"<D>", b"{", b'"kty":', b"\x30"],
)
def test_the_time_is_linear_in_hostile_text(unit: bytes) -> None:
    """Eight times the text takes about eight times as long. A quadratic search takes 64 times as long."""

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        begun = time.process_time()
        assert private_key_in(text) is None
        return time.process_time() - begun

    small = min(seconds(20_000) for _ in range(3))
    large = min(seconds(160_000) for _ in range(3))
    # The constant is for searches that are too fast to measure.
    assert large < 24 * small + 0.02
