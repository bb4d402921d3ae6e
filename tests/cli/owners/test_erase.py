"""``kt erase``: by the owner and by the operator, of one version and of all, and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kt_es.client.states import KeyStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import Settings, dump_settings
from kt_es.config.tables import FrontendTable
from kt_es.errors import RefusedError
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.queue import ItemKind, Record, Verdict
from kt_es.process.files import replace_file
from tests import builders as b
from tests.cli.owners.people import KEY, STRANGER, Kt, client_of, follow, standing
from tests.reference.directory import Directory

ALICE = b.label_of("alice")


@pytest.fixture
def people() -> Directory:
    """alice has two versions."""
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    follow(directory, KEY)
    return directory


@pytest.fixture
def run(people: Directory, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Kt:
    made = Kt(people, tmp_path, capsys, monkeypatch)
    made.keys.add("default", KEY)
    return made


def erasures(directory: Directory) -> list[tuple[Erasure, Verdict]]:
    found = [Record.decode(data) for data in directory.records]
    return [
        (Erasure.decode(record.item.content), record.verdict)
        for record in found
        if record.item.kind is ItemKind.ERASURE and isinstance(record.item.content, bytes)
    ]


def test_the_owner_erases_the_present_version(run: Kt, people: Directory) -> None:
    held = standing(people)
    code, document, err = run("erase", ALICE)
    assert code == 0, err
    assert document["erased"] == [
        {
            "version": 2,
            "entry": held.entry_hash.hex(),
            "commitment": held.entry.commitment.hex(),
            "erased": True,
        }
    ]
    key = b.public(KEY).id.hex()
    assert document["signed"] == {"versions": [2], "reason": "owner", "signed_by": key}
    assert f"erasure of version 2 of {ALICE}, reason: owner, signed by {key} (default)" in err
    assert "- key raw laptop, 7 bytes" in err
    assert err.index("- key raw") < err.index("is erased")
    lookup = client_of(people).lookup(ALICE)
    assert lookup.erased
    assert lookup.entry == held.entry
    assert client_of(people).lookup(ALICE, 1).profile is not None


def test_all_versions_and_repeating_it_signs_nothing_more(run: Kt, people: Directory) -> None:
    assert run("erase", "--version", "1", ALICE)[1]["signed"]["versions"] == [1]
    assert run("erase", "--all", ALICE)[1]["signed"]["versions"] == [2]
    code, document, err = run("erase", "--all", ALICE)
    assert code == 0, err
    assert document["signed"] is None
    assert [one["erased"] for one in document["erased"]] == [True, True]
    assert len(erasures(people)) == 2


def test_an_erased_account_can_be_changed(run: Kt) -> None:
    assert run("erase", "--all", ALICE)[0] == 0
    assert run("revoke", ALICE, "default")[0] == 1
    assert run("put", "--remove", "laptop", ALICE)[0] == 1
    code, _, err = run("put", "--add", str(run.file), ALICE)
    assert code == 0, err


@pytest.fixture
def operated(run: Kt) -> Kt:
    """With a kt.toml whose signer key is the directory's."""
    settings = Settings(
        directory="people",
        origin=b.ORIGIN,
        key=Pinned(b.ORIGIN, b.SIGNER_KEY).vkey,
        frontend=FrontendTable(listen="127.0.0.1:1"),
        base=run.home,
    )
    replace_file(run.home / "kt.toml", dump_settings(settings).encode())
    replace_file(run.home / "keys/signer/signer.pem", b.SIGNER.to_pem())
    return run


def test_the_operator_erases_with_a_reason(operated: Kt, people: Directory) -> None:
    code, document, err = operated.with_config("erase", "--operator", "--reason", "law", ALICE)
    assert code == 0, err
    assert document["signed"]["signed_by"] == b.SIGNER_KEY.id.hex()
    ((erasure, verdict),) = erasures(people)
    assert (erasure.reason.label, erasure.key, verdict) == ("law", b.SIGNER_KEY, Verdict.ERASED)
    assert "by the operator, reason: law" in err


def test_without_the_signer_key_nothing_is_erased(operated: Kt, people: Directory) -> None:
    replace_file(operated.home / "keys/signer/signer.pem", b.private_key("other").to_pem())
    code, document, _ = operated.with_config("erase", "--operator", "--reason", "abuse", ALICE)
    assert code == 2
    assert "no private key" in document["error"]["problem"]
    assert erasures(people) == []


@pytest.mark.parametrize(
    "words",
    [("--operator",), ("--reason", "law"), ("--all", "--version", "1"), ("--operator", "--reason", "whim")],
)
def test_wrong_usage(run: Kt, people: Directory, words: tuple[str, ...]) -> None:
    assert run("erase", *words, ALICE)[0] == 2
    assert erasures(people) == []


def test_who_has_no_key_of_the_account_erases_nothing(run: Kt, people: Directory) -> None:
    (run.home / "keys/default.pem").unlink()
    KeyStore(run.home / "keys").add("other", STRANGER)
    code, _, err = run("erase", ALICE)
    assert code == 1
    assert "can be changed by the keys" in err
    assert run("erase", "--version", "3", ALICE)[0] == 1
    assert run("erase", b.label_of("bob"))[0] == 1
    assert erasures(people) == []


def test_another_key_is_refused_by_the_directory(people: Directory) -> None:
    held = standing(people)
    made = Erasure.sign(held.entry.index, held.entry_hash, ErasureReason.OWNER, b.ORIGIN, STRANGER)
    with pytest.raises(RefusedError, match="foreign-erasure"):
        client_of(people).submit_erasure(made)
