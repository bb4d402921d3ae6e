"""A directory that was convicted stays so for a client, and another directory is not one that is behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.directory import check_unconvicted
from kt_es.client.offline import verify_proof
from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
from kt_es.client.trusted import Pinned, begin
from kt_es.errors import ConfigError, EquivocationError, UnavailableError, VerificationError
from kt_es.formats.evidence import armored
from kt_es.formats.proofs import encode_configs
from tests import builders as b
from tests.reference.clients import Handler, changed, client_of
from tests.reference.clocks import Pauses
from tests.reference.directory import Directory, problem, text

ALICE = b.label_of("alice")
AGAIN = "two different logs .* was proven before"


def directory(*users: str, heads: int = 2, **options: object) -> Directory:
    made = Directory(**options)  # type: ignore[arg-type]
    for user in users:
        made.put_user(user)
    for _ in range(heads):
        made.advance()
    return made


@pytest.fixture
def honest() -> Directory:
    return directory("alice")


def convict(store: StateStore, honest: Directory) -> None:
    client_of(honest, store).lookup(ALICE)
    with pytest.raises(EquivocationError):
        client_of(directory("alice", "bob"), store).lookup(ALICE)


QUESTIONS: list[Callable[[Client], object]] = [
    lambda client: client.lookup(ALICE),
    lambda client: client.history(ALICE),
    lambda client: client.directory(),
    lambda client: client.trusted(),
    lambda client: client.head(),
]


@pytest.mark.parametrize("ask", QUESTIONS, ids=["lookup", "history", "directory", "trusted", "head"])
def test_the_side_that_was_shown_first_is_not_believed_again(
    honest: Directory, tmp_path: Path, ask: Callable[[Client], object]
) -> None:
    convict(FileStateStore(tmp_path), honest)
    honest.advance()
    for _ in range(2):
        with pytest.raises(EquivocationError, match=AGAIN) as found:
            ask(client_of(honest, FileStateStore(tmp_path)))
        assert found.value.saved is not None
        assert found.value.saved.read_bytes() == found.value.evidence
    assert len(list((tmp_path / "evidence").iterdir())) == 1


def test_state_in_memory_remembers_it_too(honest: Directory) -> None:
    store = MemoryStateStore()
    convict(store, honest)
    with pytest.raises(EquivocationError, match=AGAIN):
        client_of(honest, store).lookup(ALICE)


def test_a_saved_proof_of_a_convicted_directory_is_refused(honest: Directory, tmp_path: Path) -> None:
    proof = client_of(honest, FileStateStore(tmp_path)).lookup(ALICE).proof
    convict(FileStateStore(tmp_path), honest)
    trusted = FileStateStore(tmp_path).load()
    assert trusted is not None
    with pytest.raises(EquivocationError, match=AGAIN):
        verify_proof(proof, trusted.pinned, FileStateStore(tmp_path), vouched=True)


def test_who_moves_the_evidence_away_goes_on(honest: Directory, tmp_path: Path) -> None:
    convict(FileStateStore(tmp_path), honest)
    (evidence,) = (tmp_path / "evidence").iterdir()
    evidence.rename(tmp_path / "settled")
    assert client_of(honest, FileStateStore(tmp_path)).lookup(ALICE).entry is not None


OTHER = b.private_key("another signer")
STRANGER = b.signed_config(b.config(signer_keys=[OTHER]), [OTHER])


def test_evidence_against_another_directory_convicts_nobody(honest: Directory, tmp_path: Path) -> None:
    convict(FileStateStore(tmp_path), honest)
    store = FileStateStore(tmp_path)
    check_unconvicted(store, begin(Pinned(b.ORIGIN, STRANGER.config.signer_key), [STRANGER]))


def test_damaged_evidence_stops(honest: Directory, tmp_path: Path) -> None:
    convict(FileStateStore(tmp_path), honest)
    (file,) = (tmp_path / "evidence").iterdir()
    data = file.read_bytes()
    file = file.rename(file.with_name("renamed"))
    for damaged in (b"", data[:300], b"x" * 40, data[:-1] + b"x"):
        file.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"evidence .*renamed is damaged"):
            client_of(honest, FileStateStore(tmp_path)).lookup(ALICE)
    file.write_text(armored(data))
    with pytest.raises(EquivocationError, match=AGAIN):
        client_of(honest, FileStateStore(tmp_path)).lookup(ALICE)


def test_evidence_that_cannot_be_read_stops(honest: Directory, tmp_path: Path) -> None:
    client_of(honest, FileStateStore(tmp_path)).lookup(ALICE)
    (tmp_path / "evidence/unreadable.evidence").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        client_of(honest, FileStateStore(tmp_path)).lookup(ALICE)


def behind(server: Handler) -> Handler:
    """A front end that says of each lookup that it is behind."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/lookup":
            return problem(503, "unavailable", "this front end is behind")
        return server(request)

    return handle


def test_another_directory_is_not_one_that_is_behind(honest: Directory) -> None:
    store = MemoryStateStore()
    client_of(honest, store).lookup(ALICE)
    configs = text(encode_configs([STRANGER]))
    stranger = behind(changed(honest, "/v1/directory", lambda body: body.update(configs=configs)))
    with pytest.raises(VerificationError, match="config: "):
        client_of(honest, store, stranger, timeout=60).lookup(ALICE)


def test_the_same_directory_may_be_behind(honest: Directory, pauses: Pauses) -> None:
    store = MemoryStateStore()
    client_of(honest, store).lookup(ALICE)
    with pytest.raises(UnavailableError, match="behind"):
        client_of(honest, store, behind(honest.handle), timeout=3).lookup(ALICE)
