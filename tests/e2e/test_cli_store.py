"""``kt store`` over a directory that ``kt up`` has run: what is pruned, and what its users get afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.processes import Stranger, running_up

pytestmark = pytest.mark.e2e

ALICE, BOB = "alice@example.org", "bob@example.org"
DATA = ("frontend", "signer", "monitor")


def test_pruned_data_serve_the_newest_epochs_and_refuse_older_ones(tmp_path: Path) -> None:
    data, operator = tmp_path / "data", Stranger(tmp_path / "operator")
    settings = ("--json", "-c", data / "kt.toml")
    with running_up(data) as up:
        user = up.stranger(tmp_path / "user")
        user.kt("keys", "generate")
        for content in ("first", "second", "third"):
            (user.home / "key.raw").write_text(f"{content} key")
            user.kt("put", ALICE, "--key", "key.raw", "--type", "raw")
        known = [version["epoch"] for version in user.kt("--json", "history", ALICE).document["versions"]]
        in_use = operator.kt(*settings, "store", "prune", data / "frontend", "--keep", "1", code=1)
        assert "in use" in in_use.err
        assert operator.kt(*settings, "store", "check", data / "frontend").document["problems"] == []

    pruned = {
        name: operator.kt(*settings, "store", "prune", data / name, "--keep", "1").document for name in DATA
    }
    oldest = pruned["frontend"]["oldest"]
    assert pruned["frontend"]["deleted"] > 0
    for name in DATA:
        checked = operator.kt(*settings, "store", "check", data / name).document
        assert (checked["epoch"], checked["problems"]) == (pruned[name]["newest"], [])
        assert operator.kt("-c", data / "kt.toml", "fsck", data / name).code == 0

    with running_up(data) as up:
        user.environment["KT_SERVER"] = up.url
        (user.home / "key.raw").write_text("fourth key")
        stands = user.kt("--json", "put", ALICE, "--key", "key.raw", "--type", "raw").document
        assert stands["stands"]
        looked_up = user.kt("--json", "get", ALICE).document
        assert looked_up["version"] == 4
        assert user.kt("--json", "get", ALICE, "--epoch", str(oldest)).document["version"] == 3
        refused = user.kt("get", ALICE, "--epoch", str(known[0]), code=1)
        assert refused.complaint == (
            f"pruned-epoch: the map of epoch {known[0]} is not kept here any more, "
            f"only those from epoch {oldest} on; ask a front end that keeps more epochs"
        )
        # Who has verified the first versions before needs no proof of them again.
        assert len(user.kt("--json", "history", ALICE).document["versions"]) == 4
        newcomer = up.stranger(tmp_path / "newcomer")
        assert "pruned-epoch: the map of epoch" in newcomer.kt("history", ALICE, code=1).complaint
        assert newcomer.kt("get", BOB, code=3)
        assert up.audit()["epochs"] >= looked_up["epoch"]
