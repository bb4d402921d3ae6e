"""The node's users: their file, their passwords, their log-in."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from kt_es.cli.main import cli
from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.errors import ConfigError, KtError
from kt_es.node.access.acl import ANONYMOUS, Caller
from kt_es.node.access.logins import REMEMBERED, Logins, check_exposure, server_credentials
from kt_es.node.access.users import FILE_NAME, add, load, remove
from kt_es.node.refusals import Refusal
from tests.contracts.certificates import certify


def basic(name: str, password: str) -> list[tuple[str, str]]:
    return [("requires-leader", "true"), ("authorization", f"Basic {encoded(f'{name}:{password}')}")]


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def log_in(logins: Logins, name: str, password: str) -> Caller:
    return asyncio.run(logins.caller(basic(name, password)))


def refused(logins: Logins, metadata: list[tuple[str, str]]) -> bool:
    with pytest.raises(Refusal) as caught:
        asyncio.run(logins.caller(metadata))
    return caught.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_users_are_kept_with_their_groups(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert add(tmp_path, "alice", "one", ["writers", "$ops"])
    assert add(tmp_path, "bøb", "two")
    assert not add(tmp_path, "alice", "three", ["readers"])
    users = load(tmp_path)
    assert users is not None
    assert {name: set(user.groups) for name, user in users.items()} == {"alice": {"readers"}, "bøb": set()}
    assert users["alice"].secret.matches("three")
    assert not users["alice"].secret.matches("one")
    remove(tmp_path, "alice")
    remove(tmp_path, "bøb")
    assert load(tmp_path) == {}


def test_the_file_has_no_password_and_is_private(tmp_path: Path) -> None:
    add(tmp_path, "alice", "correct horse")
    add(tmp_path, "bob", "correct horse")
    text = (tmp_path / FILE_NAME).read_text()
    assert "horse" not in text
    hashes = [entry["scrypt"]["hash"] for entry in json.loads(text)["users"].values()]
    assert len(set(hashes)) == 2
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("name", ["", "a:b", "$admins", "$x", "a\nb", "a" * 257])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a user's name"):
        add(tmp_path, name, "p")
    if name != "$admins":
        with pytest.raises(ConfigError, match="cannot be a group's name"):
            add(tmp_path, "a", "p", [name])
    assert load(tmp_path) is None


@pytest.mark.parametrize("password", ["", "p" * 1025, "\udcff"])
def test_passwords_that_cannot_be(tmp_path: Path, password: str) -> None:
    with pytest.raises(ConfigError, match="a password has"):
        add(tmp_path, "alice", password)


def test_a_missing_user_cannot_be_removed(tmp_path: Path) -> None:
    add(tmp_path, "bob", "pw")
    with pytest.raises(KtError, match="no user 'alice'") as caught:
        remove(tmp_path, "alice")
    assert caught.value.exit_code == 1


def test_removing_where_there_are_no_users_makes_nothing(tmp_path: Path) -> None:
    for data in (tmp_path, tmp_path / "absent"):
        with pytest.raises(KtError, match="has no users") as caught:
            remove(data, "alice")
        assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=2),
        lambda d: d.pop("users"),
        lambda d: d.update(users=[]),
        lambda d: d["users"].update({"$admins": d["users"]["alice"]}),
        lambda d: d["users"]["alice"].pop("groups"),
        lambda d: d["users"]["alice"].update(groups=["$all"]),
        lambda d: d["users"]["alice"]["scrypt"].update(n=1 << 30),
        lambda d: d["users"]["alice"]["scrypt"].update(n=1000),
        lambda d: d["users"]["alice"]["scrypt"].update(salt="00"),
        lambda d: d["users"]["alice"]["scrypt"].update(hash="x"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, change: object) -> None:
    add(tmp_path, "alice", "p")
    document = json.loads((tmp_path / FILE_NAME).read_text())
    assert callable(change)
    change(document)
    (tmp_path / FILE_NAME).write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="not a file of users"):
        Logins(tmp_path, anonymous=False)


def test_a_log_in_gives_name_and_groups(tmp_path: Path) -> None:
    add(tmp_path, "alice", "with:colon", ["writers"])
    logins = Logins(tmp_path, anonymous=False)
    assert logins.exist
    for _ in range(2):
        assert log_in(logins, "alice", "with:colon").roles == {"alice", "writers", "$all"}
        assert refused(logins, basic("alice", "with"))
        assert refused(logins, basic("bob", "with:colon"))
    assert asyncio.run(logins.caller([])) == ANONYMOUS


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic ", "Basic !", "Bearer " + encoded("alice:p"), "Basic " + encoded("alice"),
     "Basic " + encoded("alice:"), "Basic " + b64encode(b"\xff:\xff").decode(),
     "Basic " + encoded("alice:" + "p" * 5000)],
)  # fmt: skip
def test_credentials_that_are_none_are_refused(tmp_path: Path, header: str) -> None:
    add(tmp_path, "alice", "p")
    assert refused(Logins(tmp_path, anonymous=True), [("authorization", header)])


def test_changes_are_seen_at_once(tmp_path: Path) -> None:
    logins = Logins(tmp_path, anonymous=False)
    before = logins.exist
    assert not before
    add(tmp_path, "alice", "one")
    assert logins.exist
    assert log_in(logins, "alice", "one").roles == {"alice", "$all"}
    add(tmp_path, "alice", "two", ["writers"])
    assert refused(logins, basic("alice", "one"))
    assert log_in(logins, "alice", "two").roles == {"alice", "writers", "$all"}
    remove(tmp_path, "alice")
    assert refused(logins, basic("alice", "two"))
    assert logins.exist


def test_a_file_that_breaks_or_goes_away_lets_nobody_in(tmp_path: Path) -> None:
    add(tmp_path, "alice", "one")
    logins = Logins(tmp_path, anonymous=False)
    log_in(logins, "alice", "one")
    (tmp_path / FILE_NAME).write_text("{")
    assert refused(logins, basic("alice", "one"))
    (tmp_path / FILE_NAME).unlink()
    assert refused(logins, basic("alice", "one"))
    assert logins.exist


def test_a_right_password_is_not_hashed_again_for_a_while(tmp_path: Path) -> None:
    add(tmp_path, "alice", "one")
    now = 0.0
    logins = Logins(tmp_path, anonymous=False, clock=lambda: now)
    hashed = 0

    async def calls() -> None:
        nonlocal now, hashed
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor

        def counted(*args: object) -> object:
            nonlocal hashed
            hashed += 1
            return run(*args)  # type: ignore[arg-type]

        loop.run_in_executor = counted  # type: ignore[assignment]
        await logins.caller(basic("alice", "one"))
        await logins.caller(basic("alice", "one"))
        assert hashed == 1
        now = REMEMBERED
        await logins.caller(basic("alice", "one"))
        assert hashed == 2

    asyncio.run(calls())


def test_who_does_not_log_in_counts_as_all_only_where_that_is_wanted(tmp_path: Path) -> None:
    assert asyncio.run(Logins(tmp_path, anonymous=True).caller([])).roles == {"$all"}


def test_users_on_the_command_line(tmp_path: Path) -> None:
    def kt(*words: str, stdin: str = "", told: str = "") -> str:
        options = ["node", "user", words[0], "--data", str(tmp_path)]
        result = CliRunner().invoke(cli, [*options, *words[1:]], input=stdin, catch_exceptions=False)
        assert result.exit_code == 0
        assert told in result.stderr
        return result.stdout

    kt("add", "alice", "--group", "writers", "--group", "$ops", stdin="secret\n")
    kt("add", "bob", stdin="no newline")
    assert kt("list") == "alice $ops writers\nbob\n"
    users = load(tmp_path)
    assert users is not None
    assert users["alice"].secret.matches("secret")
    assert users["bob"].secret.matches("no newline")
    kt("remove", "bob")
    assert kt("list") == "alice $ops writers\n"
    kt("remove", "alice")
    assert kt("list", told="has no users any more") == ""


def test_an_empty_list_of_users_is_reported_as_such(tmp_path: Path) -> None:
    for data in (tmp_path, tmp_path / "absent"):
        result = CliRunner().invoke(cli, ["--json", "node", "user", "list", "--data", str(data)])
        assert (result.exit_code, result.stderr) == (0, f"{data} has no users\n")
        assert json.loads(result.stdout) == {"users": {}}
    assert not list(tmp_path.iterdir())


def test_kt_up_does_not_start_a_node_with_users(tmp_path: Path) -> None:
    write_directory(tmp_path, NewDirectory("people", "localhost/people", "esdb://h:1", "email", 1.0, 60.0))
    add(tmp_path / "node", "alice", "p")
    with pytest.raises(ConfigError, match="has users"):
        CliRunner().invoke(cli, ["-q", "up", "--data", str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "::1", "localhost"])
def test_on_loopback_a_node_may_be_open(host: str) -> None:
    check_exposure(host, tls=False, users=False, anonymous=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "node.example.org", "localhost.example"])
def test_elsewhere_it_needs_tls_and_users(host: str) -> None:
    check_exposure(host, tls=True, users=True, anonymous=False)
    for tls, users, anonymous in ((False, True, False), (True, False, False), (True, True, True)):
        with pytest.raises(ConfigError, match="loopback"):
            check_exposure(host, tls, users, anonymous)


def test_a_certificate_and_its_key(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    made, other = certify(tmp_path), certify(tmp_path / "other")
    assert server_credentials(made.certificate, made.key) is not None
    assert server_credentials(None, None) is None
    for certificate, key, problem in (
        (made.certificate, None, "needs both"),
        (None, made.key, "needs both"),
        (tmp_path / "none", made.key, "certificate .* cannot be read: No such file"),
        (made.certificate, tmp_path / "none", "key .* cannot be read: No such file"),
        (made.certificate, tmp_path, "cannot be read: Is a directory"),
        (made.key, made.key, "not a certificate in PEM"),
        (made.certificate, made.certificate, "not a private key in PEM"),
        (made.certificate, other.key, "does not belong to"),
    ):
        with pytest.raises(ConfigError, match=problem):
            server_credentials(certificate, key)
