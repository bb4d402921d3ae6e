"""A client's state on a disk that is really full: what is there can be read, a change is refused as such."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.client.state import FileStateStore
from kt_es.client.states import KeyStore
from kt_es.errors import DiskFullError
from kt_es.process.files import create_file, replace_file
from tests.builders import private_key
from tests.faults.full_disk import FullDisk, full_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    with full_disk(tmp_path, 8) as made:
        yield made


@pytest.mark.parametrize("left", range(0, 65_536, 8192))
def test_a_memory_forgets_nothing_that_it_took(disk: FullDisk, left: int) -> None:
    store = FileStateStore(disk.path / "state")
    kept = {}
    disk.fill(leave=left)
    for number in range(30):
        key, data = b"%d" % number, bytes([number]) * 3000
        try:
            store.remember("own", key, data)
        except DiskFullError:
            break
        kept[key] = data
    else:
        raise AssertionError("it was never full")
    assert {key: store.recall("own", key) for key in kept} == kept
    del store
    another = FileStateStore(disk.path / "state")
    assert {key: another.recall("own", key) for key in kept} == kept
    disk.fill()
    assert another.save_evidence(b"evidence" * 1000) is None
    disk.free()
    another.remember("own", b"later", b"1")
    assert {key: another.recall("own", key) for key in (*kept, b"later")} == {**kept, b"later": b"1"}
    assert another.save_evidence(b"evidence" * 1000) is not None


def test_a_file_is_the_old_one_until_the_new_one_is_whole(disk: FullDisk) -> None:
    path = disk.path / "file"
    replace_file(path, b"old")
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, bytes(9000))
    with pytest.raises(OSError, match="No space left"):
        create_file(disk.path / "new", bytes(9000))
    assert path.read_bytes() == b"old"
    assert sorted(file.name for file in disk.path.iterdir()) == ["file", "filler"]
    disk.free()
    replace_file(path, bytes(9000))


def test_a_key_is_kept_whole_or_not_at_all(disk: FullDisk) -> None:
    keys = KeyStore(disk.path / "keys")
    disk.fill()
    with pytest.raises(DiskFullError, match="make room there"):
        keys.add("mine", private_key("mine"))
    assert keys.list() == ()
    disk.free()
    keys.add("mine", private_key("mine"))
    assert [key.name for key in keys.list()] == ["mine"]
