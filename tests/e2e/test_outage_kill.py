"""Any one process is killed during an import: ``kt up`` starts it again, and the import completes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.builders import private_key
from tests.e2e.processes import Up, account, heads_of, import_accounts, log_at, until

pytestmark = pytest.mark.e2e

OWNER = private_key("owner of all")


@pytest.mark.parametrize("part", ["node", "signer", "frontend", "monitor"])
def test_the_import_completes(directory: Up, tmp_path: Path, part: str) -> None:
    names = [f"{part}{number}" for number in range(40)]
    victim = directory.pid(part)
    with directory.client(tmp_path / "client") as client:
        report = import_accounts(client, names, OWNER, at=15, then=lambda: os.kill(victim, signal.SIGKILL))
        assert (report.published, report.refused) == (len(names), [])
        directory.restarted(part, victim)
        assert f"{part} was ended by signal 9: starting it again" in directory.spoken
        for name in names:
            wanted = account(name)
            assert client.lookup(wanted.label).profile == wanted.profile
        last = client.head().head.epoch

    document = directory.audit()
    assert document["epochs"] >= last
    assert "conflict" not in document["verdicts"]
    with log_at(directory.log_uri) as log:
        assert len(heads_of(log)) >= last
    if part == "monitor":
        until(lambda: _monitored(directory) >= last, "the monitor has caught up")


def _monitored(directory: Up) -> int:
    """The last epoch that the monitor says it has verified."""
    lines = [json.loads(line) for line in directory.spoken.splitlines() if '"verified"' in line]
    return max(int(line["epoch"]) for line in lines)
