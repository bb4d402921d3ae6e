"""A directory that shows two histories under one key: who trusted the first is told by exit code 5."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.client.trusted import Trusted
from tests.e2e.processes import Stranger, Up, running_up

pytestmark = pytest.mark.e2e

# Without a heartbeat: an epoch for each change, so that the number of heads is known.
QUIET = ("--min-interval", "0.1", "--max-interval", "600")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, first: Up) -> Iterator[Up]:
    """The same keys and the same settings over an event log of its own."""
    data = tmp_path_factory.mktemp("twin") / "data"
    shutil.copytree(first.data / "keys", data / "keys")
    shutil.copy(first.settings, data / "kt.toml")
    with running_up(data, *QUIET) as up:
        yield up


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("first") / "data", *QUIET) as up:
        yield up


def test_another_history_is_caught_and_the_evidence_named(first: Up, twin: Up, tmp_path: Path) -> None:
    stranger = first.stranger(tmp_path / "home")
    file = tmp_path / "key"
    file.write_bytes(b"a key")
    stranger.kt("keys", "generate")
    stranger.kt("put", "alice@example.org", "--key", file, "--type", "raw")
    trusted = Trusted.decode(next(stranger.state.rglob("trusted")).read_bytes())
    assert twin.vkey == first.vkey

    # The other side needs as many heads; somebody who never saw the first has nothing to hold against it.
    newcomer = twin.stranger(tmp_path / "newcomer")
    newcomer.kt("keys", "generate")
    newcomer.kt("put", "alice@example.org", "--key", file, "--type", "raw")
    newcomer.kt("get", "alice@example.org")

    # The same directory by another address: what is trusted is known by its key.
    stranger.environment["KT_SERVER"] = twin.url
    ran = stranger.kt("get", "alice@example.org", code=5)
    complaint, where = ran.err.splitlines()
    log = f"logs of {trusted.size} leaves under the name localhost/people/heads"
    sentence = f"the directory signed two different {log}"
    assert complaint == f"✗ consistency: {sentence}"
    evidence = Path(where.removeprefix("  the evidence is in ").removesuffix("; `kt verify` confirms it"))
    # What was trusted stays trusted, and a later look is refused as well, on the same evidence.
    assert Trusted.decode((evidence.parent.parent / "trusted").read_bytes()) == trusted
    for command in (("checkpoint",), ("epochs",), ("get", "nobody@example.org"), ("status",)):
        assert sentence in stranger.kt(*command, code=5).err
    assert len(list(evidence.parent.iterdir())) == 1

    # However far the other history goes on, and whichever side is served: what was proven stays proven.
    newcomer.kt("put", "bob@example.org", "--key", file, "--type", "raw")
    for server in (twin, first):
        stranger.environment["KT_SERVER"] = server.url
        refused = stranger.kt("get", "bob@example.org", "--timeout", "5", code=5)
        assert refused.err.startswith(f"✗ convicted: {sentence}")
        assert str(evidence) in refused.err

    # Anybody who knows the key is convinced, whichever of the two they saw, or neither.
    anybody = Stranger(tmp_path / "anybody")
    for who, options in ((anybody, ("--vkey", first.vkey)), (anybody, ()), (newcomer, ()), (stranger, ())):
        confirmed = who.kt("verify", evidence, *options, code=5)
        assert confirmed.out == f"{sentence}\n"
        assert "localhost/people" in confirmed.err


def test_the_evidence_is_printed_where_no_disk_takes_it(first: Up, twin: Up, tmp_path: Path) -> None:
    stranger = first.stranger(tmp_path / "home")
    stranger.kt("checkpoint")
    (trusted,) = stranger.state.rglob("trusted")
    (trusted.parent / "evidence").write_text("in the way")
    stranger.environment["KT_SERVER"] = twin.url
    ran = stranger.kt("checkpoint", code=5)
    saved = tmp_path / "terminal"
    saved.write_text(ran.err)
    assert "the evidence is in no file yet" in ran.err
    anybody = Stranger(tmp_path / "anybody")
    assert "two different" in anybody.kt("verify", saved, code=5).out
    # A program that reads the document alone has the evidence as well.
    error = json.loads(stranger.kt("--json", "checkpoint", code=5).out)["error"]
    saved.write_text(error["armored"])
    assert error["evidence"] is None
    assert "two different" in anybody.kt("verify", saved, code=5).out
