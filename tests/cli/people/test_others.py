"""``--also`` and ``--watchers``: what is said, also by a quiet command, and what ``--json`` has."""

from __future__ import annotations

import pytest

from kt_es.cli.output import Output
from kt_es.cli.people.others import NOBODY, Others, compare_with
from kt_es.errors import ConfigError
from tests.reference.clients import client_of, naming
from tests.reference.directory import Directory

QUIET = Output(quiet=True)


@pytest.fixture(scope="module")
def directory() -> Directory:
    made = Directory()
    made.put_user("alice")
    made.advance()
    return made


def test_a_directory_that_names_nobody(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    client = client_of(directory)
    assert compare_with(QUIET, client, (), watchers=True) == {"compared": [], "watchers": 0}
    assert NOBODY in capsys.readouterr().err
    assert compare_with(QUIET, client, (), watchers=False) == {}
    others = Others(QUIET, client, (), watchers=True)
    for said in (True, False):
        assert list(others.look()) == []
        assert (NOBODY in capsys.readouterr().err) == said


def test_a_watcher_that_the_user_names_as_well(
    directory: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "http://127.0.0.1:1"
    client = client_of(directory, handler=naming(directory, url), server="http://127.0.0.1:2")
    document = compare_with(QUIET, client, (url,), watchers=True)
    assert (len(document["compared"]), document["watchers"]) == (1, 1)
    assert NOBODY not in capsys.readouterr().err


def test_a_place_that_does_not_answer(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    client, url = client_of(directory), "http://127.0.0.1:1"
    (one,) = compare_with(QUIET, client, (url,), watchers=False)["compared"]
    assert (one["where"], one["compared"]) == (url, False)
    assert f"not compared with {url}" in capsys.readouterr().err


def test_a_file_that_is_not_there_ends_a_watch_only_as_it_begins(
    directory: Directory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("shown") / "checkpoint"
    client = client_of(directory)
    with pytest.raises(ConfigError, match="cannot be read"):
        compare_with(QUIET, client, (str(path),), watchers=False)
    others = Others(QUIET, client, (str(path),), watchers=False)
    with pytest.raises(ConfigError):
        list(others.look())
    path.write_text(client.head().heads_checkpoint)
    assert list(others.look()) == []
    path.unlink()
    assert list(others.look()) == []
