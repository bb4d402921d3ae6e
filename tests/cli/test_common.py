"""What every command takes wherever it stands: ``--json``, ``-q``, and the variables that many share."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kt_es.cli import main as cli
from kt_es.cli.options import SHARED, Number

AWAY = "esdb://127.0.0.1:1?Tls=false"
VKEY = "kt.example.org/people/heads+0d67076e+AQ9MgHao9sWUV/+bMuLXVSe94rylmUX8Vp/WfXv2iyFY"
NOW = ("--patience", "0")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def ran(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kt", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_json_and_quiet_are_options_of_every_command() -> None:
    found = dict(commands(cli.cli))
    assert ("node", "user", "list") in found
    for path, command in found.items():
        options = [option for parameter in command.params for option in parameter.opts]
        assert {"--json", "-q"} <= set(options), path
        assert len(set(options)) == len(options), path


def test_no_option_takes_nan() -> None:
    """``click.FloatRange`` does: nothing is below ``nan`` or above it."""
    numbers = [
        (path, parameter)
        for path, command in commands(cli.cli)
        for parameter in command.params
        if isinstance(parameter.type, click.types.FloatParamType)
    ]
    assert len(numbers) > 15
    for path, parameter in numbers:
        assert isinstance(parameter.type, Number), (path, parameter.opts)
        with pytest.raises(click.BadParameter, match="is not a number"):
            parameter.type.convert("nan", parameter, None)


def test_shared_variables_hold_for_every_command_that_has_the_option() -> None:
    seen: dict[str, int] = {}
    for path, command in commands(cli.cli):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name in SHARED:
                seen[parameter.name] = seen.get(parameter.name, 0) + 1
                own = "_".join(("KT", *path, parameter.name)).upper().replace("-", "_")
                assert parameter.envvar == [own, f"KT_{parameter.name.upper()}"], path
    assert set(seen) == set(SHARED)
    assert min(seen.values()) > 1


def test_json_stands_before_and_after_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("--json", "keys", "list"), ("keys", "--json", "list"), ("keys", "list", "--json")):
        assert ran(monkeypatch, *words) == 0
        assert "keys" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [
        ("get", "a@example.org", "--json", "--server", "http://127.0.0.1:1", "--timeout", "0.1"),
        ("get", "--json"),
        ("get", "--nope", "--json"),
        ("nope", "--json"),
        ("keys", "nope", "--json"),
        ("node", "user", "list", "--json"),
    ],
)
def test_a_failure_after_json_behind_the_command_is_a_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code = ran(monkeypatch, *words)
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == code != 0


def test_quiet_stands_after_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(monkeypatch, "keys", "generate", "-q") == 0
    assert capsys.readouterr().err == ""


def test_the_variable_of_json_answers_a_command_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KT_JSON", "1")
    assert ran(monkeypatch, "nope") == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "unusable"
    assert ran(monkeypatch, "keys", "list") == 0
    assert json.loads(capsys.readouterr().out) == {"keys": []}


def test_an_auditor_needs_variables_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KT_VKEY", VKEY)
    monkeypatch.setenv("KT_LOG", AWAY)
    monkeypatch.setenv("KT_PATIENCE", "0")
    assert ran(monkeypatch, "audit") == 7
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_the_nearer_one_is_stronger(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KT_VKEY", VKEY)
    monkeypatch.setenv("KT_LOG", "nonsense://")
    assert ran(monkeypatch, "audit", *NOW) == 2
    monkeypatch.setenv("KT_AUDIT_LOG", "esdb://127.0.0.1:2?Tls=false")
    assert ran(monkeypatch, "audit", *NOW) == 7
    assert "127.0.0.1:2" in capsys.readouterr().err
    assert ran(monkeypatch, "audit", *NOW, "--log", AWAY) == 7
    assert "127.0.0.1:1:" in capsys.readouterr().err


def test_a_key_by_variable_goes_with_the_settings_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(monkeypatch, "init", "--log", AWAY, *NOW) == 7
    capsys.readouterr()
    key = next(line for line in (tmp_path / "kt.toml").read_text().splitlines() if line.startswith("key"))
    monkeypatch.setenv("KT_VKEY", key.split('"')[1])
    assert ran(monkeypatch, "audit", *NOW) == 7
    monkeypatch.setenv("KT_VKEY", VKEY)
    assert ran(monkeypatch, "audit", *NOW) == 2
    assert "--vkey is of kt.example.org/people" in capsys.readouterr().err


def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "some"
    data.mkdir()
    for words, said in (
        (("fsck", data, "--vkey", VKEY, "--log", AWAY, "--node", data), "name two logs"),
        (("fsck", data, "--directory", "people"), "--directory needs --vkey"),
        (("init", "--log", AWAY, "--min-interval", "61"), "may not be more than the second"),
        (("init", "--log", AWAY, *("--patience", "nan")), "is not a number"),
        (("init", "--log", "esdb://h:1?Tsl=false"), "'Tsl' is unknown"),
    ):
        assert ran(monkeypatch, *words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "keys").exists()


# --- credentials ---------------------------------------------------------------------------------


def test_credentials_stay_out_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "esdb://adm%40in:s3cret@127.0.0.1:1?TlsVerifyCert=false"
    for _ in range(2):
        assert ran(monkeypatch, "init", "--log", log, *NOW) == 7
    written = (tmp_path / "kt.toml").read_text()
    assert 'log = "esdb://127.0.0.1:1?TlsVerifyCert=false"' in written
    assert not any("s3cret" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "without user and password" in capsys.readouterr().err
    assert ran(monkeypatch, "status", *NOW) == 2
    assert "KT_LOG" in capsys.readouterr().err
    other = log.replace("127.0.0.1:1", "127.0.0.1:2")
    assert ran(monkeypatch, "init", "--log", other, *NOW) == 2
    assert "s3cret" not in capsys.readouterr().err


def test_credentials_are_kept_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = "esdb://admin:s3cret@127.0.0.1:1?TlsVerifyCert=false"
    assert ran(monkeypatch, "init", "--log", log, "--save-credentials", *NOW) == 7
    assert f'log = "{log}"' in (tmp_path / "kt.toml").read_text()
    assert (tmp_path / "kt.toml").stat().st_mode & 0o077 == 0


# --- colours -------------------------------------------------------------------------------------

_LOGGING = """
import sys, structlog
from kt_es.cli.output import configure_logs
from kt_es.cli.output import Output
configure_logs("signer", sys.argv[1])
structlog.get_logger("t").info("begun")
structlog.get_logger("t").warning("away")
Output().ok("done")
"""


def on_a_terminal(logs: str, **environment: str) -> str:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-c", _LOGGING, logs],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", **environment},
        )
        os.close(theirs)
        said = b""
        # A terminal whose other end is closed gives an error on Linux, not an end.
        try:
            while part := terminal.read(65536):
                said += part
        except OSError:
            pass
        assert process.wait() == 0
    return said.decode()


def test_a_terminal_has_colours_unless_they_are_declined() -> None:
    assert "\x1b[" in on_a_terminal("auto")
    said = on_a_terminal("auto", NO_COLOR="1")
    assert "\x1b" not in said
    assert "begun" in said


def test_logs_are_json_or_problems_alone_where_that_is_asked_for() -> None:
    lines = on_a_terminal("json", NO_COLOR="1").splitlines()
    assert [json.loads(line)["event"] for line in lines[:2]] == ["begun", "away"]
    problems = on_a_terminal("problems", NO_COLOR="1")
    assert "away" in problems
    assert "begun" not in problems


def test_a_group_without_a_command_shows_its_help_as_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for group in ("config", "store"):
        assert ran(monkeypatch, group) == 2
        said = capsys.readouterr().err
        assert "\\n" not in said
        assert said.startswith(f"Usage: kt {group} [OPTIONS] COMMAND")
        assert said.count("Usage: ") == 1
        assert said.endswith("✗ no command is named: name one of these\n")


def test_help_names_the_shared_store(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("store",), ("frontend",), ()):
        assert ran(monkeypatch, *words, "--help") == 0
        assert "shared store" in " ".join(capsys.readouterr().out.split())


def test_from_without_a_key_says_which_key_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("audit", "monitor"):
        assert ran(monkeypatch, command, "--from", "http://127.0.0.1:1") == 2
        assert "give --vkey" in capsys.readouterr().err


def test_an_age_without_a_policy_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(monkeypatch, "get", "alice@example.org", "--vkey", VKEY, "--policy-age", 5) == 2
    assert "give --policy or --monitors" in capsys.readouterr().err
