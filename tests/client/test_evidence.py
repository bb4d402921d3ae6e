"""Evidence is of contradictions only, it is kept once, and no verdict depends on a disk that takes it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.client.state import FileStateStore
from kt_es.errors import CannotTellError, ConfigError, EquivocationError, KtError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence, EvidenceKind
from tests import builders as b
from tests.reference.clients import Handler, changed, client_of
from tests.reference.directory import Directory, text

ALICE = b.label_of("alice")


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    directory.advance()
    return directory


def fork(heads: int) -> Directory:
    """Another directory under the same key: bob is in it as well."""
    fork = Directory()
    fork.put_user("alice")
    fork.put_user("bob")
    for _ in range(heads):
        fork.advance()
    return fork


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "evidence").glob("*"))]


@pytest.mark.parametrize("heads", [2, 3, 8])
def test_two_faces_of_a_directory_are_proven_and_kept_once(
    directory: Directory, tmp_path: Path, heads: int
) -> None:
    store = FileStateStore(tmp_path)
    client_of(directory, store).lookup(ALICE)
    before = store.load()
    for _ in range(2):
        with pytest.raises(EquivocationError, match="two different logs of 2 leaves") as found:
            client_of(fork(heads), store).lookup(ALICE)
        assert found.value.saved is not None
        assert found.value.saved.read_bytes() == found.value.evidence
    assert store.load() == before
    (data,) = kept(tmp_path)
    evidence = Evidence.decode(data)
    assert evidence.kind is EvidenceKind.CHECKPOINTS
    assert convict(evidence) == "the directory signed two different logs of 2 leaves under the name " + (
        f"{b.ORIGIN}/heads"
    )


def test_two_heads_of_an_epoch_are_evidence_where_the_checkpoints_are_withheld(
    directory: Directory, tmp_path: Path
) -> None:
    """The fork does not show its checkpoint of the trusted size; its head of that epoch is enough."""
    store = FileStateStore(tmp_path)
    client_of(directory, store).lookup(ALICE)
    other = fork(5)

    def handle(request: httpx.Request) -> httpx.Response:
        show = other.heads_checkpoint(5)
        path = request.url.path
        if path.startswith("/v1/heads/"):
            return changed(other, path, lambda body: body.update(heads_checkpoint=show))(request)
        return other.handle(request)

    with pytest.raises(EquivocationError, match="two different heads of epoch 2"):
        client_of(other, store, handle).lookup(ALICE)
    (data,) = kept(tmp_path)
    assert Evidence.decode(data).kind is EvidenceKind.HEADS


def test_a_fork_that_shows_nothing_is_refused_without_evidence(directory: Directory, tmp_path: Path) -> None:
    store = FileStateStore(tmp_path)
    client_of(directory, store).lookup(ALICE)
    other = fork(5)

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/v1/heads/"):
            return httpx.Response(404, content=b"{}")
        return other.handle(request)

    with pytest.raises(VerificationError, match=r"^consistency:") as refused:
        client_of(other, store, handle).lookup(ALICE)
    assert refused.value.exit_code == 4
    assert kept(tmp_path) == []


def test_two_configs_are_evidence(directory: Directory, tmp_path: Path) -> None:
    store = FileStateStore(tmp_path)
    other = Directory()
    other.put_user("alice")
    other.advance()
    for made, successor in ((directory, "successor"), (other, "another")):
        made.rotate(b.private_key(successor))
        made.advance()
        made.advance()
    client_of(directory, store).lookup(ALICE)
    with pytest.raises(EquivocationError, match="two different configs that follow the same one"):
        client_of(other, store).directory()
    (data,) = kept(tmp_path)
    assert Evidence.decode(data).kind is EvidenceKind.CONFIGS


def false_profile(directory: Directory) -> Handler:
    return changed(directory, "/v1/lookup", lambda body: body.update(profile=text(b"\x80")))


def false_proof(directory: Directory) -> Handler:
    return changed(directory, "/v1/lookup", lambda body: body.update(consistency=[text(b"\1" * 32)]))


def withheld(directory: Directory) -> Handler:
    directory.private.clear()
    return directory.handle


@pytest.mark.parametrize("fault", [false_profile, false_proof, withheld])
def test_what_is_only_refused_leaves_no_file(
    directory: Directory, tmp_path: Path, fault: Callable[[Directory], Handler]
) -> None:
    store = FileStateStore(tmp_path)
    client_of(directory, store).lookup(ALICE)
    with pytest.raises(VerificationError) as refused:
        client_of(directory, store, fault(directory)).lookup(ALICE)
    assert not isinstance(refused.value, EquivocationError)
    assert not (tmp_path / "evidence").exists()


@pytest.mark.parametrize("off", [10**7, -(10**7)])
def test_a_clock_that_differs_leaves_no_file(directory: Directory, tmp_path: Path, off: int) -> None:
    store = FileStateStore(tmp_path)
    with pytest.raises(CannotTellError):
        client_of(directory, store, now=lambda: directory.now + off).lookup(ALICE)
    assert not (tmp_path / "evidence").exists()


class TestDisk:
    """A disk that takes nothing changes what is said, and never the verdict."""

    @pytest.fixture
    def store(self, directory: Directory, tmp_path: Path) -> FileStateStore:
        store = FileStateStore(tmp_path / "state")
        client_of(directory, store).lookup(ALICE)
        return FileStateStore(tmp_path / "state")

    @pytest.fixture
    def read_only(self, store: FileStateStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Every attempt to open a file for writing fails, as on a read-only disk; root may write anywhere."""
        really = os.open

        def open_(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                raise OSError(30, "Read-only file system", path)
            return really(path, flags, mode, **options)

        monkeypatch.setattr(os, "open", open_)
        monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
        yield
        monkeypatch.undo()

    @pytest.mark.usefixtures("read_only")
    def test_a_contradiction_is_reported_without_being_saved(self, store: FileStateStore) -> None:
        with pytest.raises(EquivocationError) as found:
            client_of(fork(4), store).lookup(ALICE)
        assert found.value.exit_code == 5
        assert found.value.saved is None
        assert found.value.evidence is not None
        convict(Evidence.decode(found.value.evidence))

    @pytest.mark.usefixtures("read_only")
    def test_a_contradiction_with_the_memory_is_reported_as_well(
        self, directory: Directory, store: FileStateStore
    ) -> None:
        forged = b.mutation("alice", keys=[b.private_key("mallory")])
        directory.mutations[forged.entry_hash] = forged
        directory.private[forged.entry_hash] = (b.opening("alice"), b.profile("alice"))
        directory.epoch.accepted[b.index("alice")] = forged.entry_hash
        directory.advance()
        with pytest.raises(EquivocationError, match=r"^memory: .* another version 1"):
            client_of(directory, store).lookup(ALICE)

    @pytest.mark.usefixtures("read_only")
    def test_success_is_not_reported_for_a_checkpoint_that_cannot_be_kept(
        self, directory: Directory, store: FileStateStore
    ) -> None:
        directory.advance()
        with pytest.raises(ConfigError, match=r"Read-only file system") as refused:
            client_of(directory, store).lookup(ALICE)
        assert "\n" not in str(refused.value)

    def test_nor_of_an_account_that_cannot_be_remembered(
        self, directory: Directory, store: FileStateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> bool:
            raise ConfigError("the memory cannot be written: database or disk is full")

        monkeypatch.setattr(FileStateStore, "exchange", fail)
        with pytest.raises(ConfigError, match="disk is full"):
            client_of(directory, store).lookup(b.label_of("nobody"))

    def test_a_full_disk_keeps_no_half_of_a_file(
        self, store: FileStateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(EquivocationError) as found:
            client_of(fork(4), store).lookup(ALICE)
        assert found.value.saved is None
        monkeypatch.undo()
        assert list((tmp_path / "state" / "evidence").glob("*.evidence")) == []


def test_the_files_are_the_owners_alone(directory: Directory, tmp_path: Path) -> None:
    store = FileStateStore(tmp_path / "state")
    client_of(directory, store).lookup(ALICE)
    with pytest.raises(KtError):
        client_of(fork(4), store).lookup(ALICE)
    for path in (tmp_path / "state").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
