"""The command line as a stranger uses it against a running directory: keys, put, get, history, verify."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kt_es.client.trust import STEPS
from kt_es.client.trusted import Pinned
from kt_es.formats.notes import decode_base64
from tests.builders import private_key, public, seed
from tests.e2e.processes import KT, ORIGIN, Stranger, Up

pytestmark = pytest.mark.e2e

# The same directory's name, another key.
OTHER_VKEY = Pinned(ORIGIN, public(private_key("somebody else"))).vkey


def ssh_key(name: str) -> str:
    """One line of an ``authorized_keys`` file."""
    public = Ed25519PrivateKey.from_private_bytes(seed(name)).public_key()
    return f"{public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {name}@example.org"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "id_ed25519.pub"
    path.write_text(ssh_key("laptop"))
    return path


@pytest.fixture
def owner(stranger: Stranger) -> Stranger:
    """A stranger with a signing key of their own."""
    stranger.kt("keys", "generate")
    return stranger


def test_signing_keys_are_made_and_listed(stranger: Stranger) -> None:
    assert stranger.kt("--json", "keys", "list").document == {"keys": []}
    made = stranger.kt("keys", "generate")
    second = stranger.kt("--json", "keys", "generate", "phone", "--algorithm", "p256").document
    assert second["name"] == "phone"
    assert second["algorithm"] == "p256"
    listed = stranger.kt("--json", "keys", "list").document["keys"]
    assert [key["name"] for key in listed] == ["default", "phone"]
    assert listed[0]["id"] == made.out.strip()
    assert listed[1] == second
    for path in (stranger.home / "data/kt-es/keys").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert "exists already" in stranger.kt("keys", "generate", code=2).complaint


def test_what_was_put_is_found_with_its_history(
    directory: Up, owner: Stranger, key_file: Path, tmp_path: Path
) -> None:
    label = "alice@example.org"
    put = owner.kt("put", label, "--key", key_file)
    assert f"version 1 of {label} stands in the directory" in put.err
    got = owner.kt("get", label)
    assert got.out.startswith(f"ssh  {key_file.name}  ssh-ed25519 ")
    assert all(line[0] in "✓ " for line in got.err.splitlines())

    friend = directory.stranger(tmp_path / "friend")
    assert "never looked up before" in friend.kt("get", label).err
    assert "unchanged since" in friend.kt("get", label).err
    key_file.write_text(ssh_key("desktop"))
    owner.kt("put", label, "--key", key_file)
    changed = friend.kt("get", label).err
    assert "version 1 → 2" in changed
    assert "version 2 since epoch" in changed
    assert "unchanged since" in friend.kt("get", label).err
    document = owner.kt("--json", "get", label).document
    assert document["version"] == 2
    assert not document["absent"]
    assert decode_base64(document["keys"][0]["data"], "data") == key_file.read_bytes()
    versions = owner.kt("--json", "history", label).document["versions"]
    assert [version["version"] for version in versions] == [1, 2]
    assert versions[1]["signed_by"] == document["authorized_keys"]
    before = owner.kt("--json", "get", label, "--epoch", str(versions[1]["epoch"] - 1)).document
    assert before["version"] == 1
    assert "yours" in owner.kt("watch", "--once", label).err


@pytest.mark.parametrize("label", ["संपर्क@डाटामेल.भारत", "fv@பரிட்சை.இந்தியா"])
def test_an_address_of_an_indic_domain_is_put_and_found(owner: Stranger, key_file: Path, label: str) -> None:
    put = owner.kt("put", label, "--key", key_file)
    assert f"version 1 of {label} stands in the directory" in put.err
    local, _, domain = label.partition("@")
    document = owner.kt("--json", "get", f"{local}@{domain.encode('idna').decode()}").document
    assert (document["label"], document["version"]) == (label, 1)


def test_json_is_one_document_and_quiet_prints_nothing(owner: Stranger, key_file: Path) -> None:
    put = owner.kt("-q", "--json", "put", "bob@example.org", "--key", key_file)
    assert put.document["version"] == 1
    assert put.err == ""
    for command in (("get", "bob@example.org"), ("history", "bob@example.org"), ("epochs",), ("checkpoint",)):
        ran = owner.kt("-q", "--json", *command)
        assert isinstance(ran.document, dict)
        assert ran.err == ""


def test_absence_is_proven_and_has_its_exit_code(stranger: Stranger) -> None:
    ran = stranger.kt("get", "nobody@example.org", code=3)
    assert ran.out == ""
    assert "✓ absence proven" in ran.err
    assert stranger.kt("--json", "get", "nobody@example.org", code=3).document["absent"] is True
    assert stranger.kt("history", "nobody@example.org", code=3).out == ""


def test_no_color_and_no_terminal_mean_no_escapes(owner: Stranger, key_file: Path) -> None:
    owner.environment["NO_COLOR"] = "1"
    for ran in (
        owner.kt("put", "carol@example.org", "--key", key_file),
        owner.kt("get", "carol@example.org"),
        owner.kt("get", "not an address", code=2),
    ):
        assert "\x1b" not in ran.out + ran.err


def test_a_saved_proof_is_verified_without_the_server(owner: Stranger, key_file: Path) -> None:
    proof = owner.home / "proof"
    owner.kt("put", "dora@example.org", "--key", key_file)
    owner.kt("get", "dora@example.org", "--out", proof)
    owner.environment["KT_SERVER"] = "http://127.0.0.1:1"
    assert owner.kt("--json", "verify", proof).document["label"] == "dora@example.org"
    absent = owner.home / "absent"
    del owner.environment["KT_SERVER"]
    assert owner.kt("verify", proof, "--vkey", owner.environment["KT_VKEY"]).out.startswith("ssh")
    assert "does not exist" in owner.kt("verify", absent, code=2).err


def test_a_changed_proof_names_the_step_that_failed(owner: Stranger, key_file: Path) -> None:
    proof = owner.home / "proof"
    owner.kt("put", "erin@example.org", "--key", key_file)
    owner.kt("get", "erin@example.org", "--out", proof)
    good = proof.read_bytes()
    for at in (0, len(good) // 3, len(good) // 2, len(good) - 40):
        changed = bytearray(good)
        changed[at] ^= 1
        proof.write_bytes(changed)
        step, colon, _ = owner.kt("-q", "verify", proof, code=4).complaint.partition(": ")
        assert colon
        assert step in (*STEPS, "proof file")
    proof.write_bytes(good[:-1])
    assert owner.kt("-q", "verify", proof, code=4).complaint.startswith("proof file: ")
    proof.write_bytes(good)
    assert owner.kt("-q", "verify", proof, "--vkey", OTHER_VKEY, code=4).complaint.startswith("config: ")
    assert owner.kt("-q", "verify", proof, "--vkey", "no key", code=2).complaint


def test_a_key_rotation_needs_the_old_key(owner: Stranger, key_file: Path) -> None:
    label = "frank@example.org"
    for name in ("next", "foreign"):
        owner.kt("keys", "generate", name)
    owner.kt("put", label, "--key", key_file)
    refused = owner.kt("put", label, "--key", key_file, "--sign-with", "foreign", code=1)
    assert refused.complaint.startswith("unauthorized: ")
    owner.kt("put", label, "--key", key_file, "--rotate-to", "next")
    assert owner.kt("put", label, "--key", key_file, "--sign-with", "default", code=1).complaint
    owner.kt("put", label, "--key", key_file, "--sign-with", "next")
    versions = owner.kt("--json", "history", label).document["versions"]
    signers = [set(version["signed_by"]) for version in versions]
    assert signers[1] == signers[0] | signers[2]
    alarm = owner.kt("watch", "--once", "--mine", "default", label, code=6)
    assert "not yours" in alarm.err


def test_an_import_is_resumed_and_names_what_it_left_out(owner: Stranger, tmp_path: Path) -> None:
    file = tmp_path / "authorized_keys"
    lines = [ssh_key(f"imported{number}") for number in range(6)]
    file.write_text("\n".join([*lines[:4], "ssh-ed25519 AAAA damaged@example.org", "# a comment"]))
    dry = owner.kt("--json", "import", "ssh", file, "--dry-run").document
    assert (dry["accounts"], dry["published"], dry["skipped"]) == (4, 0, 1)
    assert (
        "nothing was sent. Without --dry-run: 4 published" in owner.kt("import", "ssh", file, "--dry-run").out
    )
    first = owner.kt("--json", "import", "ssh", file)
    assert (first.document["published"], first.document["unchanged"]) == (4, 0)
    assert "skipped 1: " in first.err
    file.write_text("\n".join(lines))
    second = owner.kt("--json", "import", "ssh", file).document
    assert (second["published"], second["unchanged"]) == (2, 4)
    assert owner.kt("get", "imported5@example.org").out.startswith("ssh")


def test_what_is_put_has_to_be_a_public_key(owner: Stranger, tmp_path: Path) -> None:
    private = next((owner.home / "data/kt-es/keys").glob("*.pem"))
    assert "private key" in owner.kt("put", "x@example.org", "--key", private, code=2).complaint
    empty = tmp_path / "empty"
    empty.touch()
    assert "is empty" in owner.kt("put", "x@example.org", "--key", empty, code=2).complaint
    large = tmp_path / "large"
    large.write_bytes(bytes(512 * 1024 + 1))
    assert "larger" in owner.kt("put", "x@example.org", "--key", large, code=2).complaint
    assert "does not exist" in owner.kt("put", "x@example.org", "--key", tmp_path / "none", code=2).err
    owner.kt("get", "x@example.org", code=3)


def test_a_label_that_cannot_be_is_refused_in_one_line(owner: Stranger, key_file: Path) -> None:
    for label in ("not an address", "x" * 300 + "@example.org", ""):
        assert owner.kt("get", label, code=2).complaint
        assert owner.kt("put", label, "--key", key_file, code=2).complaint


def test_a_directory_under_another_key_is_refused(directory: Up, stranger: Stranger) -> None:
    stranger.environment["KT_VKEY"] = OTHER_VKEY
    refused = stranger.kt("get", "alice@example.org", code=4)
    assert refused.err.startswith("✗ config: ")
    assert not (stranger.state / "origins").exists()
    del stranger.environment["KT_VKEY"]
    first = stranger.kt("get", "nobody@example.org", code=3)
    assert f"pinned on first use: {directory.vkey}" in first.err


def test_trusted_state_that_is_damaged_is_not_replaced_silently(stranger: Stranger) -> None:
    stranger.kt("get", "nobody@example.org", code=3)
    trusted = next(stranger.state.rglob("trusted"))
    trusted.write_bytes(b"damaged")
    assert "is damaged" in stranger.kt("get", "nobody@example.org", code=2).complaint
    assert trusted.read_bytes() == b"damaged"


def test_every_command_explains_itself(stranger: Stranger) -> None:
    commands = stranger.kt("--help").out
    for name in ("put", "get", "audit", "up", "demo"):
        assert f"  {name} " in commands
    assert stranger.kt("no-such-command", code=2).err.startswith("Usage: ")


def on_a_terminal(stranger: Stranger, *words: str | Path) -> bytes:
    """What ``kt`` writes to a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [KT, *map(str, words)], cwd=stranger.home, env=stranger.environment, stdin=theirs, stdout=theirs
        )
        os.close(theirs)
        said = b""
        # A terminal whose other end is closed gives an error on Linux, not an end.
        with contextlib.suppress(OSError):
            while part := terminal.read(65536):
                said += part
        assert process.wait() == 0
    return said


def test_a_terminal_obeys_no_key_and_no_name_of_a_key(stranger: Stranger) -> None:
    stranger.kt("keys", "generate")
    comments = (b"\x1b]0;owned\x07\x1b[2Jmallory", b"\x7f\x9b31m")
    names = ("n\x1b[31mred.pub", "two.pub")
    for name, comment in zip(names, comments, strict=True):
        (stranger.home / name).write_bytes(b" ".join((*ssh_key(name).encode().split()[:2], comment)) + b"\n")
    label = "esc@example.org"
    stranger.kt("put", label, *(word for name in names for word in ("--key", stranger.home / name)))
    for words in (("get", label), ("history", label), ("-q", "get", label)):
        said = on_a_terminal(stranger, *words).replace(b"\r\n", b"")
        assert not [byte for byte in said if byte < 0x20 or byte == 0x7F], said
        assert b"\xc2\x9b" not in said
        said.decode()
    assert b"owned" in on_a_terminal(stranger, "get", label)
