"""What a client keeps on disk: its trusted state and its keys."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
from kt_es.client.states import KeyStore
from kt_es.client.trusted import Pinned, Trusted, begin
from kt_es.errors import ConfigError
from kt_es.formats.heads import heads_origin
from kt_es.process.files import replace_file
from tests import builders as b

BEGUN = begin(Pinned(b.ORIGIN, b.SIGNER_KEY), [b.signed_config()])


def at(size: int) -> Trusted:
    return replace(BEGUN, checkpoint=b.checkpoint(heads_origin(b.ORIGIN), size))


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStore:
    return MemoryStateStore() if request.param == "memory" else FileStateStore(tmp_path / "a" / "b")


def test_only_who_has_read_the_state_replaces_it(store: StateStore) -> None:
    assert store.load() is None
    assert store.replace(None, BEGUN)
    assert not store.replace(None, at(9))
    assert store.replace(BEGUN, at(1))
    assert not store.replace(BEGUN, at(2))
    assert store.load() == at(1)


def test_of_many_at_once_one_wins(store: StateStore) -> None:
    assert store.replace(None, BEGUN)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda size: store.replace(BEGUN, at(size)), range(1, 17)))
    assert won.count(True) == 1
    assert store.load() == at(won.index(True) + 1)


def test_the_file_is_the_owners_alone_and_no_other_is_left(tmp_path: Path) -> None:
    store = FileStateStore(tmp_path / "state")
    store.replace(None, BEGUN)
    store.replace(BEGUN, at(1))
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "trusted").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["lock", "trusted"]


@pytest.mark.parametrize("damage", [b"", b"\x80", BEGUN.encode()[:-1], BEGUN.encode() + b"\0"])
def test_a_damaged_state_is_never_taken_for_none(tmp_path: Path, damage: bytes) -> None:
    store = FileStateStore(tmp_path)
    (tmp_path / "trusted").write_bytes(damage)
    with pytest.raises(ConfigError, match="damaged"):
        store.load()
    with pytest.raises(ConfigError, match="damaged"):
        store.replace(None, BEGUN)
    assert (tmp_path / "trusted").read_bytes() == damage


def test_a_state_directory_that_cannot_be_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FileStateStore(tmp_path / "file" / "state")
    with pytest.raises(ConfigError) as refused:
        store.replace(None, BEGUN)
    assert "\n" not in str(refused.value)


class TestMemory:
    def test_a_value_is_kept_by_kind_and_key(self, store: StateStore) -> None:
        assert store.recall("account", b"alice") is None
        store.remember("account", b"alice", b"1")
        store.remember("watch", b"alice", b"2")
        store.remember("account", b"alice", b"3")
        assert store.recall("account", b"alice") == b"3"
        assert store.recall("watch", b"alice") == b"2"
        assert store.recall("watch", b"bob") is None

    def test_only_who_has_read_a_value_exchanges_it(self, store: StateStore) -> None:
        assert not store.exchange("account", b"alice", b"0", b"1")
        assert store.exchange("account", b"alice", None, b"1")
        assert not store.exchange("account", b"alice", None, b"2")
        assert store.exchange("account", b"alice", b"1", b"2")
        assert store.recall("account", b"alice") == b"2"

    def test_of_many_exchanges_at_once_one_wins(self, store: StateStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            values = [bytes([number]) for number in range(16)]
            won = list(pool.map(lambda value: store.exchange("account", b"alice", None, value), values))
        assert won.count(True) == 1
        assert store.recall("account", b"alice") == values[won.index(True)]

    def test_processes_share_it(self, tmp_path: Path) -> None:
        """Each of four processes adds one to a counter until it has done so a hundred times."""
        program = (
            "import sys; from pathlib import Path; from kt_es.client.state import FileStateStore\n"
            "store = FileStateStore(Path(sys.argv[1])); done = 0\n"
            "while done < 100:\n"
            "    held = store.recall('own', b'n')\n"
            "    done += store.exchange('own', b'n', held, str(int(held or b'0') + 1).encode())\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path / "state")]
        running = [subprocess.Popen(command) for _ in range(4)]
        assert [process.wait() for process in running] == [0] * 4
        assert FileStateStore(tmp_path / "state").recall("own", b"n") == b"400"

    def test_another_store_of_the_same_directory_sees_it_at_once(self, tmp_path: Path) -> None:
        one, other = FileStateStore(tmp_path), FileStateStore(tmp_path)
        assert other.recall("own", b"") is None
        one.remember("own", b"", b"1")
        assert other.recall("own", b"") == b"1"

    def test_it_is_the_owners_alone(self, tmp_path: Path) -> None:
        store = FileStateStore(tmp_path / "state")
        store.remember("own", b"", b"1")
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        files = list((tmp_path / "state").iterdir())
        assert files
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    @pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_damaged_one_is_never_taken_for_an_empty_one(self, tmp_path: Path, damage: bytes) -> None:
        replace_file(tmp_path / "memory.db", damage)
        store = FileStateStore(tmp_path)
        with pytest.raises(ConfigError, match=r"memory\.db cannot be read"):
            store.recall("own", b"")
        with pytest.raises(ConfigError, match=r"memory\.db cannot be written"):
            store.remember("own", b"", b"1")

    def test_an_emptied_one_is_no_new_one(self, tmp_path: Path) -> None:
        FileStateStore(tmp_path).remember("own", b"", b"1")
        (tmp_path / "memory.db").write_bytes(b"")
        store = FileStateStore(tmp_path)
        with pytest.raises(ConfigError, match="has been emptied: put a copy in its place"):
            store.recall("own", b"")
        with pytest.raises(ConfigError, match="has been emptied"):
            store.remember("own", b"", b"2")
        assert (tmp_path / "memory.db").read_bytes() == b""

    def test_one_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        FileStateStore(tmp_path).remember("own", b"", b"1")
        (tmp_path / "memory.db").chmod(0o644)
        with pytest.raises(ConfigError, match=r"is open to other users \(mode 644\): chmod 600"):
            FileStateStore(tmp_path).recall("own", b"")

    def test_a_full_disk_can_still_be_read(self, tmp_path: Path) -> None:
        FileStateStore(tmp_path).remember("own", b"", b"1")
        program = (
            "import resource, sys; from pathlib import Path; from kt_es.client.state import FileStateStore\n"
            "from kt_es.errors import ConfigError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
            "store = FileStateStore(Path(sys.argv[1])); assert store.recall('own', b'') == b'1'\n"
            "try: store.remember('own', b'', b'2')\n"
            "except ConfigError: sys.exit(7)\n"
        )
        assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 7

    def test_a_planted_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "memory.db").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ConfigError, match="is not a regular file"):
            FileStateStore(tmp_path).remember("own", b"", b"1")
        assert not (tmp_path / "elsewhere").exists()


class TestEvidence:
    def test_the_same_bytes_are_one_file(self, tmp_path: Path) -> None:
        store = FileStateStore(tmp_path)
        first, again = store.save_evidence(b"evidence"), store.save_evidence(b"evidence")
        other = store.save_evidence(b"other evidence")
        assert first is not None
        assert first == again != other
        assert first.read_bytes() == b"evidence"
        assert first.stat().st_mode & 0o777 == 0o600
        assert len(list((tmp_path / "evidence").iterdir())) == 2

    def test_what_cannot_be_kept_is_no_error(self, tmp_path: Path) -> None:
        (tmp_path / "evidence").write_bytes(b"")
        assert FileStateStore(tmp_path).save_evidence(b"evidence") is None
        assert FileStateStore(tmp_path / "evidence" / "under a file").save_evidence(b"evidence") is None
        assert MemoryStateStore().save_evidence(b"evidence") is None


class TestKeyStore:
    def test_keys_are_kept_by_name(self, tmp_path: Path) -> None:
        store = KeyStore(tmp_path / "keys")
        assert store.list() == ()
        store.add("work", b.private_key("work"))
        store.add("alice@example.org", b.p256_key("home"))
        assert [key.name for key in store.list()] == ["alice@example.org", "work"]
        assert store.get("work").private == b.private_key("work")
        assert store.get("work").public == b.public(b.private_key("work"))
        message = b"message"
        assert store.get("work").private.sign(message) == b.private_key("work").sign(message)

    def test_they_are_the_owners_alone(self, tmp_path: Path) -> None:
        store = KeyStore(tmp_path / "keys")
        stored = store.add("work", b.private_key("work"))
        assert stored.path.stat().st_mode & 0o777 == 0o600
        assert stored.path.parent.stat().st_mode & 0o777 == 0o700
        assert [path.name for path in stored.path.parent.iterdir()] == ["work.pem"]

    def test_a_key_is_never_written_over(self, tmp_path: Path) -> None:
        store = KeyStore(tmp_path / "keys")
        store.add("work", b.private_key("work"))
        with pytest.raises(ConfigError, match="exists already"):
            store.add("work", b.private_key("other"))
        assert store.get("work").private == b.private_key("work")
        assert len(list((tmp_path / "keys").iterdir())) == 1

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", ".hidden", "a b", "a\n", "é"])
    def test_names_that_are_no_file_names_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match="cannot name a key"):
            KeyStore(tmp_path / "keys").add(name, b.private_key("work"))

    def test_keys_open_to_others_are_refused(self, tmp_path: Path) -> None:
        store = KeyStore(tmp_path / "keys")
        stored = store.add("work", b.private_key("work"))
        stored.path.chmod(0o640)
        with pytest.raises(ConfigError, match="chmod 600"):
            store.get("work")
        stored.path.chmod(0o600)
        (tmp_path / "keys").chmod(0o755)
        with pytest.raises(ConfigError, match="chmod 700"):
            store.list()

    @pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff" * 100])
    def test_what_is_no_key_is_named(self, tmp_path: Path, content: bytes) -> None:
        store = KeyStore(tmp_path / "keys")
        stored = store.add("work", b.private_key("work"))
        stored.path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be used"):
            store.get("work")

    def test_a_missing_one_too(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no key work"):
            KeyStore(tmp_path / "keys").get("work")
