"""Everything but the log is deleted: the same heads again, and everybody goes on trusting."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.builders import private_key
from tests.e2e.processes import NAMES, account, import_accounts, log_at, running_up, stream_of

pytestmark = pytest.mark.e2e

OWNER = private_key("owner of all")
NAMED = [f"kept{number}" for number in range(30)]


def test_deleted_data_directories_come_back_from_the_streams(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_up(data) as up:
        with up.client(tmp_path / "client") as client:
            report = import_accounts(client, NAMED, OWNER, at=10, then=lambda: None)
            assert report.published == len(NAMED)
            changed = account("changed")
            client.publish("kept0@example.org", changed.profile, [OWNER])
            trusted = client.trusted()
        before = up.audit()
        with log_at(up.log_uri) as log:
            heads = stream_of(log, NAMES.heads)
            records = stream_of(log, NAMES.mutations)
    for part in ("signer", "frontend", "monitor"):
        shutil.rmtree(data / part)

    with running_up(data) as up:
        with log_at(up.log_uri) as log:
            assert stream_of(log, NAMES.heads)[: len(heads)] == heads
            assert stream_of(log, NAMES.mutations)[: len(records)] == records
        with up.client(tmp_path / "client") as client:
            assert client.trusted() == trusted
            for name in NAMED[1:]:
                assert client.lookup(f"{name}@example.org").profile == account(name).profile
            assert client.lookup("nobody@example.org").absent
            versions = client.history("kept0@example.org").versions
            assert [version.number for version in versions] == [1, 2]
            later = client.publish("kept0@example.org", account("later").profile, [OWNER])
            assert later.lookup.entry is not None
            assert later.lookup.entry.version == 3
            assert client.trusted().size > trusted.size
        after = up.audit()
        assert after["entries"] == before["entries"]
        assert after["epochs"] > before["epochs"]
        assert after["verdicts"]["accepted"] == before["verdicts"]["accepted"] + 1


def test_one_lost_data_directory_is_enough_to_go_on(tmp_path: Path) -> None:
    """The signer has only the log of mutations and the queue left, the others what they had."""
    data = tmp_path / "data"
    with running_up(data) as up, up.client(tmp_path / "client") as client:
        client.publish("a@example.org", account("a").profile, [OWNER])
    shutil.rmtree(data / "signer")
    with running_up(data) as up, up.client(tmp_path / "client") as client:
        client.publish("b@example.org", account("b").profile, [OWNER])
        assert client.lookup("a@example.org").profile == account("a").profile
        assert up.audit()["entries"] == 2
