"""OpenPGP keyrings: whose address counts, what is published byte for byte, what is refused."""

from __future__ import annotations

import base64
import bz2
import sys
from pathlib import Path

import pytest

from kt_es.errors import ConfigError, MalformedError
from kt_es.importers.openpgp import mailbox, read_openpgp

pysequoia = pytest.importorskip("pysequoia", reason="the optional extra openpgp is not installed")

from pysequoia import ArmorKind, CipherSuite, Profile, armor  # noqa: E402
from pysequoia.packet import Packet, Tag  # noqa: E402

from kt_es.importers.openpgp_certificate import without_certifications  # noqa: E402
from kt_es.importers.packets import binds  # noqa: E402
from tests.importers.plans import labels, reasons  # noqa: E402
from tests.reference.openpgp import generate, packet, packets, public, write  # noqa: E402

CASES = Path(__file__).parents[1] / "cases"

NO_SIGNATURE = "the user id has no valid signature by the certificate's own key"


@pytest.fixture(scope="module")
def alice() -> bytes:
    return public(generate("Alice <Alice@Example.org>", "alice@example.com", "just Alice", "<a@localhost>"))


@pytest.fixture(scope="module")
def bob() -> bytes:
    return public(generate("Bob <bob@example.org>", "Alice at work <alice@example.org>"))


def test_one_account_for_each_address(tmp_path: Path, alice: bytes, bob: bytes) -> None:
    plan = read_openpgp(write(tmp_path, alice + bob))
    assert {account.label: [key.data for key in account.keys] for account in plan.accounts} == {
        "alice@example.org": [alice, bob],
        "alice@example.com": [alice],
        "bob@example.org": [bob],
    }
    assert {(skipped.what, skipped.reason) for skipped in plan.skipped} == {
        ("just Alice", "the user id has no e-mail address"),
        ("a@localhost", "the label must be an e-mail address such as alice@example.org"),
    }
    key = plan.accounts[0].keys[0]
    assert (key.name.lower(), key.type) == (packets(alice)[0].fingerprint, "openpgp")
    assert (plan.keys, plan.revoked) == (2, 0)


def test_armored_keyrings_give_the_same_plan(tmp_path: Path, alice: bytes, bob: bytes) -> None:
    plan = read_openpgp(write(tmp_path, alice + bob))
    together = armor(alice + bob, ArmorKind.PublicKey)
    apart = "text before\n" + armor(alice, ArmorKind.PublicKey) + armor(bob, ArmorKind.PublicKey)
    for text in (together, apart, apart.replace("\n", "\r\n")):
        assert read_openpgp(write(tmp_path, text.encode())) == plan


@pytest.mark.parametrize(
    ("suite", "profile"),
    [
        (CipherSuite.RSA2k, Profile.RFC4880),
        (CipherSuite.P256, Profile.RFC4880),
        (CipherSuite.P521, Profile.RFC4880),
        (CipherSuite.Cv25519, Profile.RFC4880),
        (CipherSuite.Cv25519, Profile.RFC9580),
    ],
)
def test_kinds_of_keys(tmp_path: Path, suite: CipherSuite, profile: Profile) -> None:
    data = public(generate("Alice <alice@example.org>", suite=suite, profile=profile))
    (account,) = read_openpgp(write(tmp_path, data)).accounts
    assert [key.data for key in account.keys] == [data]


def test_user_ids_that_somebody_else_added_do_not_count(tmp_path: Path, alice: bytes) -> None:
    own = packets(alice)
    theirs = packet(13, b"Bob <bob@example.org>")
    signature = own[next(place for place, each in enumerate(own) if each.tag == Tag.UserID) + 1]
    plan = read_openpgp(write(tmp_path, alice + theirs + bytes(signature)))
    assert "bob@example.org" not in {account.label for account in plan.accounts}
    assert ("Bob <bob@example.org>", NO_SIGNATURE) in {(each.what, each.reason) for each in plan.skipped}
    plan = read_openpgp(write(tmp_path, alice + theirs))
    assert "bob@example.org" not in {account.label for account in plan.accounts}


def test_a_binding_fails_with_any_byte_changed() -> None:
    for suite in (CipherSuite.RSA2k, CipherSuite.P256, CipherSuite.Cv25519):
        parts = packets(public(generate("Alice <alice@example.org>", suite=suite, profile=Profile.RFC4880)))
        place = next(place for place, each in enumerate(parts) if each.tag == Tag.UserID)
        key, user_id, signature = parts[0].body, parts[place].body, parts[place + 1].body
        assert binds(key, user_id, signature)
        hashed_end = 6 + int.from_bytes(signature[4:6], "big")
        for position in (*range(hashed_end), len(signature) - 1):
            changed = bytearray(signature)
            changed[position] ^= 1
            assert not binds(key, user_id, bytes(changed))
        for length in range(len(signature)):
            assert not binds(key, user_id, signature[:length])
        for position in range(len(user_id)):
            assert not binds(key, user_id[:position] + b"\x00" + user_id[position + 1 :], signature)
        assert not binds(b"", user_id, signature)


def test_revoked_certificates_and_user_ids_are_published_with_their_revocation(tmp_path: Path) -> None:
    key = generate("Alice <alice@example.org>", "Alice <old@example.org>")
    cert = key.extract_certificate()
    old = next(user_id for user_id in cert.user_ids if "old" in str(user_id))
    revoked_id = bytes(cert.revoke_user_id(old, key.certifier()))
    parts = [bytes(each) for each in packets(bytes(cert))]
    place = next(place for place, each in enumerate(parts) if b"<old@example.org>" in each)
    # As a cleaned certificate has it: the revocation instead of the certification.
    data = b"".join([*parts[: place + 1], revoked_id, *parts[place + 2 :]])
    plan = read_openpgp(write(tmp_path, data))
    assert {account.label for account in plan.accounts} == {"alice@example.org", "old@example.org"}
    assert plan.revoked == 0
    data = parts[0] + bytes(cert.revoke(key.certifier())) + b"".join(parts[1:])
    plan = read_openpgp(write(tmp_path, data))
    assert (len(plan.accounts), plan.revoked) == (2, 1)
    assert plan.accounts[0].keys[0].data == data


def test_secret_keys_are_never_published(tmp_path: Path, bob: bytes) -> None:
    secret = generate("Alice <alice@example.org>")
    for data in (
        bytes(secret) + bob,
        str(secret).encode() + b"\n" + armor(bob, ArmorKind.PublicKey).encode(),
    ):
        plan = read_openpgp(write(tmp_path, data))
        assert [key.data for account in plan.accounts for key in account.keys] == [bob, bob]
        (skipped,) = plan.skipped
        assert (skipped.what, "secret keys" in skipped.reason) == ("certificate 1", True)


def test_local_signatures_and_local_trust_are_not_published(tmp_path: Path, alice: bytes) -> None:
    parts = packets(alice)
    signature = parts[-1].body
    hashed = int.from_bytes(signature[4:6], "big") + 3
    local = signature[:4] + hashed.to_bytes(2, "big") + bytes([2, 4, 0]) + signature[6:]
    data = bytes(parts[0]) + packet(12, b"\x05\x00") + b"".join(map(bytes, parts[1:])) + packet(2, local)
    (account, *_) = read_openpgp(write(tmp_path, data)).accounts
    assert packets(account.keys[0].data)[-1].body == signature
    assert [each.body for each in packets(account.keys[0].data)] == [each.body for each in parts]


def test_certifications_of_others_can_be_left_out(tmp_path: Path, alice: bytes, bob: bytes) -> None:
    theirs = packets(bob)
    certification = next(bytes(each) for each in theirs[2:] if each.tag == Tag.Signature)
    parts = [bytes(each) for each in packets(alice)]
    place = next(place for place, each in enumerate(packets(alice)) if each.tag == Tag.UserID) + 2
    photograph = packet(17, b"\x02\x01\x00") + certification
    data = b"".join([*parts[:place], certification * 3, *parts[place:]])
    # What only others signed, anybody may have put there.
    (whole, *_) = read_openpgp(write(tmp_path, data + photograph)).accounts
    (lean, *_) = read_openpgp(write(tmp_path, data + photograph), certifications=False).accounts
    assert whole.keys[0].data == data
    assert lean.keys[0].data == alice
    assert without_certifications(alice) == alice


def test_what_nobody_signed_is_not_published_with_a_certificate(tmp_path: Path, alice: bytes) -> None:
    hidden = packet(17, b"-----BEGIN PGP PRIVATE KEY BLOCK-----")
    plan = read_openpgp(write(tmp_path, alice + hidden))
    assert {account.keys[0].data for account in plan.accounts} == {alice}


def test_a_certificate_with_a_private_key_in_a_user_id_is_skipped(tmp_path: Path, alice: bytes) -> None:
    identity = b"AGE-SECRET-KEY-1" + b"Q" * 58 + b" <carol@example.org>"
    plan = read_openpgp(write(tmp_path, alice + packet(13, identity)))
    assert plan.accounts == ()
    assert [skipped.reason for skipped in plan.skipped] == [
        "the certificate holds an age identity in a user id"
    ]


def test_certificates_that_are_too_large_are_published_without_certifications(
    tmp_path: Path, alice: bytes, bob: bytes
) -> None:
    certification = next(bytes(each) for each in packets(bob)[2:] if each.tag == Tag.Signature)
    parts = [bytes(each) for each in packets(alice)]
    place = next(place for place, each in enumerate(packets(alice)) if each.tag == Tag.UserID) + 2
    many = certification * (600 * 1024 // len(certification))
    plan = read_openpgp(write(tmp_path, b"".join([*parts[:place], many, *parts[place:]])))
    assert [account.keys[0].data for account in plan.accounts] == [alice, alice]


def test_unsupported_certificates_are_skipped_and_the_others_read(tmp_path: Path, bob: bytes) -> None:
    integers = (1024).to_bytes(2, "big") + b"\xff" * 128 + (17).to_bytes(2, "big") + b"\x01\x00\x01"
    user_id = packet(13, b"Old <old@example.org>")
    ancient = packet(6, b"\x03" + bytes(4) + b"\x00\x00" + b"\x01" + integers) + user_id
    carl = public(generate("Carl <carl@example.org>"))
    odd = bytes(packets(bob)[0]) + packet(11, b"b\x00" + bytes(4) + b"literal")
    bare = bytes(packets(carl)[0])
    unknown = bare + packet(38, b"of the future")
    plan = read_openpgp(write(tmp_path, ancient + bob + odd + bare + unknown))
    assert {account.label for account in plan.accounts} == {"bob@example.org", "alice@example.org"}
    reasons = [skipped.reason for skipped in plan.skipped]
    assert reasons == [
        "the certificate has the unsupported version 3",
        "the certificate has its packets in an impossible order",
        "the certificate has a packet that is damaged or of an unknown kind",
        "the certificate has no user id",
    ]


def test_files_without_a_certificate_are_refused(tmp_path: Path, alice: bytes) -> None:
    text = armor(alice, ArmorKind.PublicKey)
    damaged = {
        "empty": b"",
        "cut off or damaged": alice[:-1],
        "neither a binary nor an armored": b"hello world\n" * 20,
        "armor is damaged or cut off": text[: len(text) // 2].encode(),
        "the ASCII armor is damaged": text.replace(text.splitlines()[5], "!" * 64).encode(),
        "no certificate": bytes(packets(alice)[1]),
        "keybox": bytes(8) + b"KBXf" + bytes(100),
    }
    for problem, data in damaged.items():
        with pytest.raises(MalformedError, match=problem):
            read_openpgp(write(tmp_path, data))


def test_a_damaged_part_spares_its_neighbours(tmp_path: Path, bob: bytes) -> None:
    carl = public(generate("Carl <carl@example.org>"))
    dora = public(generate("Dora <dora@example.org>"))
    cut = "is cut off or damaged"
    cases = {
        "the last is cut": (carl + dora[:-1], ["carl"], [cut]),
        "its primary key is cut": (carl + dora[:20], ["carl"], [cut]),
        "zeros between": (carl + bytes(20) + dora, ["carl", "dora"], [cut]),
        "text between": (carl + b"hello" + dora, ["carl", "dora"], [cut]),
        "lines between": (b"\n" + carl + b"\r\n\n" + dora + b"\n", ["carl", "dora"], []),
        "a packet too long": (carl + b"\xc2\xff\x00\xff\xff\xff" + dora, ["dora"], [cut]),
        "a partial length": (carl + b"\xcb\xe1ab" + dora, ["dora"], [cut]),
        "compressed data": (carl + packet(8, b"\x01abc") + dora, ["carl", "dora"], ["has compressed data"]),
        "compressed first": (packet(8, b"\x01abc") + dora, ["dora"], ["has compressed data"]),
    }
    for name, (data, people, problems) in cases.items():
        plan = read_openpgp(write(tmp_path, data))
        assert labels(plan) == [f"{person}@example.org" for person in people], name
        assert [reason for _, reason in reasons(plan)] == problems, name
        text = armor(bob, ArmorKind.PublicKey) + armor(data, ArmorKind.PublicKey)
        assert len(labels(read_openpgp(write(tmp_path, text.encode())))) == 2 + len(people), name


@pytest.mark.parametrize("name", ["p4_three_armors_last_cut.asc", "p4_three_armors_one_damaged.asc"])
def test_a_damaged_block_is_skipped_by_its_number(name: str) -> None:
    plan = read_openpgp(CASES / "openpgp-one-bad-spoils-all" / name)
    assert labels(plan) == ["anna@example.org", "carl@example.org"]
    number = 3 if "last" in name else 2
    assert reasons(plan) == [(f"armored block {number}", "the ASCII armor is damaged or cut off")]


def test_a_line_end_after_a_binary_keyring() -> None:
    plan = read_openpgp(CASES / "openpgp-one-bad-spoils-all" / "p4_trailing_newline.pgp")
    assert (labels(plan), plan.skipped) == (["anna@example.org", "carl@example.org"], ())


@pytest.mark.parametrize("name", ["p3_bom.asc", "p3_text_before_ascii.asc", "p3_text_before_nonascii.asc"])
def test_armor_after_other_text(name: str, tmp_path: Path) -> None:
    path = CASES / "openpgp-armor-nonascii-first-byte" / name
    assert labels(read_openpgp(path)) == ["erik@example.org"]
    for encoding in ("utf-16", "utf-32", "latin-1"):
        data = path.read_bytes().decode("utf-8-sig").encode(encoding)
        assert labels(read_openpgp(write(tmp_path, data))) == ["erik@example.org"]


def test_packets_that_are_to_be_ignored(tmp_path: Path, alice: bytes) -> None:
    folder = CASES / "openpgp-experimental-packet"
    plan = read_openpgp(folder / "rnp_test_stream_key_load_pubkey-with-experimental-pkt.asc")
    assert plan.keys == 1
    assert reasons(plan) == [("certificate 1, dsa-eg", "the user id has no e-mail address")]
    parts = [bytes(each) for each in packets(alice)]
    for tag in (40, 59, 60, 63):
        for place in range(1, len(parts) + 1):
            data = b"".join([*parts[:place], packet(tag, b"of the future"), *parts[place:]])
            (account, *_) = read_openpgp(write(tmp_path, data)).accounts
            assert account.keys[0].data == alice


def test_addresses_that_are_not_utf8_are_nobodys(tmp_path: Path) -> None:
    plan = read_openpgp(CASES / "non-utf8-names-merge" / "p2_latin1_addresses.pgp")
    assert plan.accounts == ()
    assert [reason for _, reason in reasons(plan)] == ["the label is not UTF-8"] * 2


def test_a_certificate_of_many_user_ids_takes_linear_time(tmp_path: Path, alice: bytes) -> None:
    """Quadratic time would take minutes, and the time limit of the test."""
    parts = packets(alice)
    place = next(place for place, each in enumerate(parts) if each.tag == Tag.UserID)
    signature = bytes(parts[place + 1])
    added = b"".join(packet(13, b"P <p%d@example.org>" % number) + signature for number in range(6000))
    data = b"".join([*map(bytes, parts[:place]), added, *map(bytes, parts[place:])])
    plan = read_openpgp(write(tmp_path, data + data))
    assert len(plan.skipped) == 6000 + 4


def test_every_cut_of_a_keyring_is_refused_or_ends_at_a_packet(tmp_path: Path, bob: bytes) -> None:
    ends = {0}
    for each in packets(bob):
        ends.add(max(ends) + len(bytes(each)))
    for length in range(len(bob)):
        path = write(tmp_path, bob[:length])
        if length in ends and length:
            read_openpgp(path)
        else:
            with pytest.raises(MalformedError):
                read_openpgp(path)


def test_old_and_new_packet_headers(tmp_path: Path, bob: bytes) -> None:
    def old(each: Packet) -> bytes:
        number = bytes(each)[0] & 63
        size = 0 if len(each.body) < 256 else 1
        return bytes([0x80 | number << 2 | size]) + len(each.body).to_bytes(size + 1, "big") + each.body

    data = b"".join(old(each) for each in packets(bob))
    (account, *_) = read_openpgp(write(tmp_path, data + data)).accounts
    assert [key.data for key in account.keys] == [data]


@pytest.mark.parametrize(
    ("user_id", "address"),
    [
        ("Alice <alice@example.org>", "alice@example.org"),
        ("Alice (work) <alice@example.org> ", "alice@example.org"),
        ('"A, <B>" <alice@example.org>', "alice@example.org"),
        ("J\ufffdrg <joerg@example.org>", "joerg@example.org"),
        ("alice@example.org", "alice@example.org"),
        ("Alice", None),
        ("Alice alice@example.org", None),
        ("Alice <alice>", None),
        ("", None),
        ("<" + "@" * 100_000, "<" + "@" * 100_000),
    ],
)
def test_mailboxes(user_id: str, address: str | None) -> None:
    assert mailbox(user_id) == address


def test_without_the_optional_package_it_names_what_to_install(
    tmp_path: Path, alice: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pysequoia", None)
    with pytest.raises(ConfigError, match=r"pip install 'kt-es\[openpgp\]'"):
        read_openpgp(write(tmp_path, alice))


@pytest.mark.parametrize("armored", [False, True])
def test_compressed_data_are_skipped_and_never_unpacked(
    tmp_path: Path, alice: bytes, *, armored: bool
) -> None:
    data = alice + packet(8, b"\x03" + bz2.compress(packet(11, b"b\0" + bytes(100_000))))
    if armored:
        block = base64.encodebytes(data).decode()
        text = f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{block}-----END PGP PUBLIC KEY BLOCK-----\n"
        data = text.encode()
    plan = read_openpgp(write(tmp_path, data))
    assert len(plan.accounts) == 2
    assert "has compressed data" in {skipped.reason for skipped in plan.skipped}


def test_a_packet_that_can_be_read_but_not_written(tmp_path: Path) -> None:
    data = public(generate("Alice <alice@example.org>", profile=Profile.RFC9580))
    # The issuer fingerprint subpackets (length 34, type 33, version 6) get an unknown version.
    data = data.replace(b"\x22\x21\x06", b"\x22\x21\x05")
    path = write(tmp_path, data)
    assert len(read_openpgp(path).skipped) == 1
    (skipped,) = read_openpgp(path, certifications=False).skipped
    assert skipped.reason.startswith("the certificate has a packet of an unknown kind")
