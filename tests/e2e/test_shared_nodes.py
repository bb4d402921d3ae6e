"""A directory over three nodes of Cassandra that are killed under load: nothing is lost, and all goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from kt_es.ledger.cassandra_settings import CassandraSettings
from tests.builders import private_key
from tests.e2e.processes import Running, account, import_accounts, until
from tests.e2e.sharing import AWAY, FrontEnd, SharedDirectory, all_there, shared_directory
from tools.cassandra import Cluster

pytestmark = pytest.mark.e2e

OWNER = private_key("owner of all")
PATIENCE = 240.0
"""Seconds that a submission, and a wait in a test, may take while nodes start beside it."""


@pytest.fixture(scope="module")
def directory(three_nodes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedDirectory]:
    base = tmp_path_factory.mktemp("shared")
    with shared_directory(base, three_nodes.addresses, three_nodes.port, "kt_people", 3) as made:
        yield made


@pytest.fixture(scope="module")
def signer(directory: SharedDirectory) -> Running:
    running = directory.signer("signer")
    running.wait_for_line('"active"', PATIENCE)
    return running


@pytest.fixture(scope="module")
def front(directory: SharedDirectory, signer: Running) -> FrontEnd:
    front = directory.frontend("front")
    until(front.is_ready, "the front end is ready", PATIENCE)
    return front


def publish(front: FrontEnd, state: Path, names: Sequence[str], *, at: int, then: object = None) -> None:
    """Publish an account for each name; nothing may be refused, whatever happens at number ``at``."""
    with front.client(state) as client:
        step = then if callable(then) else lambda: None
        report = import_accounts(client, names, OWNER, at=at, then=step, patience=PATIENCE)
    assert (report.published, report.refused) == (len(names), [])


def test_a_node_that_hangs_is_not_waited_for(
    three_nodes: Cluster, directory: SharedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kt_es.ledger import cassandra_session
    from kt_es.ledger.cassandra import CassandraStore
    from kt_es.ledger.cassandra_schema import create_schema

    # Nothing but the second node ends the wait in time, and no failure is tried again.
    for name in ("REQUEST", "HEARTBEAT"):
        monkeypatch.setattr(cassandra_session, name, PATIENCE)
    settings = CassandraSettings(tuple(three_nodes.addresses), "kt_hangs", three_nodes.port)
    create_schema(settings, 3)
    rows = [("pages", b"%d" % number, b"page") for number in range(30)]
    with closing(CassandraStore.connect(settings, patience=-1)) as store:
        store.write(rows)
        assert store.get("pages", b"0") == b"page"
        first, *_ = three_nodes.nodes
        first.freeze()
        try:
            for row in rows:
                store.write([row])
                assert store.get("pages", row[1]) == b"page"
        finally:
            first.thaw()
            three_nodes.wait()


def test_one_node_is_killed_in_the_middle_of_an_epoch_and_returns(
    three_nodes: Cluster, directory: SharedDirectory, front: FrontEnd, tmp_path: Path
) -> None:
    first, second, third = three_nodes.nodes
    before, during, after = ([f"{part}{number}" for number in range(90)] for part in ("a", "b", "c"))
    publish(front, tmp_path / "client", before, at=45, then=second.kill)
    publish(front, tmp_path / "client", during, at=0)
    all_there(front, tmp_path / "client", [*before, *during])
    cold = directory.frontend("cold")
    all_there(cold, tmp_path / "cold", [*before, *during])

    # It returns in the middle of an epoch and lacks rows, and one that has them goes.
    publish(front, tmp_path / "client", after, at=45, then=second.start)
    three_nodes.wait()
    third.kill()
    late = directory.frontend("late")
    until(late.is_ready, "the late front end is ready", PATIENCE)
    all_there(late, tmp_path / "late", [*before, *during, *after])
    assert directory.kt("store", "check")["problems"] == []
    three_nodes.start()
    assert first.runs
    assert directory.kt("audit", "--allow-gaps")["entries"] == len([*before, *during, *after])


def test_with_two_of_three_down_the_signer_waits_and_lookups_of_known_rows_go_on(
    three_nodes: Cluster, directory: SharedDirectory, front: FrontEnd, signer: Running, tmp_path: Path
) -> None:
    names = [f"d{number}" for number in range(20)]
    publish(front, tmp_path / "client", names, at=0)
    all_there(front, tmp_path / "client", names)
    outages = signer.spoken.count("the shared store cannot be used")
    for node in three_nodes.nodes[1:]:
        node.kill()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(publish, front, tmp_path / "other", ["waits"], at=0)
        until(
            lambda: signer.spoken.count("the shared store cannot be used") > outages,
            "the signer waits for its store",
            PATIENCE,
        )
        assert signer.process.poll() is None
        for name in names:
            answer = front.lookup(account(name).label)
            assert answer.status_code == 200, answer.text
        refused = front.post("/v1/history", {"label": account(names[0]).label})
        assert (refused.status_code, refused.json()["detail"]) == (503, AWAY)
        assert not front.is_ready()
        three_nodes.start()
        waiting.result()
    signer.wait_for_line("the shared store can be used again", PATIENCE)
    until(front.is_ready, "the front end is ready again", PATIENCE)
    all_there(front, tmp_path / "client", [*names, "waits"])
    assert "Traceback" not in directory.spoken


def test_a_front_end_that_starts_without_its_store_becomes_ready_by_itself(
    three_nodes: Cluster, directory: SharedDirectory, front: FrontEnd
) -> None:
    for node in three_nodes.nodes:
        node.kill()
    early = directory.frontend("early")
    assert httpx.get(f"{early.url}/healthz", timeout=120).status_code == 200
    until(lambda: reasons(early) == {"no-epoch", "store-away"}, "it says that the store is away", PATIENCE)
    refused = early.lookup(account("a0").label)
    assert (refused.status_code, refused.json()["reason"]) == (503, "unavailable")
    three_nodes.start()
    until(early.is_ready, "it is ready", PATIENCE)
    until(front.is_ready, "the one that ran is ready again", PATIENCE)


def reasons(front: FrontEnd) -> set[str]:
    return set(httpx.get(f"{front.url}/readyz", timeout=120).json().get("reasons", ()))
