"""What is said of a ``kt.toml`` that cannot be used: the file, the field, the problem and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es import extras
from kt_es.config.settings import FILE_NAME, Settings, load_settings
from kt_es.errors import ConfigError
from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.process.log_filters import without_password

ORIGIN = "kt.example.org/people"
VKEY = "kt.example.org/people/heads+0d67076e+AQ9MgHao9sWUV/+bMuLXVSe94rylmUX8Vp/WfXv2iyFY"
SHARED = "[store]\nshared = 'cassandra://db1,db2/kt_people'\n"
GOOD = f'directory = "people"\norigin = "{ORIGIN}"\nkey = "{VKEY}"\n'


def problem_of(folder: Path, text: str) -> str:
    path = folder / FILE_NAME
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_settings(path)
    assert str(refused.value).startswith(f"{path}")
    return str(refused.value).removeprefix(f"{path}")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(GOOD)
    assert load_settings(tmp_path / FILE_NAME).origin == ORIGIN


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            GOOD.replace(f'"{ORIGIN}"', '"other.example/people"'),
            ": key: expected a key of other.example/people, found one of kt.example.org/people",
        ),
        (GOOD.replace("+0d67076e", ""), ": key: "),
        (GOOD.replace('"people"', '"Pe ople"'), ": directory: "),
        (f"{GOOD}[frontend]\nexempt = 'here'\n", ": frontend.exempt: "),
        (f"{GOOD}[node]\nmax_append = 1\n", ": node: "),
        (f"{GOOD}[signer]\nno_such_field = 1\n", ": signer.no_such_field: "),
        (
            f"{GOOD}[store]\nshared = 'redis://db/kt'\n",
            ": store: the address of the shared store cannot be used",
        ),
        (
            f"{GOOD}[store]\npassword_file = 'p'\n",
            ": store: password_file is of a shared store, but shared is",
        ),
        (f"{GOOD}{SHARED}password_file = 'p'\n", ": store: a user in shared and a password_file belong"),
        (f"{GOOD}{SHARED.replace('//', '//kt@')}", ": store: a user in shared and a password_file belong"),
        (f"{GOOD}{SHARED}tls_ca = 'a'\ntls_key = 'k'\n", ": store: tls_cert and tls_key belong together"),
        (f"{GOOD}{SHARED}tls_cert = 'c'\ntls_key = 'k'\n", ": store: tls_cert needs tls_ca"),
        (f"{GOOD}{SHARED}cache = 1000\n", ": store.cache: "),
        (f"{GOOD}log = ", ": not valid TOML: "),
    ],
)
def test_a_wrong_field_is_named_with_its_problem(tmp_path: Path, text: str, problem: str) -> None:
    said = problem_of(tmp_path, text)
    assert said.startswith(problem)
    assert "Value error" not in said
    assert said.endswith(("; change it in that file", "; mend it there"))


class TestShared:
    def load(self, folder: Path, text: str) -> Settings:
        (folder / FILE_NAME).write_text(f"{GOOD}{text}")
        return load_settings(folder / FILE_NAME)

    def test_without_one_there_is_a_cache_all_the_same(self, tmp_path: Path) -> None:
        settings = self.load(tmp_path, "")
        assert settings.sharing is None
        assert settings.store.cache == 128 << 20

    def test_it_has_everything_that_a_connection_needs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(extras, "find_spec", lambda name: name)
        password = tmp_path / "cassandra.password"
        password.write_text("s3cret/pass\n")
        password.chmod(0o600)
        text = f"""{SHARED.replace("//", "//kt@")}
            password_file = "cassandra.password"
            tls_ca = "ca.pem"
            tls_cert = "/etc/kt.pem"
            tls_key = "kt.key"
        """
        sharing = self.load(tmp_path, text).sharing
        assert sharing is not None
        assert sharing.cassandra == CassandraSettings(
            ("db1", "db2"),
            "kt_people",
            user="kt",
            password="s3cret/pass",
            tls_ca=tmp_path / "ca.pem",
            tls_cert=Path("/etc/kt.pem"),
            tls_key=tmp_path / "kt.key",
        )
        assert without_password("it was s3cret/pass") == "it was ***"

    @pytest.mark.parametrize(
        ("content", "mode", "problem"),
        [
            (None, 0, "cannot be read: No such file"),
            (b"secret", 0o644, "is open to other users"),
            (b"", 0o600, "must be the one line of that file"),
            (b"one\ntwo\n", 0o600, "must be the one line of that file"),
            (b"\xff\n", 0o600, "is not UTF-8"),
        ],
    )
    def test_a_password_file_that_cannot_be_used_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, mode: int, problem: str
    ) -> None:
        monkeypatch.setattr(extras, "find_spec", lambda name: name)
        if content is not None:
            (tmp_path / "password").write_bytes(content)
            (tmp_path / "password").chmod(mode)
        settings = self.load(tmp_path, f"{SHARED.replace('//', '//kt@')}password_file = 'password'\n")
        with pytest.raises(ConfigError) as refused:
            _ = settings.sharing
        assert str(refused.value).startswith(
            f"the password of the shared store {tmp_path}/password {problem}"
        )

    def test_without_the_extra_it_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extras, "find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"no module cassandra\): pip install 'kt-es\[shared\]'"):
            _ = self.load(tmp_path, SHARED).sharing
