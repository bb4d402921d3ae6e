"""``kt cosign``: which witnesses it asks, and what it refuses to begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kt_es.cli.main import cli
from kt_es.config.settings import Settings, dump_settings, load_settings
from kt_es.errors import ConfigError, LockedError
from kt_es.formats.cosignatures import CosignerKey
from kt_es.formats.notes import verifier_key
from kt_es.process.folders import one_process
from tests import builders as b

WITNESS = CosignerKey("witness.example.org/w1", b.private_key("w").public)
MONITOR = CosignerKey("monitor.example.org", b.private_key("m").public)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    key = verifier_key(f"{b.ORIGIN}/heads", b.SIGNER.public).encode()
    path = tmp_path / "kt.toml"
    path.write_text(dump_settings(Settings(directory="people", origin=b.ORIGIN, key=key)))
    return path


def refused(settings: Path, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(cli, ["-c", str(settings), "cosign", *words], catch_exceptions=False)
    return str(caught.value)


def test_without_a_policy_there_is_nobody_to_ask(settings: Path) -> None:
    assert "no witness is known: name a policy file with --policy" in refused(settings)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("quorum none\n", "has no witness; add a line"),
        (f"witness w {WITNESS.vkey}\nquorum w\n", "the witness w has no URL"),
        (f"witness w {WITNESS.vkey} ftp://example.org\nquorum w\n", "is no URL of http or https"),
        (f"witness w {WITNESS.vkey} http://\nquorum w\n", "is no URL of http or https"),
        (f"witness w {WITNESS.vkey} http://h/?a=b\nquorum w\n", "is no URL of http or https"),
        ("junk\n", "line 1 begins with 'junk'"),
    ],
)
def test_a_policy_that_cannot_be_asked(settings: Path, text: str, problem: str) -> None:
    path = settings.with_name("policy")
    path.write_text(text)
    assert problem in refused(settings, "--policy", str(path), "--data", str(settings.parent / "cosign"))


def test_a_description_without_a_contact_is_not_made(settings: Path) -> None:
    problem = refused(settings, "--describe")
    assert f'contact = "ops (at) example.org" to [cosign] of {settings}' in problem


def test_a_missing_policy_is_named(settings: Path) -> None:
    assert "nowhere cannot be read" in refused(settings, "--policy", str(settings.with_name("nowhere")))


@pytest.mark.parametrize("where", ["option", "setting"])
def test_a_certificate_that_cannot_be_used_is_named(settings: Path, where: str) -> None:
    authority = settings.with_name("authority.pem")
    authority.write_text("no certificate\n")
    words = ["--ca", str(authority)] if where == "option" else []
    if where == "setting":
        settings.write_text(settings.read_text() + '\n[cosign]\nca = "authority.pem"\n')
    assert f"certificate {authority} cannot be used" in refused(settings, *words)


def test_a_damaged_memory_is_named(settings: Path) -> None:
    path = settings.with_name("policy")
    path.write_text(f"witness w {WITNESS.vkey} http://127.0.0.1:9\nquorum w\n")
    data = settings.with_name("cosign")
    data.mkdir()
    for content in ("", "[]", '{"a": {"b": -1}}', '{"a": 1}', "x" * (1 << 21)):
        (data / "witnesses.json").write_text(content)
        problem = refused(settings, "--policy", str(path), "--data", str(data))
        assert "remove it: the witnesses know what they have cosigned" in problem


def test_its_data_belong_to_one_process(settings: Path) -> None:
    path = settings.with_name("policy")
    path.write_text(f"witness w {WITNESS.vkey} http://127.0.0.1:9\nquorum w\n")
    words = ["-c", str(settings), "cosign", "--policy", str(path)]
    with (
        one_process(settings.with_name("cosign"), "kt cosign"),
        pytest.raises(LockedError, match="another kt cosign runs with"),
    ):
        CliRunner().invoke(cli, words, catch_exceptions=False)


def test_front_ends_know_witnesses_and_monitors_of_kt_toml(settings: Path) -> None:
    base = settings.parent
    (base / "witnesses").write_text(f"witness w {WITNESS.vkey} http://127.0.0.1:9\nquorum w\n")
    (base / "monitors").write_text(f"witness m {MONITOR.vkey}\nquorum none\n")
    with settings.open("a") as file:
        file.write('\n[cosign]\npolicy = "witnesses"\nmonitors = "monitors"\ninterval = 30\n')
    table = load_settings(settings).cosign
    known = table.known(base)
    assert (known.witnesses, known.monitors, table.interval) == ((WITNESS,), (MONITOR,), 30)
    (base / "monitors").write_text("junk\n")
    with pytest.raises(ConfigError, match="monitors: line 1"):
        table.known(base)
