"""``kt export tiles`` beside a running directory, its files on a static web server, and who reads them there.

The reader in Go (``tests/go/tiles``) verifies with libraries that know nothing of kt-es. Go fetches their
modules through its proxy, once; where Go or the modules are missing, its test is skipped and says why.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.client.trusted import Pinned
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.notes import verifier_key
from kt_es.formats.queue import Record
from tests.builders import private_key
from tests.e2e.go_modules import fetch_modules, go
from tests.e2e.processes import Running, Stranger, Up, import_accounts, log_at, records_of, running_up, until
from tests.faults.full_disk import full_disk
from tests.reference.static_servers import web_server
from tests.reference.tile_reader import read_log

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
ACCOUNTS = 300
OWNER = private_key("exported")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("export")
    with running_up(folder / "data", "--min-interval", "0.1", "--max-interval", "600") as up:
        publish(up, folder / "state", "first", ACCOUNTS)
        yield up


def publish(up: Up, state: Path, prefix: str, count: int) -> None:
    names = [f"{prefix}{number}" for number in range(count)]
    with up.client(state) as client:
        report = import_accounts(client, names, OWNER, at=1, then=lambda: None)
    assert report.published == count


def export(up: Up, folder: Path, code: int = 0) -> Any:
    someone = up.stranger(folder.with_name("exporter"))
    words = ("--json", "-c", up.settings, "export", "tiles", folder, "--log", up.log_uri)
    return someone.kt(*words, code=code).document


def reader(folder: Path) -> tuple[str, list[bytes]]:
    return read_log(lambda name: (folder / name).read_bytes())


def test_what_is_exported_is_what_was_published(directory: Up, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    done = export(directory, folder)
    with log_at(directory.log_uri) as log:
        records = records_of(log)
    heads, leaves = reader(folder / "heads")
    mutations, entries = reader(folder / "mutations")
    assert [Record.decode(entry) for entry in entries] == records[: len(entries)]
    last = SignedMapHead.decode(leaves[-1]).head
    assert (last.epoch, last.log_size) == (len(leaves), len(entries)) == (done["epochs"], done["records"])
    assert len(entries) > ACCOUNTS
    for text, log_name in ((heads, "heads"), (mutations, "mutations")):
        assert text.startswith(f"{done['origin']}/{log_name}\n")
    # Nobody's label or profile stands in public files.
    public = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"first0@" not in public
    assert b"key of first" not in public
    publish(directory, tmp_path / "state", "second", 5)
    again = export(directory, folder)
    assert again["records"] >= done["records"] + 5
    assert reader(folder / "mutations")[1][: len(entries)] == entries


def test_it_goes_on_by_itself_and_ends_cleanly(directory: Up, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    where = ("-c", directory.settings, "export", "tiles", folder, "--log", directory.log_uri)
    process = Running(tmp_path / "export.log", *where, "--every", "0.2")
    try:
        until((folder / "heads" / "checkpoint").exists, "the first export")
        before = len(reader(folder / "mutations")[1])
        # A terminal that closes does not end it.
        process.process.send_signal(signal.SIGHUP)
        publish(directory, tmp_path / "state", "third", 5)
        until(lambda: len(reader_or_nothing(folder / "mutations")) >= before + 5, "the new records")
        assert process.stop(signal.SIGTERM) == 0, process.spoken
    finally:
        process.stop(signal.SIGKILL)
    assert "Traceback" not in process.spoken
    reader(folder / "heads")


def reader_or_nothing(folder: Path) -> list[bytes]:
    """The entries; none while the checkpoint that was read names files that a newer one has replaced."""
    try:
        return reader(folder)[1]
    except FileNotFoundError:
        return []


def test_a_full_disk_is_waited_for(directory: Up, tmp_path: Path) -> None:
    where = ("-c", directory.settings, "export", "tiles")
    with full_disk(tmp_path / "disk", 4) as disk:
        folder = disk.path / "public"
        folder.mkdir()
        disk.fill()
        process = Running(
            tmp_path / "export.log", *where, folder, "--log", directory.log_uri, "--every", "0.2"
        )
        try:
            process.wait_for_line("trying again")
            disk.free()
            until((folder / "heads" / "checkpoint").exists, "the export goes on")
            assert process.stop(signal.SIGTERM) == 0, process.spoken
        finally:
            process.stop(signal.SIGKILL)
        reader(folder / "mutations")


def test_another_folder_or_log_is_refused_in_one_line(directory: Up, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    export(directory, folder)
    path = folder / "heads" / "checkpoint"
    path.write_text(path.read_text().replace("localhost/people", "example.org/other"))
    problem = export(directory, folder, code=2)["error"]["problem"]
    assert (
        "is of the log example.org/other/heads, not of localhost/people/heads: name another folder" in problem
    )


@pytest.fixture(scope="module")
def go_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program ``tests/go/tiles``."""
    source = tmp_path_factory.mktemp("go") / "tiles"
    shutil.copytree(ROOT / "tests/go/tiles", source)
    fetch_modules(source)
    built = go(source, "build", "-o", "tiles", ".")
    assert built.returncode == 0, built.stderr
    return source / "tiles"


def run_reader(program: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == code, done.stderr
    return done


def digest_of(entries: list[bytes]) -> str:
    return hashlib.sha256(b"".join(len(entry).to_bytes(4) + entry for entry in entries)).hexdigest()


def test_a_reader_in_go_verifies_both_logs_over_http(directory: Up, tmp_path: Path, go_reader: Path) -> None:
    folder = tmp_path / "public"
    export(directory, folder)
    pinned = Pinned.parse(directory.vkey)
    for log in ("heads", "mutations"):
        # The front end itself serves the same.
        _, entries = reader(folder / log)
        vkey = verifier_key(f"{pinned.origin}/{log}", pinned.key.raw).encode()
        found = json.loads(run_reader(go_reader, f"{directory.url}/{log}", vkey, "1").stdout)
        assert (found["size"], found["entries"]) == (len(entries), digest_of(entries))
    with web_server(folder) as url:
        assert httpx.get(f"{url}/heads/checkpoint").text == (folder / "heads" / "checkpoint").read_text()
        for log in ("heads", "mutations"):
            _, entries = reader(folder / log)
            vkey = verifier_key(f"{pinned.origin}/{log}", pinned.key.raw).encode()
            older = max(1, len(entries) - 3)
            found = json.loads(run_reader(go_reader, f"{url}/{log}", vkey, str(older)).stdout)
            assert (found["size"], found["entries"]) == (len(entries), digest_of(entries))
            # One wrong byte of a tile or of an entry is found.
            for part in ("0", "entries"):
                path = next((folder / log / "tile" / part).rglob("[0-9]*"))
                path = path if path.is_file() else next(path.iterdir())
                data = path.read_bytes()
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
                run_reader(go_reader, f"{url}/{log}", vkey, str(older), code=1)
                path.write_bytes(data)
            other = verifier_key(f"{pinned.origin}/{log}", bytes(32)).encode()
            run_reader(go_reader, f"{url}/{log}", other, str(older), code=1)


def test_an_outsider_audits_and_watches_with_a_url_and_a_key(directory: Up, tmp_path: Path) -> None:
    folder, outsider = tmp_path / "public", Stranger(tmp_path / "outsider")
    export(directory, folder)
    vkey = ("--vkey", directory.vkey)
    by_log = directory.audit()
    with web_server(folder) as static:
        for url in (directory.url, static):
            found = outsider.kt("--json", "audit", "--from", url, *vkey, "--allow-gaps").document
            assert (found["records"], found["verdicts"]) == (by_log["records"], by_log["verdicts"])
            assert (found["map_root"], found["compared_with_queue"]) == (by_log["map_root"], 0)
        # From its own state, at whichever of the two.
        kept = ("audit", *vkey, "--data", tmp_path / "kept", "--allow-gaps", "--from")
        outsider.kt(*kept, directory.url)
        assert "and the log still holds that head; nothing new since" in outsider.kt(*kept, static).out
    where = ("monitor", "--from", directory.url, *vkey, "--interval", "0.1", "--data", tmp_path / "monitor")
    process = Running(tmp_path / "monitor.log", *where)
    try:
        process.wait_for_line(f'"records": {by_log["records"]}')
        publish(directory, tmp_path / "state", "watched", 5)
        process.wait_for_line(f'"epoch": {by_log["epoch"] + 1}')
        assert process.stop(signal.SIGTERM) == 0, process.spoken
    finally:
        process.stop(signal.SIGKILL)
    # What was verified from tiles goes on over the event log, and has no fault.
    log = ("--log", directory.log_uri)
    outsider.kt("audit", *log, *vkey, "--data", tmp_path / "monitor", "--allow-gaps")
    outsider.kt("-c", directory.settings, "fsck", tmp_path / "monitor", *log)


def test_options_that_do_not_fit_together_are_refused(directory: Up, tmp_path: Path) -> None:
    outsider = Stranger(tmp_path / "outsider")
    tiles = ("--from", directory.url, "--vkey", directory.vkey)
    for words, problem in (
        (("audit", *tiles, "--log", directory.log_uri), "--log does not go with --from"),
        (("audit", *tiles, "--queue"), "--queue does not go with --from: the queue is not public"),
        (("audit", *tiles, "--directory", "people"), "--directory does not go with --from"),
        (("audit", "--from", "localhost", "--vkey", directory.vkey), "must begin with http:// or https://"),
        (("monitor", "--interval", "1"), "--interval goes with --from only"),
        (("monitor", "--vkey", directory.vkey), "--vkey goes with --from only"),
        (("audit", *tiles[:2]), "kt.toml"),
    ):
        assert problem in outsider.kt(*words, code=2).err
    gone = outsider.kt("audit", "--from", f"{directory.url}/v1", *tiles[2:], "--patience", "0", code=7)
    assert "has no heads/checkpoint" in gone.complaint
