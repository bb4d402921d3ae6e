"""The start of a thin front end, which writes only evidence to its data directory."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.ledger.stores import Sharing
from kt_es.process.files import replace_file
from projections.frontend import FrontendSettings, serve
from tests import builders as b
from tests.reference.doors import refused_port

UNSAVABLE = "evidence cannot be saved here"


def started(folder: Path, data: Path) -> list[MutableMapping[str, Any]]:
    """What a front end over a store and a log that cannot be reached logs until it listens."""
    pytest.importorskip("cassandra", reason="the extra shared is not installed")
    key = folder / "vrf.pem"
    replace_file(key, b.private_key("vrf").to_pem())
    stop = threading.Event()
    with refused_port() as port, capture_logs() as said:
        sharing = Sharing(CassandraSettings(("127.0.0.1",), "kt_people", port), b.ORIGIN, 1 << 20)
        settings = FrontendSettings(
            b.ORIGIN, "people", b.SIGNER_KEY, f"esdb://127.0.0.1:{port}?Tls=false", data, key, port=0,
            sharing=sharing,
        )  # fmt: skip
        serve(settings, stop, on_ready=lambda _: stop.set())
    return [line for line in said if line["event"] == UNSAVABLE]


def test_a_front_end_that_could_not_keep_evidence_says_so_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (line,) = started(tmp_path, tmp_path / "file" / "frontend")
    assert line["folder"] == str(tmp_path / "file" / "frontend")
    assert line["problem"] == "Not a directory"
    assert "make the folder writable" in line["mend"]


def test_a_front_end_that_can_keep_evidence_says_nothing(tmp_path: Path) -> None:
    assert started(tmp_path, tmp_path / "new" / "frontend") == []
    assert not (tmp_path / "new").exists()
    (tmp_path / "new" / "frontend" / "evidence").mkdir(parents=True)
    assert started(tmp_path, tmp_path / "new" / "frontend") == []
