"""``kt store``: pages are pruned and checked by hand, and what cannot be is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from kt_es.cli.main import cli
from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.pages import PageTable
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES, EntryTable, HeadTable, LogNodeTable
from kt_es.merkle.pages import version_in
from projections.fsck.examination import fsck
from tests.builders import ORIGIN, SIGNER_KEY, index
from tests.projections.test_fsck import run
from tests.reference.published_epochs import USERS, published
from tests.reference.signing import NAMES


@contextmanager
def opened(data: Path) -> Iterator[RocksStore]:
    with closing(RocksStore.open(data, FAMILIES)) as store:
        yield store


class Operator:
    """A directory's ``kt.toml``, and the data of its front end, which are at epoch 3."""

    def __init__(self, base: Path) -> None:
        settings = write_directory(base, NewDirectory("people", ORIGIN, "", "email", 1.0, 60.0))
        self.settings = base / FILE_NAME
        text = self.settings.read_text()
        self.settings.write_text(text.replace(settings.key, Pinned(ORIGIN, SIGNER_KEY).vkey))
        self.data = base / "frontend"
        rows = published()[1]
        with opened(self.data) as store:
            store.write([(family, key, value) for family in FAMILIES for key, value in rows[family].items()])

    def store(self, *words: str | Path, settings: Path | None = None) -> tuple[int, str, str]:
        """Exit code of the error or 0, standard output, and the complaint."""
        settings = settings or self.settings
        result = CliRunner().invoke(cli, ["--json", "-c", str(settings), "store", *map(str, words)])
        error = result.exception
        code = 0 if error is None else int(getattr(error, "exit_code", getattr(error, "code", 1)))
        return code, result.stdout, f"{result.stderr}{error}"


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_old_pages_are_deleted_and_the_rest_is_whole(operator: Operator) -> None:
    held = len(published()[1][PageTable.FAMILY])
    code, said, _ = operator.store("prune", operator.data, "--keep", "2")
    document = json.loads(said)
    assert (code, document["oldest"], document["newest"]) == (0, 2, 3)
    assert document["deleted"] > 0
    for epoch in (2, 3):
        code, said, _ = operator.store("check", operator.data, "--epoch", str(epoch))
        assert (code, json.loads(said)["problems"]) == (0, [])
    assert json.loads(operator.store("prune", operator.data, "--keep", "2")[1])["deleted"] == 0
    code, said, _ = run("-c", str(operator.settings), "store", "prune", str(operator.data), "--keep", "1")
    assert code == 0
    assert said == f"{operator.data}: epochs 3 to 3 are whole\n"
    with opened(operator.data) as store:
        assert len(list(store.scan(PageTable.FAMILY))) < held - document["deleted"]
        report = fsck(store, ORIGIN, SIGNER_KEY, log=(published()[0], NAMES))
        assert report.is_good, report.differences


def test_the_latest_epoch_is_checked_unless_another_one_is_named(operator: Operator) -> None:
    code, said, _ = operator.store("check", operator.data)
    assert code == 0
    document = {"data": str(operator.data), "epoch": 3, "entries": len(USERS), "found": 0, "problems": []}
    assert json.loads(said) == document
    said = run("-c", str(operator.settings), "store", "check", str(operator.data), "--epoch", "1")[1]
    assert said == f"{operator.data}: epoch 1, 20 entries, 0 problems\n"


def test_damage_is_named_and_ends_with_4(operator: Operator) -> None:
    with opened(operator.data) as store:
        at, epoch = next(index(user) for user in USERS[3:20] if index(user)[0] < 0xF0), 1
        # The last page below the root: the check that comes first, of the way to index 0, does not need it.
        page = max(key for key in published()[1][PageTable.FAMILY] if key[0] == 1)
        store.write([(PageTable.FAMILY, page, None), EntryTable(store).delete(at, epoch)])
    code, said, problem = operator.store("check", operator.data)
    assert code == 4
    assert "differs from the signed head of epoch 3 in 3 places" in problem
    words = " ".join(json.loads(said)["problems"])
    assert f"map page {page[1:2].hex()[0]} of version {version_in(page)[-1]} is missing" in words
    assert f"the entry at index {at.hex()} of epoch {epoch} is missing" in words
    assert "its head says 40" in words
    # What can be read is all that pruning needs.
    assert operator.store("prune", operator.data, "--keep", "1")[0] == 0


@pytest.mark.parametrize("family", [EntryTable.FAMILY, LogNodeTable.FAMILY, HeadTable.FAMILY])
def test_signatures_nodes_and_checkpoints_are_checked_too(operator: Operator, family: str) -> None:
    rows = published()[1][family]
    key, value = min(rows.items())
    with opened(operator.data) as store:
        store.write([(family, key, value[:-1] + bytes([value[-1] ^ 1]))])
    code, said, problem = operator.store("check", operator.data)
    document = json.loads(said)
    assert code == 4
    assert 1 <= document["found"] == len(document["problems"]) <= 2
    assert "differs from the signed head of epoch 3" in problem


@pytest.mark.parametrize("keep", ["0", "-1", "all", "1.5"])
def test_a_number_of_epochs_that_is_none_is_refused(operator: Operator, keep: str) -> None:
    code, _, problem = operator.store("prune", operator.data, "--keep", keep)
    assert code == 2
    assert keep in problem
    code, _, problem = operator.store("prune", operator.data)
    assert code == 2
    assert "keep" in problem


def test_what_is_no_data_directory_is_refused_and_stays_as_it_is(operator: Operator, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for words in (("prune", empty, "--keep", "1"), ("check", empty)):
        code, _, problem = operator.store(*words)
        assert code == 2
        assert f"{empty} is no data directory of kt-es" in problem
    assert list(empty.iterdir()) == []
    for words in (("prune", tmp_path / "nowhere", "--keep", "1"), ("check", tmp_path / "nowhere")):
        code, _, problem = operator.store(*words)
        assert code == 2
        assert "nowhere" in problem
    with opened(empty):
        pass
    for words in (("prune", empty, "--keep", "1"), ("check", empty)):
        code, _, problem = operator.store(*words)
        assert code == 2
        assert "no epoch yet" in problem


@pytest.mark.parametrize(("epoch", "kept"), [(1, "2 to 3"), (4, "2 to 3")])
def test_an_epoch_that_is_not_kept_is_refused(operator: Operator, epoch: int, kept: str) -> None:
    assert operator.store("prune", operator.data, "--keep", "2")[0] == 0
    code, _, problem = operator.store("check", operator.data, "--epoch", str(epoch))
    assert code == 2
    assert problem.endswith(f"epoch {epoch} is not kept here: choose one from {kept}")


def test_a_directory_in_use_is_not_pruned_but_checked(operator: Operator) -> None:
    with opened(operator.data) as store:
        code, _, problem = operator.store("prune", operator.data, "--keep", "1")
        assert code == 1
        assert f"{operator.data} is in use" in problem
        assert operator.store("check", operator.data)[0] == 0
        assert Ledger(store, ORIGIN, SIGNER_KEY).oldest == 1


def test_another_directorys_data_are_refused(operator: Operator, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    write_directory(stranger, NewDirectory("people", ORIGIN, "", "email", 1.0, 60.0))
    for words in (("prune", operator.data, "--keep", "1"), ("check", operator.data)):
        code, _, problem = operator.store(*words, settings=stranger / FILE_NAME)
        assert code == 4
        assert "never was a signer key" in problem
    with opened(operator.data) as store:
        assert Ledger(store, ORIGIN, SIGNER_KEY).oldest == 1
