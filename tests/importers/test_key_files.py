"""``kt put`` recognizes public keys by parsing them: the type, the bytes and the fingerprint."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kt_es.cli.owners.keys import KeyFile, described, read_key_file
from kt_es.errors import ConfigError
from kt_es.importers.private import is_clamped, is_x25519

CASES = Path(__file__).parents[1] / "cases"
ED = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
LINE = ED.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
X = x25519.X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
RAW_X = X.public_bytes(Encoding.Raw, PublicFormat.Raw)


def read(tmp_path: Path, data: bytes, kind: str | None = None) -> KeyFile:
    path = tmp_path / "key"
    path.write_bytes(data)
    return read_key_file(path, kind)


def types(file: KeyFile) -> list[str]:
    return [key.type for key in file.keys]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pub_bom.pem", "pem"),
        ("pub_leading_newline.pem", "pem"),
        ("p3_bom.asc", "openpgp"),
        ("p3_text_before_ascii.asc", "openpgp"),
        ("s6_rfc4716.pub", "ssh"),
        ("age_file.txt", "age"),
        ("age_yubi.txt", "age"),
    ],
)
def test_kinds_that_were_not_recognized(name: str, kind: str) -> None:
    assert types(read_key_file(CASES / "put-kind-not-recognized" / name)) == [kind]


def test_options_are_for_a_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not recognized"):
        read_key_file(CASES / "put-kind-not-recognized" / "ak_options.pub")


@pytest.mark.parametrize("name", ["x25519_99.key", "x25519_other.key"])
def test_the_first_byte_of_a_bare_key_decides_nothing(name: str) -> None:
    path = CASES / "put-x25519-as-openpgp" / name
    (key,) = read_key_file(path).keys
    assert (key.type, key.data) == ("x25519", path.read_bytes())


def test_bytes_are_those_that_the_format_wants(tmp_path: Path) -> None:
    binary = read_key_file(CASES / "put-kind-not-recognized" / "p3_bom.asc").keys[0].data
    assert (types(read(tmp_path, binary)), read(tmp_path, binary).keys[0].data) == (["openpgp"], binary)
    (line,) = read_key_file(CASES / "put-kind-not-recognized" / "s6_rfc4716.pub").keys
    assert line.data.startswith(b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOe3c3fj")
    assert read(tmp_path, b"age1" + b"q" * 58 + b"\n").keys[0].data == b"age1" + b"q" * 58
    assert read(tmp_path, base64.b64encode(RAW_X) + b"\n").keys[0].data == RAW_X
    assert types(read(tmp_path, base64.b64encode(RAW_X).decode().encode("utf-16"))) == ["x25519"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str) -> None:
    pem = ED.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for data, kind in ((LINE + b" me\n", "ssh"), (pem, "pem"), (b"age1" + b"q" * 58, "age")):
        for text in (data.decode(), data.decode().replace("\n", "\r\n")):
            assert types(read(tmp_path, text.encode(encoding))) == [kind]


def test_public_keys_of_every_kind(tmp_path: Path) -> None:
    for key in (
        ED,
        X,
        rsa.generate_private_key(65537, 2048).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
    ):
        for encoding in (Encoding.PEM, Encoding.DER):
            data = key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
            (read_key,) = read(tmp_path, data).keys
            assert read_key.type == "pem"
            assert read_key.data == key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        if key is not X:
            line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            assert types(read(tmp_path, line)) == ["ssh"]


def test_a_certificate(tmp_path: Path) -> None:
    path = CASES / "pem-unrelated-extension" / "x5_bad_policy_ext.pem"
    (key,) = read_key_file(path).keys
    assert (key.type, key.data) == ("pem", path.read_bytes())
    der = base64.b64decode(b"".join(path.read_bytes().splitlines()[1:-1]))
    assert read(tmp_path, der).keys[0].data == path.read_bytes()


def test_several_keys_of_a_file_have_names_of_their_own(tmp_path: Path) -> None:
    file = read(tmp_path, b"# mine\n" + LINE + b" a\n\n" + LINE + b" b\n")
    assert [(key.name, key.data) for key in file.keys] == [("key#1", LINE + b" a"), ("key#2", LINE + b" b")]
    assert file.left_out
    assert not read(tmp_path, LINE).left_out
    path = tmp_path / ("ä" * 127)
    path.write_bytes(LINE + b"\n" + LINE)
    # A name has 255 bytes at most; the number stays.
    assert [key.name for key in read_key_file(path).keys] == ["ä" * 126 + "#1", "ä" * 126 + "#2"]


def test_damaged_keys_are_not_recognized(tmp_path: Path) -> None:
    pem = ED.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    certificate = read_key_file(CASES / "put-kind-not-recognized" / "p3_bom.asc").keys[0].data
    damaged = [
        b"hello world",
        b"\x00" * 32,
        bytes(31) + b"\x01",
        pem.replace(b"MCow", b"MCox"),
        pem.replace(b"-----END", b"----END"),
        pem + pem[: len(pem) // 2],
        LINE[:-4],
        LINE.replace(b"ssh-ed25519 ", b"ssh-rsa "),
        LINE + b"\nhello",
        certificate[:-1],
        certificate + b"\xff",
        certificate[60:],
        pem.replace(b"PUBLIC KEY", b"CERTIFICATE"),
        pem.replace(b"PUBLIC KEY", b"CERTIFICATE REQUEST"),
        b"age1" + b"b" * 58,
    ]
    for data in damaged:
        with pytest.raises(ConfigError, match="--type raw"):
            read(tmp_path, data)
        assert [(key.type, key.data) for key in read(tmp_path, data, "raw").keys] == [("raw", data)]


def test_a_type_that_the_file_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is ssh, not pem"):
        read(tmp_path, LINE, "pem")
    assert types(read(tmp_path, LINE, "ssh")) == ["ssh"]
    assert types(read(tmp_path, LINE, "raw")) == ["raw"]


def test_a_public_key_that_looks_like_a_private_one_needs_a_word(tmp_path: Path) -> None:
    chance = random.Random(3)
    keys = (
        x25519.X25519PrivateKey.from_private_bytes(chance.randbytes(32))
        .public_key()
        .public_bytes(Encoding.Raw, PublicFormat.Raw)
        for _ in range(500)
    )
    seen = 0
    for key in keys:
        assert is_x25519(key)
        if is_clamped(key):
            seen += 1
            for kind in (None, "raw"):
                with pytest.raises(ConfigError, match="say --type x25519"):
                    read(tmp_path, key, kind)
            assert types(read(tmp_path, key, "x25519")) == ["x25519"]
    assert seen
    assert sum(is_x25519(chance.randbytes(32)) for _ in range(1000)) < 100


def test_a_key_is_shown_with_kind_size_and_fingerprint(tmp_path: Path) -> None:
    names = {
        "put-kind-not-recognized/p3_bom.asc": "openpgp p3_bom.asc, 200 bytes, fingerprint 2660918E2AC7",
        "put-kind-not-recognized/s6_rfc4716.pub": "ssh s6_rfc4716.pub, 80 bytes, fingerprint SHA256:atZd",
        "put-kind-not-recognized/pub_bom.pem": "pem pub_bom.pem, 178 bytes, fingerprint E779DAD1",
    }
    for name, shown in names.items():
        (key,) = read_key_file(CASES / name).keys
        assert described(key).startswith(shown)
