"""Dockerfile and docker-compose.yml: what they name exists, and Compose itself accepts the file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kt_es.ledger.cassandra_schema import REPLICAS
from kt_es.ledger.cassandra_settings import parse_shared
from tests.reference.command_line import check_words, variables
from tools.cassandra.jars import version

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_every_command_in_it_exists() -> None:
    commands = re.findall(r"^ +command: (\[.*\])$", COMPOSE, re.MULTILINE)
    assert len(commands) == 12
    for command in commands:
        check_words(json.loads(command))


def test_the_shared_store_is_at_its_nodes() -> None:
    (address,) = re.findall(r'entrypoint: \["kt-shared-init", "(.*)"\]', COMPOSE)
    settings = parse_shared(address)
    assert list(settings.hosts) == re.findall(r"^  (cassandra\d):$", COMPOSE, re.MULTILINE)
    assert f"CASSANDRA_DC: {settings.datacenter}\n" in COMPOSE
    assert len(settings.hosts) == REPLICAS


def test_what_the_profile_shared_adds_has_a_name_of_its_own() -> None:
    """The other directory, whose signer has another store, runs beside it."""
    services = COMPOSE.partition("\nservices:\n")[2].partition("\nvolumes:\n")[0]
    blocks = re.findall(r"^  ([a-z0-9-]+):\n((?:    .*\n)+)", services, re.MULTILINE)
    shared = {name for name, _ in blocks if name.startswith(("shared-", "cassandra"))}
    assert len(shared) == 9
    mounted = {name: set(re.findall(r"^ +- ([a-z0-9-]+):/", block, re.MULTILINE)) for name, block in blocks}
    ours = set().union(*(mounted[name] for name in shared))
    others = set().union(*(volumes for name, volumes in mounted.items() if name not in shared))
    assert ours
    assert not ours & others


def test_every_variable_of_the_image_is_an_option() -> None:
    named = set(re.findall(r"\b(KT_[A-Z_]+)=", DOCKERFILE))
    assert named
    assert named <= variables()


def test_every_copied_path_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    assert copied
    for line in copied:
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored


def test_its_volumes_are_those_that_are_mounted() -> None:
    mounted = set(re.findall(r"^ +- ([a-z0-9-]+):/", COMPOSE, re.MULTILINE))
    declared = set(re.findall(r"^  ([a-z0-9-]+):$", COMPOSE.partition("\nvolumes:\n")[2], re.MULTILINE))
    assert mounted == declared != set()


def test_its_cassandra_is_the_version_that_the_tests_run() -> None:
    (image,) = re.findall(r"image: cassandra:(\S+)$", COMPOSE, re.MULTILINE)
    assert version() == image


def test_its_cassandra_nodes_differ_in_their_data_alone() -> None:
    nodes = re.findall(r"^  (cassandra\d+):\n((?:    .+\n)+)", COMPOSE, re.MULTILINE)
    names = [name for name, _ in nodes]
    assert names == ["cassandra1", "cassandra2", "cassandra3"]
    assert f"CASSANDRA_SEEDS: {','.join(names)}\n" in COMPOSE
    for name, text in nodes:
        assert "    <<: *cassandra\n" in text
        assert f"      - {name}-data:/var/lib/cassandra\n" in text


def test_compose_accepts_it() -> None:
    compose = _compose()
    if compose is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    named = sorted(set(re.findall(r"profiles: \[([a-z]+)\]", COMPOSE)))
    assert named == ["cosign", "metrics", "shared"]
    profiles = [word for name in named for word in ("--profile", name)]
    checked = subprocess.run(
        [*compose, "-f", str(ROOT / "docker-compose.yml"), *profiles, "config", "-q"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def _compose() -> list[str] | None:
    docker = shutil.which("docker")
    if docker is not None:
        found = subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60, check=False)
        if found.returncode == 0:
            return [docker, "compose"]
    standalone = shutil.which("docker-compose")
    return None if standalone is None else [standalone]
