"""What operators and owners do beside publishing, with real processes: erasing, rotating, other intervals."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from kt_es.config.settings import dump_settings, load_settings
from kt_es.config.tables import SignerTable
from kt_es.formats.entries import OPENING, OPENING_ERASED, Opening
from tests.e2e.processes import NAMES, Running, Stranger, Up, heads_of, log_at, running_up, until

ALICE = "alice@example.org"


def openings(directory: Up) -> list[Opening]:
    """Every opening that stands in the log, with the profile in it."""
    found: list[Opening] = []
    with log_at(directory.log_uri) as log:
        for stream in log.stream_names(NAMES.openings_prefix):
            found += [Opening.decode(event.data) for event in log.read(stream) if event.type == OPENING]
    return found


def test_profiles_are_erased_by_their_owner_and_by_the_operator(
    directory: Up, stranger: Stranger, tmp_path: Path
) -> None:
    """Nobody is shown them any more, they leave the event log, and the account and its proofs stay."""
    stranger.kt("keys", "generate")
    for content in ("first", "second", "third"):
        (stranger.home / "key.raw").write_text(f"{content} secret of alice")
        stranger.kt("put", ALICE, "--key", "key.raw", "--type", "raw")
    first, second, third = openings(directory)

    erased = stranger.kt("--json", "erase", "--version", "2", ALICE).document
    assert erased["signed"]["reason"] == "owner"
    until(lambda: second not in openings(directory), "the second opening leaves the log")
    assert sorted(one.entry_hash for one in openings(directory)) == sorted(
        (first.entry_hash, third.entry_hash)
    )

    operator = Stranger(tmp_path / "operator")
    ran = operator.kt(
        "--json", "-c", directory.settings, "erase", "--operator", "--reason", "law", "--all", ALICE
    )
    assert ran.document["signed"]["versions"] == [1, 3]
    until(lambda: openings(directory) == [], "all openings leave the log")
    with log_at(directory.log_uri) as log:
        (stream,) = log.stream_names(NAMES.openings_prefix)
        assert {event.type for event in log.read(stream)} == {OPENING_ERASED}

    looked_up = stranger.kt("--json", "get", ALICE).document
    assert (looked_up["erased"], looked_up["keys"], looked_up["version"]) == (True, None, 3)
    assert any("by the operator, reason: law" in check for check in looked_up["checks"])
    stranger.kt("put", ALICE, "--add", "key.raw", "--type", "raw")
    assert stranger.kt("--json", "history", ALICE).document["versions"][-1]["version"] == 4
    assert directory.audit()["epochs"] > 0


def standby_of(directory: Up, base: Path) -> Path:
    """The ``kt.toml`` of another machine that has a copy of the signer's keys."""
    shutil.copytree(directory.data / "keys/signer", base / "keys/signer")
    settings = load_settings(directory.settings)
    changed = {"log": directory.log_uri, "base": base, "signer": SignerTable()}
    (base / "kt.toml").write_text(dump_settings(settings.model_copy(update=changed)))
    return base / "kt.toml"


def test_the_signer_key_is_rotated_beside_a_standby(
    directory: Up, stranger: Stranger, tmp_path: Path
) -> None:
    """Neither signer is started anew; the standby takes over under the new key; nobody is lost."""
    stranger.kt("keys", "generate")
    (stranger.home / "key.raw").write_text("of bob")
    stranger.kt("put", "bob@example.org", "--key", "key.raw", "--type", "raw")
    other = standby_of(directory, tmp_path / "other")
    standby = Running(tmp_path / "standby.log", "-c", other, "signer")
    try:
        standby.wait_for_line("standby")
        operator = Stranger(tmp_path / "operator")
        first = directory.pid("signer")
        ran = operator.kt("--json", "-c", directory.settings, "signer", "rotate", "--announce")
        (new,) = ran.document["announced"]
        folder = directory.data / "keys/signer"
        shutil.copy(folder / f"signer-{new}.pem", other.parent / "keys/signer")
        ran = operator.kt("--json", "-c", directory.settings, "signer", "rotate")
        assert ran.document["signer_key"] == new
        assert [path.name for path in folder.glob("*.pem")] == [f"signer-{new}.pem"]
        assert directory.pid("signer") == first

        # ``kt up`` starts its signer again, and the standby waits for the place: one of them gets it.
        while '"active"' not in standby.spoken:
            before = directory.pid("signer")
            os.kill(before, signal.SIGKILL)
            directory.restarted("signer", before)
        standby.wait_for_line('"epoch"')
        put = stranger.kt(
            "--json", "put", "bob@example.org", "--add", "key.raw", "--type", "raw", "--rotate-to", "default"
        )
        assert put.document["stands"]
        ran = operator.kt("--json", "-c", other, "signer", "rotate", "--retire")
        assert ran.document["retired"] == [str(other.parent / "keys/signer/retired/signer.pem")]
        assert "has no private key" not in standby.spoken + directory.spoken
        assert ran.document["key"] != directory.vkey
        newcomer = Stranger(tmp_path / "newcomer", KT_SERVER=directory.url, KT_VKEY=ran.document["key"])
        assert newcomer.kt("--json", "get", "bob@example.org").document["version"] == put.document["version"]
        assert directory.audit()["epochs"] >= put.document["epoch"]
    finally:
        assert standby.stop(signal.SIGTERM) == 0, standby.spoken


def test_other_intervals_take_effect_without_a_restart(directory: Up, tmp_path: Path) -> None:
    operator = Stranger(tmp_path / "operator")
    before = directory.pid("signer")
    ran = operator.kt("--json", "-c", directory.settings, "config", "set", "--max-interval", "2")
    assert ran.document["max_interval"] == 2000
    with log_at(directory.log_uri) as log:
        epoch = ran.document["epoch"]
        until(lambda: heads_of(log)[-1].epoch >= epoch + 3, "three heads under the new interval")
        hashes = {head.config_hash.hex() for head in heads_of(log)[epoch - 1 :]}
        assert hashes == {ran.document["hash"]}
    assert operator.kt("--json", "-c", directory.settings, "config", "show").document["max_interval"] == 2000
    assert directory.pid("signer") == before


def test_a_directory_starts_again_after_a_rotation(tmp_path: Path) -> None:
    """Its first signer key is put away, and ``kt.toml`` goes on naming it."""
    data = tmp_path / "data"
    operator = Stranger(tmp_path / "operator")
    with running_up(data) as up:
        key = operator.kt("--json", "-c", up.settings, "signer", "rotate").document["key"]
        assert key != up.vkey
    assert not (data / "keys/signer/signer.pem").exists()
    with running_up(data) as up:
        user = up.stranger(tmp_path / "user")
        user.kt("keys", "generate")
        (user.home / "key.raw").write_text("of carol")
        assert user.kt("--json", "put", "carol@example.org", "--key", "key.raw", "--type", "raw").document[
            "stands"
        ]
        for known in (key, up.vkey):
            someone = Stranger(tmp_path / "auditor")
            someone.kt("audit", "--vkey", known, "--log", up.log_uri, "--directory", "people", code=0)
