"""``kt store init`` with real Cassandra, and what it says where it cannot do its work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kt_es.cli.main import cli
from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.config.settings import FILE_NAME
from kt_es.errors import ConfigError
from tests.reference.cassandra import ContactPoints
from tests.reference.doors import refused_port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    new = NewDirectory("people", "kt.example.org/people", "esdb://127.0.0.1:2113?Tls=false", "email", 1, 60)
    write_directory(tmp_path, new)
    return tmp_path


def init(folder: Path, *words: str, catch: bool = True) -> Result:
    arguments = ["-c", str(folder / FILE_NAME), "store", "init", *words]
    return CliRunner().invoke(cli, arguments, catch_exceptions=catch)


def name_store(folder: Path, address: str, port: int, keyspace: str) -> None:
    with (folder / FILE_NAME).open("a") as file:
        file.write(f'\n[store]\nshared = "cassandra://{address}:{port}/{keyspace}"\n')


def test_it_makes_the_tables_once(folder: Path, cassandra: ContactPoints, keyspace: str) -> None:
    name_store(folder, cassandra.addresses[0], cassandra.port, keyspace)
    made = init(folder, "--replication", "1")
    assert made.exit_code == 0, made.output
    assert f"✓ made {keyspace}, {keyspace}.pages, " in made.stderr
    assert "✓ began the store of kt.example.org/people" in made.stderr
    assert made.stdout == (
        f"keyspace {keyspace} at {cassandra.addresses[0]}:{cassandra.port}: replicas datacenter1 1\n"
    )
    again = init(folder)
    assert again.exit_code == 0, again.output
    assert again.stderr == "✓ found all tables of the store of kt.example.org/people\n"
    document = json.loads(init(folder, "--json", "--replication", "datacenter1=1").stdout)
    assert document == {"keyspace": keyspace, "made": [], "replication": {"datacenter1": 1}}


def test_it_refuses_the_store_of_another_directory(
    folder: Path, cassandra: ContactPoints, keyspace: str
) -> None:
    name_store(folder, cassandra.addresses[0], cassandra.port, keyspace)
    assert init(folder, "--replication", "1").exit_code == 0
    other = folder / "other"
    write_directory(other, NewDirectory("people", "kt.example.org/other", "esdb://x", "email", 1, 60))
    name_store(other, cassandra.addresses[0], cassandra.port, keyspace)
    with pytest.raises(
        ConfigError, match=r"belongs to kt\.example\.org/people, not to kt\.example\.org/other"
    ):
        init(other, catch=False)


def test_without_a_shared_store_it_names_what_to_add(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"kt\.toml names no shared store: add \[store\] with shared = "):
        init(folder, catch=False)


def test_a_cluster_that_does_not_answer_is_one_line(folder: Path, cassandra_installed: None) -> None:
    program = "from kt_es.cli.main import main; main()"
    words = [sys.executable, "-c", program, "-c", str(folder / FILE_NAME), "store", "init"]
    with refused_port() as port:
        name_store(folder, "127.0.0.1", port, "kt_people")
        failed = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == 7
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"✗ no node of the shared store at 127.0.0.1:{port} answers: ")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("none", "is not N or DATACENTER=N"),
        ("0", "is not N or DATACENTER=N"),
        ("a=1,a=2", "is not N or DATACENTER=N"),
        ("a=1,2", "names the datacenter of some numbers only"),
        ("", "is not N or DATACENTER=N"),
    ],
)
def test_replicas_that_cannot_be_are_refused(folder: Path, given: str, problem: str) -> None:
    refused = init(folder, "--replication", given)
    assert refused.exit_code == 2
    assert problem in refused.stderr
