"""What the storage on disk says when its directory is taken, unusable or damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.errors import ConfigError, DivergenceError, KtError, LockedError
from kt_es.ledger.pages import PageTable
from kt_es.ledger.rocks import RocksStore

FAMILIES = ("pages", "meta")

HOLD = """
import sys
from pathlib import Path
from kt_es.ledger.rocks import RocksStore
store = RocksStore.open(Path(sys.argv[1]), ("pages", "meta"))
store.write([("meta", b"synced", b"1")])
store.write([("meta", b"unsynced", b"2")], sync=False)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_second_process_is_told_so(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LockedError, match="in use by another process"):
        RocksStore.open(tmp_path / "data", FAMILIES)


def test_what_was_written_survives_sigkill(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    store = RocksStore.open(tmp_path / "data", FAMILIES)
    assert store.get_many("meta", [b"synced", b"unsynced"]) == [b"1", b"2"]
    store.close()


def test_close_releases_the_directory_even_with_a_scan_left_open(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path, FAMILIES)
    store.write([("meta", b"a", b"1"), ("meta", b"b", b"2")])
    left_open = store.scan("meta")
    assert next(left_open) == (b"a", b"1")
    pages = PageTable(store)
    store.close()
    again = RocksStore.open(tmp_path, (*FAMILIES, "new"))
    assert again.get("meta", b"b") == b"2"
    assert again.get("new", b"b") is None
    again.close()
    with pytest.raises(ValueError, match="closed"):
        pages.get_many([b"a"])


def test_an_unusable_directory_is_a_matter_of_configuration(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for directory in (file, file / "below"):
        with pytest.raises(ConfigError, match="cannot be used as a data directory"):
            RocksStore.open(directory, FAMILIES)


def test_a_family_left_out_is_refused(tmp_path: Path) -> None:
    RocksStore.open(tmp_path, FAMILIES).close()
    with pytest.raises(ConfigError, match="meta"):
        RocksStore.open(tmp_path, ("pages",))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def largest(directory: Path, pattern: str) -> Path:
    return max(directory.glob(pattern), key=lambda path: path.stat().st_size)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    store = RocksStore.open(tmp_path, FAMILIES)
    store.write([("pages", n.to_bytes(4), n.to_bytes(4) * 50) for n in range(2000)])
    store.compact()
    store.close()
    return tmp_path


def test_a_changed_byte_in_a_table_is_divergence(written: Path) -> None:
    flip(largest(written, "*.sst"), 10)
    store = RocksStore.open(written, FAMILIES)
    with pytest.raises(DivergenceError, match="damaged"):
        store.get("pages", (0).to_bytes(4))
    with pytest.raises(DivergenceError, match="damaged"):
        store.get_many("pages", [(0).to_bytes(4)])
    with pytest.raises(DivergenceError, match="damaged"):
        list(store.scan("pages"))
    store.close()


def test_a_missing_table_is_divergence(written: Path) -> None:
    largest(written, "*.sst").unlink()
    with pytest.raises(DivergenceError, match="damaged"):
        RocksStore.open(written, FAMILIES)


def test_a_changed_byte_in_the_manifest_is_divergence(written: Path) -> None:
    flip(largest(written, "MANIFEST-*"), 10)
    with pytest.raises(DivergenceError, match="damaged"):
        RocksStore.open(written, FAMILIES)


def test_a_changed_byte_in_the_write_ahead_log_is_divergence(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    flip(largest(tmp_path / "data", "*.log"), 10)
    with pytest.raises(DivergenceError, match="damaged"):
        RocksStore.open(tmp_path / "data", FAMILIES)


def test_a_torn_end_of_the_write_ahead_log_is_left_out(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    journal = largest(tmp_path / "data", "*.log")
    journal.write_bytes(journal.read_bytes()[:-1])
    with_torn_end = RocksStore.open(tmp_path / "data", FAMILIES)
    assert with_torn_end.get_many("meta", [b"synced", b"unsynced"]) == [b"1", None]
    with_torn_end.close()


def test_a_view_shows_what_was_there_and_writes_nothing(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    view = RocksStore.view(tmp_path / "data", FAMILIES)
    assert view.get_many("meta", [b"synced", b"unsynced"]) == [b"1", b"2"]
    with pytest.raises(KtError, match="read only"):
        view.write([("meta", b"more", b"3")])
    view.close()


def test_a_view_does_not_see_what_is_written_later(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path, FAMILIES)
    store.write([("pages", n.to_bytes(4), b"before" * 20) for n in range(3000)])
    view = RocksStore.view(tmp_path, FAMILIES)
    store.write([("pages", n.to_bytes(4), b"after" * 20) for n in range(3000)])
    store.compact()
    assert {value for _, value in view.scan("pages")} == {b"before" * 20}
    view.close()
    store.close()


def test_a_view_of_nothing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no data directory"):
        RocksStore.view(tmp_path / "none", FAMILIES)
    assert list(tmp_path.iterdir()) == []
