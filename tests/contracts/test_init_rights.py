"""``kt init --acl`` and ``kt status`` on a server with other tenants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from kt_es.cli.main import cli
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.rights import openings_acl
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.entries import OPENING
from tests.contracts.tenants import (
    ALL_RIGHTS,
    BOTH,
    EVERYTHING,
    NAMES,
    TENANT,
    Server,
    denials,
)


def init(server: Server, base: Path) -> Result:
    words = ["init", "--acl", "--data", str(base), "--log", server.uris["root"]]
    return CliRunner().invoke(cli, words)


@pytest.mark.parametrize("defaults", [EVERYTHING, BOTH], ids=["everything", "both"])
def test_init_leaves_the_defaults_of_others_alone(
    server: Server, tmp_path: Path, defaults: Mapping[str, object]
) -> None:
    before = server.set_defaults(defaults)
    assert init(server, tmp_path / "people").exit_code == 0
    event = server.log("root").last_event("$settings")
    assert event is not None
    assert (event.revision, event.data) == (0, before)


def test_init_does_not_make_defaults(server: Server, tmp_path: Path) -> None:
    assert init(server, tmp_path / "people").exit_code == 0
    assert server.log("root").last_event("$settings") is None


def test_init_fails_where_the_defaults_leave_front_ends_out(server: Server, tmp_path: Path) -> None:
    before = server.set_defaults(TENANT)
    result = init(server, tmp_path / "people")
    assert result.exit_code == 1
    for right in ("$w", "$mr", "$mw"):
        assert f"{NAMES.openings_prefix}*: {right} is granted to tenant, not frontend" in result.output
    root = server.log("root")
    event = root.last_event("$settings")
    assert event is not None
    assert event.data == before
    assert root.last_revision(NAMES.queue) == -1
    server.set_defaults(BOTH)
    assert init(server, tmp_path / "people").exit_code == 0
    assert root.last_revision(NAMES.queue) == 0


def test_init_fails_where_a_right_is_not_as_it_was_set(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = EsdbLog.set_metadata

    def careless(log: EsdbLog, stream: str, values: Mapping[str, Any], expected: int) -> None:
        """A server, or somebody else, that changes one right behind the back of ``kt init``."""
        put(log, stream, values, expected)
        if stream == NAMES.heads:
            put(log, stream, {"$acl": {**values["$acl"], "$w": ["eve"]}}, expected + 1)

    monkeypatch.setattr(EsdbLog, "set_metadata", careless)
    result = init(server, tmp_path / "people")
    assert result.exit_code == 1
    assert f"{NAMES.heads}: $w is granted to eve, not to signer" in result.output


def test_init_makes_openings_of_before_private(server: Server, tmp_path: Path) -> None:
    server.set_defaults(EVERYTHING)
    root, eve = server.log("root"), server.log("eve")
    old, gone = (NAMES.openings(bytes([n]) * 32) for n in (1, 2))
    for stream in (old, gone):
        root.append(stream, ANY, [content_event(stream, OPENING, b"x")])
    server.delete(gone)
    assert "$r" not in denials(eve, old)
    eve.set_metadata(old, {"$maxCount": 100}, root.metadata(old).revision)
    assert init(server, tmp_path / "people").exit_code == 0
    assert denials(eve, old) == ALL_RIGHTS
    assert root.metadata(old).values["$maxCount"] == 100
    # Whoever may write the metadata of a deleted stream brings its events back.
    assert list(root.read(gone)) == []
    assert denials(eve, gone) == ALL_RIGHTS


def test_init_passes_over_openings_that_are_deleted_for_good(server: Server, tmp_path: Path) -> None:
    root, gone = server.log("root"), NAMES.openings(bytes(32))
    root.append(gone, ANY, [content_event(gone, OPENING, b"x")])
    root._client.tombstone_stream(gone, current_version=0)
    assert init(server, tmp_path / "people").exit_code == 0


def status(server: Server, base: Path, user: str) -> tuple[dict[str, Any], str]:
    words = ["-c", str(base / "kt.toml"), "--json", "status", "--log", server.uris[user]]
    # The node in this process logs to standard output otherwise.
    with capture_logs():
        result = CliRunner().invoke(cli, words)
        shown = CliRunner().invoke(cli, [word for word in words if word != "--json"])
    return json.loads(result.stdout), shown.stdout


def test_status_shows_the_rights(server: Server, tmp_path: Path) -> None:
    base = tmp_path / "people"
    init(server, base)
    server.set_defaults(TENANT)
    document, shown = status(server, base, "root")
    assert document["rights"] == {
        "problems": [],
        "openings_readers": ["frontend"],
        "default_readers": ["tenant"],
    }
    assert "as kt init --acl sets them" in shown
    assert "streams without an ACL are read by: tenant" in shown
    server.set_acl(
        NAMES.heads,
        {**openings_acl(), "$r": ["signer", "frontend", "monitor"], "$mr": ["$all"], "$mw": ["$admins"]},
    )
    document, shown = status(server, base, "monitor")
    # It may read neither the metadata of $all nor the defaults.
    assert document["rights"] is None
    assert "the right $mr to $all is missing" in document["unknown"]["rights"]
    document, shown = status(server, base, "fe1")
    assert document["rights"]["default_readers"] is None
    assert "the right $r to $settings is missing" in document["unknown"]["default_rights"]
    assert document["rights"]["problems"] == [
        f"{NAMES.heads}: $w is granted to frontend, not to signer",
        f"{NAMES.heads}: $mr is granted to $all, not to signer, frontend, monitor",
    ]
    assert f"not as kt init --acl sets them: {NAMES.heads}: $w" in shown
