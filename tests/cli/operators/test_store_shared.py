"""``kt store`` over a shared store in memory: what is refused, and what is said of rows that are missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kt_es.cli import shared
from kt_es.cli.main import cli
from kt_es.cli.operators import snapshot, store
from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME
from kt_es.errors import ConfigError, DivergenceError
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.store import Store
from kt_es.ledger.tables import FAMILIES, HeadTable
from tests.builders import ORIGIN, SIGNER_KEY
from tests.reference.memory_log import MemoryLog
from tests.reference.sharing import SharedStreams, store_of

ENVIRONMENT = {"KT_LOG": "esdb://127.0.0.1:1"}


class Operator:
    """A ``kt.toml`` whose log and shared store are in memory."""

    def __init__(self, base: Path, patch: pytest.MonkeyPatch) -> None:
        settings = write_directory(base, NewDirectory("people", ORIGIN, "", "email", 1.0, 60.0))
        self._settings = base / FILE_NAME
        text = self._settings.read_text().replace(settings.key, Pinned(ORIGIN, SIGNER_KEY).vkey)
        self._settings.write_text(f'{text}\n[store]\nshared = "cassandra://127.0.0.1/kt_people"\n')
        self.streams = SharedStreams()

        @contextmanager
        def event_log(*_: object) -> Iterator[MemoryLog]:
            assert isinstance(self.streams.log, MemoryLog)
            yield self.streams.log

        def open_store(*_: object) -> Store:
            return store_of(self.streams.replicas)

        for module in (store, snapshot):
            patch.setattr(module, "event_log", event_log)
        for module in (store, shared):
            patch.setattr(module, "open_store", open_store)

    def epochs(self, count: int) -> None:
        made = None
        for _ in range(count):
            made = self.streams.put_user("alice", made)
            self.streams.epoch()

    @property
    def rows(self) -> dict[str, dict[bytes, bytes]]:
        return {family: dict(rows) for family, rows in self.streams.replicas.majority._families.items()}

    def forget_store(self) -> None:
        self._settings.write_text(self._settings.read_text().partition("[store]")[0])

    def store(self, *words: str) -> tuple[BaseException | None, dict[str, Any], str]:
        """Run ``kt store`` and return its error, its document, and what it says to people."""
        return self.kt("store", *words)

    def kt(self, *words: str) -> tuple[BaseException | None, dict[str, Any], str]:
        """Run another command in the same way."""
        result = CliRunner().invoke(cli, ["--json", "-c", str(self._settings), *words], env=ENVIRONMENT)
        return result.exception, json.loads(result.stdout or "{}"), result.stderr


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, monkeypatch)


def test_a_store_that_was_never_pruned_is_filled_again(operator: Operator) -> None:
    operator.epochs(3)
    before = operator.rows
    for family in ("heads", "nodes", "pages", "states", "entries", "configs", "replaced"):
        operator.streams.replicas.write([(family, key, None) for key in before[family]])
    error, document, _ = operator.store("rebuild")
    assert (error, document["epoch"]) == (None, 3)
    assert operator.rows == before
    # Nothing was deleted, since all epochs are kept.
    assert operator.store("prune", "--keep", "10")[1]["deleted"] == 0
    assert operator.store("rebuild")[0] is None


def test_a_store_that_was_pruned_is_not_rebuilt_and_stays_as_it_is(operator: Operator) -> None:
    operator.epochs(3)
    error, document, _ = operator.store("prune", "--keep", "2")
    assert (error, document["oldest"]) == (None, 2)
    key = min(operator.rows["heads"])
    operator.streams.replicas.write([("heads", key, None)])
    before = operator.rows
    error, document, _ = operator.store("rebuild")
    assert isinstance(error, ConfigError)
    assert str(error) == (
        "the shared store was pruned: it keeps the epochs from 2 on, and deleted rows cannot be "
        "written again. Nothing was written: name a new keyspace in kt.toml ([store] shared), "
        "run `kt store init`, then `kt store rebuild`"
    )
    assert operator.rows == before


@pytest.mark.parametrize(
    ("keep", "mend"),
    [("10", "run `kt store rebuild`, which fills it"), ("1", "it was pruned, and is not filled in place")],
)
def test_a_check_explains_how_rows_come_back(operator: Operator, keep: str, mend: str) -> None:
    operator.epochs(2)
    assert operator.store("prune", "--keep", keep)[0] is None
    key = max(operator.rows["entries"])
    operator.streams.replicas.write([("entries", key, None)])
    error, document, _ = operator.store("check")
    assert isinstance(error, DivergenceError)
    assert mend in str(error)
    assert len(document["problems"]) == 1


def test_a_check_finds_signatures_nodes_and_heads_that_front_ends_refuse(operator: Operator) -> None:
    operator.epochs(2)
    assert operator.store("check")[0] is None
    for family in ("entries", "nodes", "heads"):
        before = operator.rows[family]
        wrong = [(family, key, value[:-1] + bytes([value[-1] ^ 1])) for key, value in before.items()]
        operator.streams.replicas.write(wrong)
        error, document, _ = operator.store("check")
        assert isinstance(error, DivergenceError)
        assert error.exit_code == 4
        assert document["found"] == len(document["problems"]) >= len(before)
        assert (document["epoch"], document["entries"]) == (2, 1)
        operator.streams.replicas.write([(family, key, value) for key, value in before.items()])
    assert operator.store("check")[0] is None


def test_a_shared_store_without_an_epoch_is_called_so(operator: Operator, tmp_path: Path) -> None:
    for words in (("check",), ("prune", "--keep", "1")):
        error, _, _ = operator.store(*words)
        assert isinstance(error, ConfigError)
        assert str(error) == "the shared store has no epoch yet: start the signer first"
    error, _, _ = operator.kt("snapshot", "save", str(tmp_path / "snapshot"))
    assert isinstance(error, ConfigError)
    assert str(error) == "the shared store has no epoch yet: start the signer first"


def test_a_rebuild_from_a_log_without_an_epoch_is_refused(operator: Operator) -> None:
    operator.epochs(1)
    before = operator.rows
    operator.streams.log = MemoryLog()
    error, _, said = operator.store("rebuild")
    assert isinstance(error, ConfigError)
    assert "kt_heads-people has no epoch, so nothing was written" in str(error)
    assert "replayed" not in said
    assert operator.rows == before


@pytest.mark.parametrize("row", ["oldest", "pruned"])
def test_a_wrong_bound_of_pruning_is_named_by_prune_and_check(operator: Operator, row: str) -> None:
    operator.epochs(2)
    operator.streams.replicas.write([("about", row.encode(), (1048575).to_bytes(8))])
    before = operator.rows
    for words in (("check",), ("prune", "--keep", "1")):
        error, _, said = operator.store(*words)
        assert isinstance(error, DivergenceError)
        assert f"the row about/{row} of the shared store is wrong" in str(error)
        assert "1048575" in str(error)
        assert "name a new keyspace in kt.toml" in str(error)
        assert "deleted" not in said
    assert operator.rows == before


def test_data_of_a_process_over_the_shared_store_are_not_examined(operator: Operator, tmp_path: Path) -> None:
    data = tmp_path / "signer"
    with closing(RocksStore.open(data, FAMILIES)) as local:
        local.write([(*HeadTable.LAST, (1).to_bytes(8) + b"head")])
    for words, mend in (
        (("store", "check", str(data)), "leave DIR out"),
        (("store", "prune", str(data), "--keep", "1"), "leave DIR out"),
        (("fsck", str(data)), "`kt store check` without DIR examines the shared store"),
        (("snapshot", "save", str(tmp_path / "saved"), "--data", str(data)), "leave --data out"),
    ):
        error, _, _ = operator.kt(*words)
        assert isinstance(error, ConfigError)
        assert str(error) == (
            f"{data} has only the last state and the last head of its process, and the map is in a shared "
            f"store: {mend}"
        )
    operator.forget_store()
    error, _, _ = operator.kt("store", "check", str(data))
    assert str(error).endswith("name the store in kt.toml ([store] shared), then leave DIR out")


def test_a_prune_without_its_lists_reports_it_and_ends_with_4(operator: Operator) -> None:
    operator.epochs(3)
    for key in operator.rows["replaced"]:
        operator.streams.replicas.write([("replaced", key, None)])
    checked, document, _ = operator.store("check")
    assert "lack 1 page: `kt store prune` will leave them" in str(document["problems"])
    error, document, said = operator.store("prune", "--keep", "1")
    for found in (checked, error):
        assert isinstance(found, DivergenceError)
        assert found.exit_code == 4
    assert "lists of replaced pages in the shared store are missing or wrong in 2 places" in str(error)
    assert (document["deleted"], document["oldest"], len(document["problems"])) == (0, 3, 2)
    assert "no list of the pages that epoch 2 has replaced names the topmost one" in said
    assert operator.store("prune", "--keep", "1")[0] is None
    assert operator.store("check")[0] is None
