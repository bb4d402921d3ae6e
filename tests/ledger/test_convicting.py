"""The evidence of processes that follow the logs: files that are new, and that convict for good."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kt_es.errors import ConfigError, EquivocationError
from kt_es.formats.evidence import Evidence, armored
from kt_es.ledger import convicting
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from projections.auditor import audit
from tests import builders as b
from tests.reference.forks import story
from tests.reference.signing import NAMES, new_ledger


def kept(data: Path) -> list[Path]:
    return sorted((data / "evidence").glob("*")) if (data / "evidence").is_dir() else []


def found() -> EquivocationError:
    ledger = new_ledger()
    audit(story("alice", "bob", "carol").log, NAMES, ledger, with_queue=False, now=lambda: b.START)
    other = story("alice", "bob", "eve", "dave").log
    with pytest.raises(EquivocationError) as caught:
        audit(other, NAMES, ledger, with_queue=False, now=lambda: b.START)
    return caught.value


def test_the_same_evidence_is_one_file_and_other_evidence_another(tmp_path: Path) -> None:
    error, again, other = found(), found(), found()
    convicting.keep(tmp_path, error)
    convicting.keep(tmp_path, again)
    assert error.saved == again.saved == tmp_path / "evidence/heads-epoch-3.evidence"
    assert other.evidence is not None
    evidence = Evidence.decode(other.evidence)
    other.evidence = replace(evidence, statements=evidence.statements[::-1]).encode()
    convicting.keep(tmp_path, other)
    assert other.saved == tmp_path / "evidence/heads-epoch-3-2.evidence"
    assert len(kept(tmp_path)) == 2
    assert {path.stat().st_mode & 0o777 for path in kept(tmp_path)} == {0o600}


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/heads-epoch-3.evidence").symlink_to(tmp_path / "victim")
    error = found()
    convicting.keep(tmp_path, error)
    assert error.saved == tmp_path / "evidence/heads-epoch-3-2.evidence"
    assert not (tmp_path / "victim").exists()


def test_a_full_disk_changes_the_message_and_not_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        capture_logs() as said,
        pytest.raises(EquivocationError) as caught,
        convicting.keeping_evidence(tmp_path),
    ):
        raise found()
    assert caught.value.exit_code == 5
    assert (caught.value.saved, kept(tmp_path)) == (None, [])
    assert caught.value.evidence is not None
    assert [line["problem"] for line in said] == ["No space left on device"]


def test_a_data_directory_that_cannot_hold_it_changes_only_the_message(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("a file")
    error = found()
    convicting.keep(tmp_path, error)
    assert error.saved is None


def test_what_was_proven_stays_proven(tmp_path: Path) -> None:
    convicting.check_unconvicted(tmp_path, new_ledger())
    error = found()
    convicting.keep(tmp_path, error)
    with pytest.raises(
        EquivocationError, match=r"two different heads of epoch 3\. That was proven before"
    ) as again:
        convicting.check_unconvicted(tmp_path, new_ledger())
    assert (again.value.saved, again.value.evidence) == (error.saved, error.evidence)


def test_damaged_evidence_stops(tmp_path: Path) -> None:
    error = found()
    convicting.keep(tmp_path, error)
    (file,) = kept(tmp_path)
    data = file.read_bytes()
    # By whatever name: only what is moved out of the folder is settled.
    file = file.rename(file.with_name("renamed"))
    for damaged in (b"", data[:-1], data[:-1] + b"x", data[:-40] + b"x" + data[-39:]):
        file.write_bytes(damaged)
        with pytest.raises(ConfigError, match="is damaged"):
            convicting.check_unconvicted(tmp_path, new_ledger())


def test_armored_evidence_convicts_too(tmp_path: Path) -> None:
    convicting.keep(tmp_path, found())
    (file,) = kept(tmp_path)
    data = file.read_bytes()
    file.write_text(f"From the operator:\n{armored(data)}\n")
    with pytest.raises(EquivocationError, match="was proven before") as again:
        convicting.check_unconvicted(tmp_path, new_ledger())
    assert again.value.evidence == data


def test_evidence_against_another_directory_of_the_same_name_convicts_nobody(tmp_path: Path) -> None:
    convicting.keep(tmp_path, found())
    other = b.public(b.private_key("another signer"))
    convicting.check_unconvicted(tmp_path, Ledger(MemoryStore(FAMILIES), b.ORIGIN, other))


def test_evidence_that_cannot_be_read_stops(tmp_path: Path) -> None:
    (tmp_path / "evidence/heads-epoch-3.evidence").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        convicting.check_unconvicted(tmp_path, new_ledger())
