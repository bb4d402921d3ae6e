"""``kt registration``: tokens made, listed and revoked in the file of the front end, and the mail key."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kt_es.cli.main import cli
from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.config.settings import FILE_NAME, load_settings
from kt_es.errors import ConfigError
from kt_es.server.registration.tokens import digest_of, read_tokens

BOB = "bob@example.org"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    new = NewDirectory("people", "kt.example.org/people", "esdb://127.0.0.1:2113?Tls=false", "email", 1, 60)
    write_directory(tmp_path, new)
    file = tmp_path / FILE_NAME
    file.write_text(file.read_text().replace('ways = ["open"]', 'ways = ["tokens"]'))
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    arguments = ["-c", str(folder / FILE_NAME), "registration", *words]
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def test_a_token_is_printed_once_and_its_hash_is_kept(folder: Path) -> None:
    made = run(folder, "token", "--labels", "*@example.org", "--days", "2", "--note", "for the office")
    text = made.stdout.strip()
    assert text.startswith("kt-token-")
    (token,) = read_tokens(folder / "keys/tokens.json")
    assert (token.digest, token.labels, token.note) == (digest_of(text), "*@example.org", "for the office")
    assert text not in (folder / "keys/tokens.json").read_text()
    settings = load_settings(folder / FILE_NAME)
    assert settings.registration.settings(folder).tokens == (token,)
    listed = run(folder, "tokens").stdout
    assert token.id in listed
    assert "for the office" in listed
    assert text not in listed


def test_tokens_are_revoked_by_id_and_when_they_have_expired(folder: Path) -> None:
    first, second = (
        json.loads(run(folder, "token", "--json", "--labels", BOB).stdout)["id"] for _ in range(2)
    )
    run(folder, "token", "--labels", BOB, "--days", "0.001")
    file = folder / "keys/tokens.json"
    assert json.loads(run(folder, "revoke", "--json", first).stdout) == {"removed": [first]}
    assert run(folder, "revoke", "--expired").exit_code == 0
    assert len(read_tokens(file)) == 2
    document = json.loads(file.read_text())
    document["tokens"][1]["until"] = 1_000
    file.write_text(json.dumps(document))
    run(folder, "revoke", "--expired")
    assert [token.id for token in read_tokens(file)] == [second]
    with pytest.raises(ConfigError, match="no token 'ffffffff'"):
        run(folder, "revoke", "ffffffff")
    assert run(folder, "revoke").exit_code == 2


def test_two_commands_at_a_time_lose_no_token(folder: Path) -> None:
    from kt_es.cli.operators.registration import _changing
    from kt_es.server.registration.tokens import Token

    file = folder / "keys/tokens.json"

    def add(number: int) -> None:
        with _changing(file) as tokens:
            tokens.append(Token(f"{number:064x}", BOB, None))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_tokens(file)) == 12


def test_the_key_of_mails_is_made_once(folder: Path) -> None:
    assert run(folder, "key").exit_code == 0
    file = folder / "keys/registration.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(file.read_text().strip())) == 32
    with pytest.raises(ConfigError, match="exists already"):
        run(folder, "key")


@pytest.mark.parametrize(
    "words", [("--labels", ""), ("--labels", "a\nb"), ("--labels", "a", "--note", "x" * 201)]
)
def test_what_no_token_can_have(folder: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        run(folder, "token", *words)
    assert not (folder / "keys/tokens.json").exists()
