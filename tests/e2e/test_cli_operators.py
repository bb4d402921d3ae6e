"""What operators and owners do beside publishing, with real processes: erasing."""

from __future__ import annotations

from pathlib import Path

from kt_es.formats.profiles import OPENING, OPENING_ERASED, Opening
from tests.e2e.processes import NAMES, Stranger, Up, log_at, until

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
        stranger.kt("put", ALICE, "--key", "key.raw")
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
    stranger.kt("put", ALICE, "--add", "key.raw")
    assert stranger.kt("--json", "history", ALICE).document["versions"][-1]["version"] == 4
    assert directory.audit()["epochs"] > 0
