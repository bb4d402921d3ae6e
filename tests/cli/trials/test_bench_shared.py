"""``kt bench shared`` with few entries: a real node of Cassandra, real front ends, the real client."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from kt_es.cli.main import cli
from kt_es.cli.trials.bench_shared import MEMORY_LIMIT, READY_LIMIT, bench_shared
from kt_es.cli.trials.load import CONNECTIONS, constant_answer, measure
from kt_es.config.tables import Address
from kt_es.errors import ConfigError, KtError
from tests.reference.cassandra import ContactPoints

EACH = (
    *("from start to ready", "memory after the start", "memory after the lookups", "peak memory"),
    *("first lookups", "first lookup, p50", "first lookup, p99"),
    *("repeated lookups", "repeated lookup, p50", "repeated lookup, p99"),
    *("lookups of absent labels", "processor time of a repeated lookup", "pages read by a first find"),
    *("first find in the map", "repeated find in the map"),
)
"""What is measured of each kind of front end."""


def test_both_kinds_of_front_end_are_measured(
    cassandra: ContactPoints, keyspace: str, tmp_path: Path
) -> None:
    shared = f"cassandra://{cassandra.addresses[0]}:{cassandra.port}/{keyspace}"
    notes: list[str] = []
    rows = bench_shared(tmp_path, 400, shared, sample=30, absent=50, seconds=0.2, note=notes.append)
    found = {row.name: row for row in rows}
    assert set(found) == {
        *(f"{kind}: {name}" for kind in ("local", "thin") for name in EACH),
        *("load generator alone", "filling", "entries"),
    }
    assert found["entries"].value == 400
    # With 400 entries everything below the three levels that are read ahead is in leaf slots.
    assert all(row.value > 0 for row in rows if "pages read" not in row.name)
    assert found["thin: from start to ready"].limit == READY_LIMIT
    assert found["thin: peak memory"].limit == MEMORY_LIMIT
    assert found["thin: repeated lookups"].limit == pytest.approx(
        found["local: repeated lookups"].value / 2, rel=1e-3
    )
    assert [name for name in found if found[name].limit and name.startswith("local")] == []
    assert "400 of 400 entries are written" in notes


def test_a_keyspace_that_exists_is_refused(cassandra: ContactPoints, keyspace: str, tmp_path: Path) -> None:
    shared = f"cassandra://{cassandra.addresses[0]}:{cassandra.port}/{keyspace}"
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    bench_shared(tmp_path / "first", 2, shared, sample=1, absent=0, seconds=0.05)
    with pytest.raises(ConfigError, match=f"the keyspace {keyspace} exists"):
        bench_shared(tmp_path / "second", 2, shared, sample=1, absent=0, seconds=0.05)


def test_the_command_needs_a_shared_store() -> None:
    result = CliRunner().invoke(cli, ["bench", "shared"])
    assert isinstance(result.exception, ConfigError)
    assert "give --shared URI" in str(result.exception)


def test_the_load_generator_asks_each_request_once_or_for_some_time() -> None:
    with constant_answer(b"x" * 3_000) as where:
        once = measure(where, "/", [b"{}"] * 3 * CONNECTIONS)
        again = measure(where, "/", [b"{}"], 0.05)
    assert once.rate > 0
    assert again.rate > 0
    assert 0 < once.half <= once.most


def test_an_answer_that_is_a_refusal_ends_the_measurement() -> None:
    # The handler refuses every POST with 501.
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(KtError, match="501"):
                measure(Address(host="127.0.0.1", port=server.server_port), "/", [b"{}"])
        finally:
            server.shutdown()
            thread.join()
