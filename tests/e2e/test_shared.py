"""A directory over one node of Cassandra: thin front ends, standby signers, the operator's commands, lies."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.config.tables import NodeTable
from kt_es.merkle.pages import decode_page, encode_page
from tests.builders import private_key
from tests.e2e.processes import ORIGIN, Running, Stranger, account, import_accounts, running_up, until
from tests.e2e.sharing import (
    WRONG,
    FrontEnd,
    Rows,
    SharedDirectory,
    all_there,
    rows_of,
    share,
    shared_directory,
)
from tests.reference.cassandra import ContactPoints, connected

pytestmark = pytest.mark.e2e

OWNER = private_key("owner of all")
NOBODY = "nobody@example.org"
NAMES = [f"user{number}" for number in range(60)]


@pytest.fixture(scope="module")
def directory(
    cassandra: ContactPoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedDirectory]:
    keyspace = f"kt_{secrets.token_hex(8)}"
    with shared_directory(
        tmp_path_factory.mktemp("shared"), cassandra.addresses, cassandra.port, keyspace
    ) as made:
        yield made
    with connected(cassandra.addresses, cassandra.port) as session:
        session.execute(f"DROP KEYSPACE IF EXISTS {keyspace}")


@pytest.fixture(scope="module")
def signer(directory: SharedDirectory) -> Running:
    running = directory.signer("signer")
    running.wait_for_line('"active"')
    return running


@pytest.fixture(scope="module")
def front(directory: SharedDirectory, signer: Running) -> FrontEnd:
    """A front end that could not write anything if it wanted to: its directory is below a file."""
    (directory.base / "file").write_text("")
    front = directory.frontend("front", directory.base / "file" / "front")
    until(front.is_ready, "the front end is ready")
    return front


@pytest.fixture(scope="module")
def filled(front: FrontEnd, directory: SharedDirectory) -> FrontEnd:
    """Sixty accounts, published through a front end without a disk."""
    with front.client(directory.base / "client") as client:
        report = import_accounts(client, NAMES, OWNER, at=0, then=lambda: None)
    assert (report.published, report.refused) == (len(NAMES), [])
    return front


def put(someone: Stranger, label: str, content: str) -> None:
    (someone.home / "key.raw").write_text(content)
    someone.kt("put", label, "--key", "key.raw", "--type", "raw")


def test_people_use_a_thin_front_end_as_any_other(filled: FrontEnd, tmp_path: Path) -> None:
    owner, label = filled.stranger(tmp_path / "owner"), "alice@example.org"
    owner.kt("keys", "generate")
    for content in ("first", "second", "third"):
        put(owner, label, content)
    assert owner.kt("--json", "get", label).document["version"] == 3
    versions = owner.kt("--json", "history", label).document["versions"]
    assert [version["version"] for version in versions] == [1, 2, 3]
    before = owner.kt("--json", "get", label, "--epoch", str(versions[1]["epoch"])).document
    assert before["version"] == 2
    assert "yours" in owner.kt("watch", "--once", label).err
    owner.kt("erase", "--all", label)
    friend = filled.stranger(tmp_path / "friend")
    looked_up = friend.kt("--json", "get", label).document
    assert (looked_up["erased"], looked_up["version"]) == (True, 3)
    assert friend.kt("--json", "get", "nobody@example.org", code=3).document["absent"]


def test_a_front_end_that_starts_later_has_everything(
    filled: FrontEnd, directory: SharedDirectory, tmp_path: Path
) -> None:
    late = directory.frontend("late")
    until(late.is_ready, "the late front end is ready")
    all_there(late, tmp_path / "client", NAMES)
    assert not (directory.base / "late").exists()
    late.running.stop(signal.SIGKILL)
    all_there(directory.frontend("late"), tmp_path / "client", NAMES)


def test_a_standby_takes_over_without_a_replay(
    filled: FrontEnd, directory: SharedDirectory, signer: Running, tmp_path: Path
) -> None:
    standby = directory.signer("standby")
    standby.wait_for_line('"standby"')
    names = [f"standby{number}" for number in range(20)]
    with filled.client(tmp_path / "client") as client:
        killed = signer.process.pid
        report = import_accounts(client, names, OWNER, at=8, then=lambda: os.kill(killed, signal.SIGKILL))
    assert (report.published, report.refused) == (len(names), [])
    standby.wait_for_line('"active"')
    assert '"records": 0' in standby.wait_for_line('"recovered"')
    # The one that was killed is the standby from now on, and wakes up as a zombie after it was frozen.
    back = directory.signer("signer")
    back.wait_for_line('"standby"')
    os.kill(standby.process.pid, signal.SIGSTOP)
    try:
        back.wait_for_line('"active"', 90)
        put_by(filled, tmp_path / "owner", "bob@example.org")
    finally:
        os.kill(standby.process.pid, signal.SIGCONT)
    put_by(filled, tmp_path / "owner", "carol@example.org")
    until(lambda: '"standby"' in standby.spoken or standby.process.poll() is not None, "it gave way")
    put_by(filled, tmp_path / "owner", "dora@example.org")
    standby.stop(signal.SIGKILL)
    assert directory.kt("store", "check")["problems"] == []


def put_by(front: FrontEnd, home: Path, label: str) -> None:
    owner = front.stranger(home)
    if not (home / "data").exists():
        owner.kt("keys", "generate")
    put(owner, label, label)


def test_what_the_shared_store_lost_is_built_again_and_old_epochs_are_pruned(
    filled: FrontEnd, directory: SharedDirectory, tmp_path: Path
) -> None:
    all_there(filled, tmp_path / "client", NAMES)
    owner = filled.stranger(tmp_path / "owner")
    put_by(filled, tmp_path / "owner", "erin@example.org")
    first = owner.kt("--json", "history", "erin@example.org").document["versions"][0]["epoch"]
    put(owner, "erin@example.org", "another")
    checked = directory.kt("store", "check")
    assert checked["problems"] == []

    with rows_of(directory) as rows:
        rows.empty()
        assert rows.read("pages") == {}
    rebuilt = directory.kt("store", "rebuild")
    assert rebuilt["entries"] >= len(NAMES)
    assert directory.kt("store", "check")["problems"] == []
    put(owner, "erin@example.org", "a third")
    again = directory.frontend("again")
    all_there(again, tmp_path / "client", NAMES)
    again.running.stop()

    pruned = directory.kt("store", "prune", "--keep", "1")
    assert pruned["deleted"] > 0
    put(owner, "erin@example.org", "a fourth")
    refused = filled.stranger(tmp_path / "other").kt("get", "erin@example.org", "--epoch", str(first), code=1)
    assert refused.complaint.startswith(f"pruned-epoch: the map of epoch {first} is not kept here any more")
    assert owner.kt("--json", "get", "erin@example.org").document["version"] == 4
    all_there(filled, tmp_path / "client", NAMES)
    assert directory.kt("store", "check")["problems"] == []
    # Deleted rows cannot be written again.
    directory.kt("store", "rebuild", code=2)


def test_monitor_and_audit_stay_local_and_agree(
    filled: FrontEnd, directory: SharedDirectory, tmp_path: Path
) -> None:
    monitor = directory.run(
        "monitor", "-c", directory.settings, "monitor", "--log", directory.uri, "--data", tmp_path / "monitor"
    )
    monitor.wait_for_line('"verified"')
    audited = directory.kt("audit", "--allow-gaps")
    assert audited["compared_with_queue"] == audited["records"]
    with filled.client(tmp_path / "client") as client:
        assert client.head().head.epoch >= audited["epochs"]
    assert monitor.stop() == 0
    directory.kt("fsck", tmp_path / "monitor")


def forged(rows: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """Every page below the root with another content and a right checksum."""
    changed: dict[bytes, bytes | None] = {}
    for key, value in rows.items():
        if key[0] > 0:
            slots = [slot and bytes([slot[0], slot[1] ^ 1]) + slot[2:] for slot in decode_page(key, value)]
            changed[key] = encode_page(key, slots)
    return changed


def lies(rows: Rows) -> dict[str, tuple[str, dict[bytes, bytes | None]]]:
    """What an administrator of the store may change: the family, and the rows with their new values."""
    pages, entries, nodes = (rows.read(family) for family in ("pages", "entries", "nodes"))
    return {
        "forged pages": ("pages", forged(pages)),
        "deleted pages": ("pages", dict.fromkeys((key for key in pages if key[0] > 0), None)),
        "damaged entries": ("entries", {key: value[::-1] for key, value in entries.items()}),
        "wrong nodes": ("nodes", dict.fromkeys(nodes, bytes(32))),
    }


@pytest.mark.parametrize("name", ["forged pages", "deleted pages", "damaged entries", "wrong nodes"])
def test_no_front_end_answers_from_a_lie(
    name: str, filled: FrontEnd, directory: SharedDirectory, tmp_path: Path
) -> None:
    with rows_of(directory) as rows:
        family, changed = lies(rows)[name]
        before = rows.read(family)
        rows.write(family, changed)
        try:
            deceived = directory.frontend("deceived")
            until(lambda: deceived.lookup(NOBODY).json().get("detail") in (None, WRONG), "it has an epoch")
            answers = [deceived.lookup(f"{one}@example.org") for one in NAMES]
            assert {answer.status_code for answer in answers} <= {200, 503}
            assert {answer.json()["detail"] for answer in answers if answer.status_code == 503} == {WRONG}
        finally:
            rows.write(family, {key: before[key] for key in changed})
        all_there(deceived, tmp_path / "client", NAMES)
        deceived.running.stop()


def test_kt_up_runs_a_directory_over_a_shared_store(
    cassandra: ContactPoints, keyspace: str, tmp_path: Path
) -> None:
    data, operator = tmp_path / "data", Stranger(tmp_path / "operator")
    log = f"esdb://{NodeTable().listen}?Tls=false"
    write_directory(data, NewDirectory("people", ORIGIN, log, "email", 0.2, 5.0))
    address = f"cassandra://{cassandra.addresses[0]}:{cassandra.port}/{keyspace}"
    share(operator, data / "kt.toml", address, 1)
    names = [f"up{number}" for number in range(30)]
    with running_up(data) as up, up.client(tmp_path / "client") as client:
        for part, some in (("signer", names[:15]), ("frontend", names[15:])):
            victim = up.pid(part)
            kill = partial(os.kill, victim, signal.SIGKILL)
            report = import_accounts(client, some, OWNER, at=5, then=kill)
            assert (report.published, report.refused) == (len(some), [])
            up.restarted(part, victim)
        for name in names:
            wanted = account(name)
            assert client.lookup(wanted.label).profile == wanted.profile
        assert up.audit()["entries"] == len(names)
        assert operator.kt("-c", data / "kt.toml", "store", "check", "--log", up.log_uri).code == 0
    assert not list((data / "frontend").glob("*.sst"))


def test_every_message_is_fit_to_be_read(filled: FrontEnd, directory: SharedDirectory) -> None:
    assert "Traceback" not in directory.spoken
