"""What ``kt node`` and ``kt.toml`` make of the node's limits, and what is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kt_es.cli.main import cli
from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.cli.operators.up import node_arguments
from kt_es.config.settings import load_settings
from kt_es.errors import ConfigError, KtError
from kt_es.node import server
from kt_es.node.limits import BOUNDS, NodeLimits, spelled
from kt_es.node.server import NodeConfig
from kt_es.node.store.rocks import RocksStorage

# Each differs from its default.
OTHERS: dict[str, Any] = {
    "max_append": 2000,
    "max_message": 3000,
    "max_connections": 4,
    "max_calls": 5,
    "max_groups": 6,
    "max_metadata": 7000,
    "keepalive": 0.5,
}


def kt(*words: str, **environment: str) -> Result:
    """``kt node`` with these; a refusal is in its ``exception``."""
    return CliRunner().invoke(cli, ["node", *words], env=environment, auto_envvar_prefix="KT")


def refusal(result: Result) -> str:
    """How it was refused, as a usage error."""
    if isinstance(result.exception, KtError):
        assert result.exception.exit_code == 2
        return str(result.exception)
    assert result.exit_code == 2
    return result.stderr


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[NodeConfig]:
    """Of the nodes that would have run."""
    ran: list[NodeConfig] = []

    def serve(config: NodeConfig, _stop: object, _reread: object, _on_ready: object) -> None:
        ran.append(config)

    monkeypatch.setattr(server, "serve", serve)
    return ran


def test_every_limit_has_bounds_and_a_test() -> None:
    assert set(BOUNDS) == set(asdict(NodeLimits())) == set(OTHERS)
    assert not set(asdict(NodeLimits()).items()) & set(OTHERS.items())


def test_limits_are_those_of_the_node_unless_they_are_given(
    tmp_path: Path, configs: list[NodeConfig]
) -> None:
    data = ("--data", str(tmp_path))
    options = [word for name, value in OTHERS.items() for word in (f"--{spelled(name)}", str(value))]
    variables = {f"KT_NODE_{name.upper()}": str(value) for name, value in OTHERS.items()}
    for result in (kt(*data), kt(*data, *options), kt(*data, **variables)):
        assert result.exit_code == 0, result.output
    assert [config.limits for config in configs] == [
        NodeConfig(tmp_path).limits,
        NodeLimits(**OTHERS),
        NodeLimits(**OTHERS),
    ]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "99999999999", "many", ""])
@pytest.mark.parametrize("name", BOUNDS)
def test_nonsense_is_refused_by_name(
    name: str, value: str, tmp_path: Path, configs: list[NodeConfig]
) -> None:
    assert spelled(name) in refusal(kt("--data", str(tmp_path / "new"), f"--{spelled(name)}={value}"))
    if value:
        assert spelled(name) in refusal(
            kt("--data", str(tmp_path / "new"), **{f"KT_NODE_{name.upper()}": value})
        )
    assert not configs
    assert not (tmp_path / "new").exists()


def test_a_message_holds_the_largest_append(tmp_path: Path, configs: list[NodeConfig]) -> None:
    words = refusal(kt("--data", str(tmp_path), "--max-message", "4096"))
    assert "max-message 4096 is less than max-append 1048576" in words
    assert not configs


@pytest.mark.parametrize("option", ["--listen", "--http"])
def test_an_address_that_is_none_is_refused_by_name(
    option: str, tmp_path: Path, configs: list[NodeConfig]
) -> None:
    assert refusal(kt("--data", str(tmp_path), option, "nonsense")).startswith(f"{option}: ")
    assert not configs


def directory(base: Path, node: Mapping[str, object]) -> Path:
    """A ``kt.toml`` whose node has these settings."""
    write_directory(base, NewDirectory("people", "localhost/people", "esdb://h:1", "email", 1.0, 60.0))
    lines = "".join(f"{name} = {value}\n" for name, value in node.items())
    path = base / "kt.toml"
    path.write_text(path.read_text().replace("[node]\n", f"[node]\n{lines}"))
    return path


def test_kt_up_gives_its_node_the_limits_in_kt_toml(tmp_path: Path, configs: list[NodeConfig]) -> None:
    limits: dict[str, Any] = {**OTHERS, "max_append": 2 << 20, "max_message": 3 << 20}
    settings = load_settings(directory(tmp_path, limits))
    # As ``kt up`` does: the file is named before the command, and has the limits.
    result = CliRunner().invoke(cli, ["-c", str(settings.base / "kt.toml"), *node_arguments(settings)])
    assert result.exit_code == 0, result.output
    assert configs[0].limits == NodeLimits(**limits)
    assert configs[0].data == tmp_path / "node"


def test_kt_up_leaves_the_node_its_own_limits(tmp_path: Path) -> None:
    settings = load_settings(directory(tmp_path, {}))
    assert node_arguments(settings) == ("node", "--data", str(tmp_path / "node"))


@pytest.mark.parametrize(
    ("node", "named"),
    [
        ({"max_calls": 0}, "max-calls 0"),
        ({"max_message": 1 << 20, "max_append": 2 << 20}, "max-message 1048576"),
        ({"max_append": 4096}, "max-append 4096 is less than the 1048576 that kt-es uses"),
        ({"max_groups": '"many"'}, "max_groups"),
    ],
)
def test_nonsense_in_kt_toml_is_refused_by_name(tmp_path: Path, node: dict[str, object], named: str) -> None:
    path = directory(tmp_path, node)
    with pytest.raises(ConfigError, match=f"node.*{named}"):
        load_settings(path)


def test_the_data_may_stand_before_the_command(tmp_path: Path) -> None:
    node, backup, again = (str(tmp_path / name) for name in ("node", "backup", "again"))
    RocksStorage(Path(node)).close()
    for words in (
        ("--data", node, "scavenge"),
        ("--data", node, "backup", backup),
        # What stands closer counts.
        ("--data", node, "restore", backup, "--data", again),
        ("--data", node, "user", "list"),
    ):
        result = kt(*words)
        assert result.exit_code == 0, (words, result.output)
    result = kt("scavenge", KT_NODE_DATA=node)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "again" / "log").is_dir()


def test_a_command_without_data_or_with_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "Missing option '--data'" in refusal(kt("scavenge"))
    assert "Missing option '--data'" in refusal(kt("user", "list"))
    assert "does not exist" in refusal(kt("--data", str(tmp_path / "none"), "scavenge"))


@pytest.mark.parametrize("option", [("--http", "127.0.0.1:0"), ("--max-calls", "5"), ("--check",)])
def test_what_is_for_a_running_node_is_not_ignored_before_a_command(
    tmp_path: Path, option: tuple[str, ...]
) -> None:
    words = refusal(kt("--data", str(tmp_path), *option, "scavenge"))
    assert f"{option[0]} is for a node that is to run, not for scavenge" in words


@pytest.mark.parametrize("option", [("--anonymous",), ("--listen", "127.0.0.1:0"), ("--max-calls", "7")])
def test_a_check_takes_no_option_of_a_node_that_runs(tmp_path: Path, option: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, ["node", "--data", str(tmp_path), "--check", *option])
    assert result.exit_code == 2
    assert f"{option[0]} is for a node that is to run, not for --check" in result.stderr
