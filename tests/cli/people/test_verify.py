"""``kt verify`` and what ``kt get`` says of a change, without a server: the commands as people run them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kt_es.cli.main import cli
from kt_es.cli.people.get import changes_since
from kt_es.client.entries import KIND, Account
from kt_es.client.state import MemoryStateStore
from kt_es.client.states import States
from kt_es.client.trusted import Pinned, begin
from kt_es.errors import KtError, UnavailableError
from kt_es.evidence import contradicting_checkpoints
from kt_es.formats.evidence import Evidence, armored
from kt_es.formats.heads import heads_origin
from tests import builders as b
from tests.reference.clients import client_of
from tests.reference.directory import Directory

ALICE = b.label_of("alice")
PINNED = Pinned(b.ORIGIN, b.SIGNER_KEY)
SENTENCE = f"the directory signed two different logs of 2 leaves under the name {b.ORIGIN}/heads"


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.put_user("bob")
    directory.advance()
    directory.put_user("alice", 2)
    directory.advance()
    return directory


@pytest.fixture
def evidence(directory: Directory) -> bytes:
    other = b.checkpoint(heads_origin(b.ORIGIN), 2)
    found = contradicting_checkpoints(
        "checkpoint", b.ORIGIN, directory.configs, directory.heads_checkpoint(2), other
    )
    assert found is not None
    assert found.evidence is not None
    return found.evidence


def verify(tmp_path: Path, data: bytes, *options: str, as_json: bool = False) -> Ran:
    """``kt verify`` of a file with ``data``, and the code that ``kt`` ends with."""
    file = tmp_path / "file"
    file.write_bytes(data)
    json_ = ["--json"] if as_json else []
    words = [*json_, "verify", str(file), "--state", str(tmp_path / "state"), *options]
    ran = CliRunner().invoke(cli, words, standalone_mode=False)
    if isinstance(ran.exception, KtError):
        return Ran(ran.exception.exit_code, ran.stdout, ran.stderr + str(ran.exception))
    assert ran.exception is None
    return Ran(ran.return_value or 0, ran.stdout, ran.stderr)


def seen(tmp_path: Path, directory: Directory, epoch: int | None = None) -> None:
    """Look alice up with the state that the command uses."""
    store = States(tmp_path / "state").of(b.ORIGIN)
    client_of(directory, store).lookup(ALICE, epoch)


class TestEvidence:
    def test_it_is_confirmed_and_named(self, tmp_path: Path, evidence: bytes) -> None:
        ran = verify(tmp_path, evidence)
        assert ran.code == 5
        assert ran.out == SENTENCE + "\n"
        assert b.ORIGIN in ran.err
        assert PINNED.vkey in ran.err
        assert "no --vkey given" in ran.err

    def test_the_given_key_has_to_be_one_of_the_directorys(self, tmp_path: Path, evidence: bytes) -> None:
        ran = verify(tmp_path, evidence, "--vkey", PINNED.vkey)
        assert ran.code == 5
        assert "no --vkey given" not in ran.err
        for other in (
            Pinned(b.ORIGIN, b.public(b.private_key("stranger"))),
            Pinned(b.OTHER_ORIGIN, b.SIGNER_KEY),
        ):
            ran = verify(tmp_path, evidence, "--vkey", other.vkey)
            assert ran.code == 4
            assert "is not about the directory of" in ran.err

    def test_the_trusted_key_counts_as_a_given_one(
        self, tmp_path: Path, directory: Directory, evidence: bytes
    ) -> None:
        seen(tmp_path, directory)
        ran = verify(tmp_path, evidence)
        assert ran.code == 5
        assert "no --vkey given" not in ran.err

    def test_evidence_about_another_directory_than_the_trusted_one_is_refused(
        self, tmp_path: Path, evidence: bytes
    ) -> None:
        """Another directory of the same name: whoever made up its keys can make up its contradictions."""
        key = b.private_key("other")
        store = States(tmp_path / "state").of(b.ORIGIN)
        configs = [b.signed_config(b.config(signer_keys=[key]), [key])]
        store.replace(None, begin(Pinned(b.ORIGIN, b.public(key)), configs))
        ran = verify(tmp_path, evidence)
        assert ran.code == 4
        assert "is not about the directory of" in ran.err

    @pytest.mark.parametrize(
        ("before", "after"), [("", ""), ("✗ some complaint\n", "\nmore\n"), ("", "\r\n")]
    )
    def test_armored_text_is_read_whatever_stands_around_it(
        self, tmp_path: Path, evidence: bytes, before: str, after: str
    ) -> None:
        text = before + armored(evidence) + after
        if "\r" in after:
            text = text.replace("\n", "\r\n")
        assert verify(tmp_path, text.encode()).code == 5
        indented = "\n".join(f"  {line}" for line in armored(evidence).splitlines())
        assert verify(tmp_path, indented.encode()).code == 5

    def test_as_json(self, tmp_path: Path, evidence: bytes) -> None:
        document = json.loads(verify(tmp_path, evidence, as_json=True).out)
        assert document == {
            "evidence": "checkpoints",
            "origin": b.ORIGIN,
            "key": PINNED.vkey,
            "vouched": False,
            "contradiction": SENTENCE,
        }

    def test_what_is_damaged_or_convicts_nobody_is_refused(self, tmp_path: Path, evidence: bytes) -> None:
        text = armored(evidence)
        same = Evidence.decode(evidence)
        same = replace(same, statements=(same.statements[0], same.statements[0]))
        for data in (
            evidence[:-1],
            evidence + b"\0",
            text.replace("A", "!", 1).encode(),
            text[: len(text) // 2].encode(),
            same.encode(),
        ):
            ran = verify(tmp_path, data)
            assert ran.code == 4, data
            assert "evidence" in ran.err


class TestProof:
    def proof(self, directory: Directory, epoch: int | None = None, label: str = ALICE) -> bytes:
        return client_of(directory).lookup(label, epoch).proof.encode()

    def test_without_a_state_the_file_is_taken_at_its_word_and_nothing_is_kept(
        self, tmp_path: Path, directory: Directory
    ) -> None:
        ran = verify(tmp_path, self.proof(directory))
        assert ran.code == 0
        assert "taking the file's word" in ran.err
        assert not (tmp_path / "state").exists()
        assert verify(tmp_path, self.proof(directory, label=b.label_of("nobody"))).code == 3

    def test_the_trusted_key_is_used_where_there_is_one(self, tmp_path: Path, directory: Directory) -> None:
        seen(tmp_path, directory)
        ran = verify(tmp_path, self.proof(directory))
        assert ran.code == 0
        assert "verifying under the trusted key" in ran.err

    def test_a_file_that_contradicts_the_memory_is_proven_false(
        self, tmp_path: Path, directory: Directory
    ) -> None:
        seen(tmp_path, directory)
        fork = Directory()
        fork.put_user("alice")
        fork.put_user("bob")
        fork.advance()
        fork.advance()
        fork.put_user("carol")
        fork.advance()
        ran = verify(tmp_path, self.proof(fork))
        assert ran.code == 5
        assert "epoch 3 has version 1, though version 2 stood there in epoch 2" in ran.err
        assert list((tmp_path / "state").rglob("*.evidence"))

    def test_a_file_of_another_log_of_the_same_size_is_proven_false(
        self, tmp_path: Path, directory: Directory
    ) -> None:
        seen(tmp_path, directory)
        fork = Directory()
        fork.put_user("carol")
        fork.advance()
        fork.advance()
        ran = verify(tmp_path, self.proof(fork, label=b.label_of("carol")))
        assert ran.code == 5
        assert "two different" in ran.err

    def test_a_file_of_the_past_is_no_contradiction(self, tmp_path: Path, directory: Directory) -> None:
        old = self.proof(directory, 1)
        seen(tmp_path, directory)
        assert verify(tmp_path, old).code == 0

    @pytest.mark.parametrize("options", [(), ("--vkey", PINNED.vkey)])
    def test_a_vouched_file_is_remembered_and_trust_stays(
        self, tmp_path: Path, directory: Directory, options: tuple[str, ...]
    ) -> None:
        seen(tmp_path, directory)
        store = States(tmp_path / "state").of(b.ORIGIN)
        trusted = store.load()
        directory.put_user("alice", 3)
        directory.advance()
        assert verify(tmp_path, self.proof(directory), *options).code == 0
        assert store.load() == trusted
        data = store.recall(KIND, b.index("alice"))
        assert data is not None
        assert Account.decode(data).last.version == 3

    def test_a_file_under_a_retired_key_is_compared_and_not_remembered(
        self, tmp_path: Path, directory: Directory
    ) -> None:
        """A thief of the old key can make proof files. They may not change what this client remembers."""
        seen(tmp_path, directory)
        store = States(tmp_path / "state").of(b.ORIGIN)
        old = client_of(directory).lookup(b.label_of("bob")).proof.encode()
        directory.rotate(b.private_key("successor"))
        directory.advance()
        directory.advance()
        seen(tmp_path, directory)
        assert verify(tmp_path, old).code == 0
        assert store.recall(KIND, b.index("bob")) is None
        new = client_of(directory).lookup(b.label_of("bob")).proof.encode()
        assert verify(tmp_path, new).code == 0
        assert store.recall(KIND, b.index("bob")) is not None

    def test_a_file_without_its_profile_is_reported_as_such(
        self, tmp_path: Path, directory: Directory
    ) -> None:
        proof = replace(client_of(directory).lookup(ALICE).proof, profile=None)
        ran = verify(tmp_path, proof.encode())
        assert ran.code == 4
        assert "the profile is not in the file" in ran.err

    def test_a_file_that_was_not_fresh_is_undecided(self, tmp_path: Path, directory: Directory) -> None:
        proof = client_of(directory).lookup(ALICE).proof
        assert verify(tmp_path, replace(proof, at=proof.at + 10**8).encode()).code == 7

    @pytest.mark.parametrize("data", [b"", b"\x80", b"text", b"-----BEGIN PGP MESSAGE-----"])
    def test_what_is_neither_is_refused(self, tmp_path: Path, data: bytes) -> None:
        ran = verify(tmp_path, data)
        assert ran.code == 2
        assert ran.err.endswith("is neither a saved proof nor evidence: name a file that kt get --out wrote")

    def test_the_age_of_the_head_is_the_word_of_the_file(self, tmp_path: Path, directory: Directory) -> None:
        ran = verify(tmp_path, client_of(directory).lookup(ALICE).proof.encode())
        assert "when this was saved, as the file says itself, the head is" in ran.err


class TestChanges:
    def changes(self, directory: Directory, store: MemoryStateStore, epoch: int | None = None) -> Any:
        client = client_of(directory, store)
        return changes_since(client, client.lookup(ALICE, epoch))

    def test_the_first_time(self, directory: Directory) -> None:
        changes = self.changes(directory, MemoryStateStore())
        assert changes.lines == ("never looked up before: remembered from now on",)
        assert changes.document == {"seen_before": False}

    def test_unchanged_since(self, directory: Directory) -> None:
        store = MemoryStateStore()
        self.changes(directory, store)
        first = directory.now
        directory.advance()
        self.changes(directory, store)
        directory.advance()
        changes = self.changes(directory, store)
        assert changes.lines == ("unchanged since 2024-01-01 00:00:21 UTC, first seen in epoch 2",)
        assert changes.document == {
            "seen_before": True,
            "version": 2,
            "epoch": 3,
            "first_seen": first,
            "last_seen": first + 10_000,
            "changed": False,
            "versions": [],
        }

    def test_each_version_since_then_is_named_with_its_signer(self, directory: Directory) -> None:
        store = MemoryStateStore()
        self.changes(directory, store)
        for version in (3, 4):
            directory.put_user("alice", version)
            directory.advance()
        key = b.public(b.private_key("alice")).id.hex()
        changes = self.changes(directory, store)
        assert changes.lines == (
            "CHANGED since 2024-01-01 00:00:21 UTC, when epoch 2 was seen: version 2 → 4",
            f"version 3 since epoch 3, 2024-01-01 00:00:30 UTC, signed by {key}",
            f"version 4 since epoch 4, 2024-01-01 00:00:40 UTC, signed by {key}",
        )
        assert [version["epoch"] for version in changes.document["versions"]] == [3, 4]
        assert changes.document["versions"][0]["signed_by"] == [key]

    def test_who_was_absent_and_is_there_is_a_change(self) -> None:
        directory, store = Directory(), MemoryStateStore()
        directory.advance()
        assert self.changes(directory, store).document == {"seen_before": False}
        assert self.changes(directory, store).lines[0].startswith("still nobody: unchanged since")
        directory.put_user("alice")
        directory.advance()
        lines = self.changes(directory, store).lines
        assert lines[0].endswith("published since then")
        assert lines[1].startswith("version 1 since epoch 2")

    def test_of_a_past_epoch_nothing_is_reported(self, directory: Directory) -> None:
        store = MemoryStateStore()
        self.changes(directory, store)
        assert self.changes(directory, store, 1) is None

    def test_a_history_that_is_away_does_not_hide_the_change(
        self, directory: Directory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = MemoryStateStore()
        client_of(directory, store).lookup(ALICE)
        directory.put_user("alice", 3)
        directory.advance()
        client = client_of(directory, store)
        lookup = client.lookup(ALICE)

        def away(label: str) -> None:
            raise UnavailableError("the server does not answer")

        monkeypatch.setattr(client, "history", away)
        changes = changes_since(client, lookup)
        assert changes is not None
        assert "version 2 → 3" in changes.lines[0]
        assert "not available now" in changes.lines[1]
