"""One state for each directory, whichever address and key led to it; and those of earlier versions go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.entries import KIND
from kt_es.client.states import States, address_of, file_name
from kt_es.client.trusted import Pinned, Trusted, begin
from kt_es.errors import ConfigError, EquivocationError, VerificationError
from kt_es.formats.codec import encode
from kt_es.formats.proofs import encode_configs
from kt_es.process.files import replace_file
from tests import builders as b
from tests.reference.clients import Handler
from tests.reference.directory import Directory, text

ALICE = b.label_of("alice")
PINNED = Pinned(b.ORIGIN, b.SIGNER_KEY)
SUCCESSOR = b.private_key("successor")
SERVER = "https://kt.example.org"


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    directory.advance()
    return directory


def client_at(
    root: Path,
    directory: Directory,
    server: str = SERVER,
    pinned: Pinned | None = None,
    handler: Handler | None = None,
    **options: Any,
) -> Client:
    """A client as the command line makes it."""
    state = States(root).at(server, pinned)
    return Client(
        server,
        state,
        origin=state.origin,
        pinned=pinned,
        transport=httpx.MockTransport(handler or directory.handle),
        now=lambda: directory.now,
        **options,
    )


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "origins").iterdir())


def test_a_key_that_was_given_and_first_use_share_one_state(directory: Directory, tmp_path: Path) -> None:
    client_at(tmp_path, directory).lookup(ALICE)
    client_at(tmp_path, directory, pinned=PINNED).lookup(ALICE)
    client_at(tmp_path, directory, "http://127.0.0.1:8080", PINNED).lookup(ALICE)
    assert folders(tmp_path) == ["kt.example.org%2Fpeople"]
    client = client_at(tmp_path, directory, "http://localhost:9000")
    lookup = client.lookup(ALICE)
    assert not client.on_first_use
    assert lookup.before is not None
    assert folders(tmp_path) == ["kt.example.org%2Fpeople"]


def test_a_key_that_a_rotation_leads_to_continues_the_state(directory: Directory, tmp_path: Path) -> None:
    client_at(tmp_path, directory, pinned=PINNED).lookup(ALICE)
    directory.rotate(SUCCESSOR)
    directory.advance()
    directory.advance()
    successor = Pinned(b.ORIGIN, b.public(SUCCESSOR))
    lookup = client_at(tmp_path, directory, pinned=successor).lookup(ALICE)
    assert "consistent with the 2 heads trusted before" in lookup.checks
    assert folders(tmp_path) == ["kt.example.org%2Fpeople"]


def test_a_key_of_another_directory_of_that_name_is_refused(directory: Directory, tmp_path: Path) -> None:
    client_at(tmp_path, directory).lookup(ALICE)
    stranger = Pinned(b.ORIGIN, b.public(b.private_key("stranger")))
    with pytest.raises(VerificationError, match="is none of those of"):
        client_at(tmp_path, directory, pinned=stranger).lookup(ALICE)


def of_another_origin(directory: Directory) -> Handler:
    """A server that says that it belongs to another directory."""
    configs = [b.signed_config(b.config(b.OTHER_ORIGIN))]

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/directory":
            return directory.handle(request)
        document = {"origin": b.OTHER_ORIGIN, "directory": "others", "label_policy": "email"}
        document["configs"] = text(encode_configs(configs))
        return httpx.Response(200, json=document)

    return handle


@pytest.mark.parametrize("pinned", [None, PINNED])
def test_a_server_does_not_become_another_directory(
    directory: Directory, tmp_path: Path, pinned: Pinned | None
) -> None:
    client_at(tmp_path, directory, pinned=pinned).lookup(ALICE)
    with pytest.raises(VerificationError, match=rf"^config: is for {b.OTHER_ORIGIN}, not for {b.ORIGIN}"):
        client_at(tmp_path, directory, pinned=pinned, handler=of_another_origin(directory)).directory()
    assert folders(tmp_path) == ["kt.example.org%2Fpeople"]


def test_another_directory_than_the_given_keys_is_refused(directory: Directory, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"^config:"):
        client_at(tmp_path, directory, pinned=PINNED, handler=of_another_origin(directory)).directory()
    assert not (tmp_path / "origins").exists()


def test_a_server_that_only_claims_a_known_directory_is_not_bound_to_it(
    directory: Directory, tmp_path: Path
) -> None:
    """Its chain is not the trusted one: nothing of it is remembered, the address least of all."""
    client_at(tmp_path, directory).lookup(ALICE)
    other = b.private_key("other")
    configs = [b.signed_config(b.config(signer_keys=[other]), [other])]

    def handle(request: httpx.Request) -> httpx.Response:
        document = {"origin": b.ORIGIN, "directory": "people", "label_policy": "email"}
        document["configs"] = text(encode_configs(configs))
        return httpx.Response(200, json=document)

    with pytest.raises(VerificationError, match=r"^config:"):
        client_at(tmp_path, directory, "https://elsewhere.test", handler=handle).directory()
    assert States(tmp_path).origin_of("https://elsewhere.test") is None


def test_which_server_is_whose_is_never_forgotten_in_silence(tmp_path: Path, directory: Directory) -> None:
    client_at(tmp_path, directory).head()
    (tmp_path / "servers.db").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"servers\.db has been emptied"):
        client_at(tmp_path, directory)


def test_addresses_are_remembered_without_passwords(directory: Directory, tmp_path: Path) -> None:
    client_at(tmp_path, directory, "https://user:secret@kt.example.org").lookup(ALICE)
    assert States(tmp_path).origin_of("https://kt.example.org") == b.ORIGIN
    for path in tmp_path.rglob("*"):
        assert "secret" not in path.name
        assert path.is_dir() or b"secret" not in path.read_bytes()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://KT.example.org", "https://kt.example.org"),
        ("https://kt.example.org/", "https://kt.example.org"),
        ("https://a:b@kt.example.org:8443/x/", "https://kt.example.org:8443/x"),
        ("https://kt.example.org/?token=secret#secret", "https://kt.example.org"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_the_address_of_a_url(url: str, address: str) -> None:
    assert address_of(url) == address


def test_no_two_origins_share_a_name() -> None:
    origins = [
        "kt.example.org/people",
        "kt.example.org_people",
        "kt.example.org/People",
        "kt.example.org/people/",
        "kt.example.org%2Fpeople",
        "kt.example.org:80/people",
        "a/..",
        "a/.",
        *(f"kt.example.org/{'x/' * 110}{n}" for n in range(3)),
        *(f"kt.example.org/{'x' * 230}{n}" for n in range(3)),
    ]
    names = [file_name(origin) for origin in origins]
    assert len({name.lower() for name in names}) == len(origins)
    assert all(len(name) <= 200 and "/" not in name and name not in (".", "..") for name in names)


class TestOlder:
    """States as kt-es 0.x kept them: a folder for each address and for each key."""

    BY_URL = "kt.example.org"
    BY_KEY = f"kt.example.org_people+{b.SIGNER_KEY.id.hex()}"

    def keep(self, root: Path, name: str, directory: Directory, size: int) -> Path:
        """A state of version 1 that trusts ``size`` heads."""
        folder = root / "directories" / name
        folder.mkdir(parents=True)
        key, configs = b.SIGNER_KEY.fields(), encode_configs(directory.configs)
        checkpoint = directory.heads_checkpoint(size)
        data = encode(["kt-es trusted v1", b.ORIGIN, key, configs, 0, checkpoint])
        replace_file(folder / "trusted", data)
        (folder / "lock").touch()
        return folder

    @pytest.mark.parametrize("pinned", [None, PINNED])
    @pytest.mark.parametrize("name", [BY_URL, BY_KEY])
    def test_each_is_found_and_moved(
        self, directory: Directory, tmp_path: Path, pinned: Pinned | None, name: str
    ) -> None:
        old = self.keep(tmp_path, name, directory, 1)
        client = client_at(tmp_path, directory, pinned=pinned)
        lookup = client.lookup(ALICE)
        assert "consistent with the 1 head trusted before" in lookup.checks
        assert not client.on_first_use
        assert not old.exists()
        assert folders(tmp_path) == ["kt.example.org%2Fpeople"]
        assert States(tmp_path).origin_of(SERVER) == b.ORIGIN

    def test_several_are_verified_against_each_other(self, directory: Directory, tmp_path: Path) -> None:
        kept = [
            self.keep(tmp_path, self.BY_URL, directory, 1),
            self.keep(tmp_path, self.BY_KEY, directory, 2),
        ]
        directory.advance()
        lookup = client_at(tmp_path, directory).lookup(ALICE)
        assert "consistent with the 2 heads trusted before" in lookup.checks
        assert not any(folder.exists() for folder in kept)

    def test_two_that_contradict_each_other_are_proof(self, directory: Directory, tmp_path: Path) -> None:
        fork = Directory()
        fork.advance()
        fork.advance()
        self.keep(tmp_path, self.BY_URL, directory, 2)
        self.keep(tmp_path, self.BY_KEY, fork, 2)
        with pytest.raises(EquivocationError, match="two different logs of 2 leaves") as found:
            client_at(tmp_path, directory).lookup(ALICE)
        assert found.value.saved is not None
        assert found.value.saved.parent == tmp_path / "origins" / "kt.example.org%2Fpeople" / "evidence"

    def test_one_that_is_left_from_before_meets_the_state_there_is(
        self, directory: Directory, tmp_path: Path
    ) -> None:
        client_at(tmp_path, directory).lookup(ALICE)
        old = self.keep(tmp_path, self.BY_KEY, directory, 1)
        assert client_at(tmp_path, directory, pinned=PINNED).lookup(ALICE).epoch == 2
        assert not old.exists()

    def test_its_evidence_stays_where_it_is(self, directory: Directory, tmp_path: Path) -> None:
        old = self.keep(tmp_path, self.BY_URL, directory, 1)
        (old / "evidence").mkdir()
        (old / "evidence" / "consistency-1.json").write_text("{}")
        client_at(tmp_path, directory).lookup(ALICE)
        assert [path.name for path in old.iterdir()] == ["evidence"]

    @pytest.mark.parametrize("name", [BY_URL, BY_KEY])
    def test_a_damaged_one_is_never_taken_for_none(
        self, directory: Directory, tmp_path: Path, name: str
    ) -> None:
        folder = self.keep(tmp_path, name, directory, 1)
        replace_file(folder / "trusted", b"\x80")
        with pytest.raises(ConfigError, match="damaged"):
            client_at(tmp_path, directory, pinned=PINNED)

    def test_one_of_another_directory_is_left_alone(self, directory: Directory, tmp_path: Path) -> None:
        folder = self.keep(tmp_path, "elsewhere", directory, 1)
        other = begin(Pinned(b.OTHER_ORIGIN, b.SIGNER_KEY), [b.signed_config(b.config(b.OTHER_ORIGIN))])
        replace_file(folder / "trusted", other.encode())
        client_at(tmp_path, directory).lookup(ALICE)
        assert Trusted.decode((folder / "trusted").read_bytes()) == other


def test_what_is_remembered_stands_beside_the_trusted_state(directory: Directory, tmp_path: Path) -> None:
    client_at(tmp_path, directory).lookup(ALICE)
    store = States(tmp_path).existing(b.ORIGIN)
    assert store is not None
    assert store.recall(KIND, b.index("alice")) is not None
    assert States(tmp_path).existing(b.OTHER_ORIGIN) is None


def test_a_state_that_nobody_stored_remembers_nothing(tmp_path: Path) -> None:
    state = States(tmp_path).at(SERVER, None)
    assert state.recall("own", b"") is None
    assert state.save_evidence(b"evidence") is None
    with pytest.raises(ConfigError, match="not known yet"):
        state.remember("own", b"", b"")
