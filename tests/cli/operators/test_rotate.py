"""``kt signer rotate`` and ``kt config``, beside a signer that runs, and interrupted anywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kt_es.cli.main import main
from kt_es.cli.operators import configuring
from kt_es.client.trusted import Pinned
from kt_es.config.settings import Settings, dump_settings
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError, UnavailableError
from kt_es.eventstore.streams import ANY, EventLog, content_event
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.queue import CONFIG, Verdict
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from kt_es.process.files import replace_file
from projections.auditor import audit
from signer.changes import Base, ConfigChanges, following, sign_change
from signer.keys import KeyRing
from tests import builders as b
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES, heads, new_ledger, new_log, records, signing, wait_until


class Operator:
    """``kt`` in this process with a ``kt.toml`` and the signer's keys; ``log`` is what it is connected to."""

    def __init__(self, home: Path, capsys: Any, patch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.truth = new_log(min_interval=5, max_interval=100)
        self.log: Any = self.truth
        self.folder = home / "keys/signer"
        self._capsys = capsys
        self._patch = patch
        settings = Settings(
            directory="people", origin=b.ORIGIN, key=Pinned(b.ORIGIN, b.SIGNER_KEY).vkey, base=home
        )
        replace_file(home / "kt.toml", dump_settings(settings).encode())
        replace_file(self.folder / "signer.pem", b.SIGNER.to_pem())

        @contextmanager
        def event_log(*_: object) -> Iterator[EventLog]:
            yield self.log

        patch.setattr(configuring, "event_log", event_log)

    def __call__(self, *words: str) -> tuple[int, dict[str, Any], str]:
        self._patch.setattr(sys, "argv", ["kt", "--json", "-c", str(self.home / "kt.toml"), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out or "{}"), err

    def configs(self) -> list[Config]:
        """The accepted ones, by the log of mutations."""
        return [
            SignedConfig.decode(record.item.content).config
            for record in records(self.truth)
            if record.verdict is Verdict.CONFIG and isinstance(record.item.content, bytes)
        ]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.pem"))

    def audited(self, key: PrivateKey = b.SIGNER) -> int:
        ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.public(key))
        return audit(self.truth, NAMES, ledger, with_queue=True, now=lambda: b.START).epochs


@pytest.fixture
def operator(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, capsys, monkeypatch)


@contextmanager
def running(operator: Operator) -> Iterator[None]:
    """A signer that was started before any rotation, and does not end."""
    keys = KeyRing.load(operator.folder)
    # What it logs would stand on standard output, between the commands' documents.
    with capture_logs(), signing(operator.truth, new_ledger(), keys=keys) as ended:
        wait_until(lambda: bool(heads(operator.truth)), "there is a head")
        yield
        assert not ended


class TestRotate:
    def test_a_rotation(self, operator: Operator) -> None:
        with running(operator):
            code, document, err = operator("signer", "rotate")
            assert code == 0, err
        first, announced, second = operator.configs()
        new = second.signer_key
        assert first.signer_keys == (b.SIGNER_KEY,)
        assert announced.signer_keys == (b.SIGNER_KEY, new)
        assert second.signer_keys == (new,)
        assert document["signer_key"] == new.id.hex()
        assert document["key"] == Pinned(b.ORIGIN, new).vkey
        assert operator.files() == [f"signer-{new.id.hex()}.pem"]
        assert document["retired"] == [str(operator.folder / "retired/signer.pem")]
        assert f"+ announced key {new.id.hex()}" in err
        assert f"- signer key {b.SIGNER_KEY.id.hex()}" in err
        assert heads(operator.truth)[-1].config_hash == second.hash
        # Every part of the rotation was in force for an epoch at least.
        assert announced.hash in {head.config_hash for head in heads(operator.truth)}
        assert operator.audited() == len(heads(operator.truth))

    def test_announced_first_and_changed_over_later(self, operator: Operator) -> None:
        with running(operator):
            code, document, err = operator("signer", "rotate", "--announce")
            assert code == 0, err
            assert document["signer_key"] == b.SIGNER_KEY.id.hex()
            (new,) = document["announced"]
            assert f"signer-{new}.pem to the keys of every signer" in err
            for _ in range(2):
                assert operator("signer", "rotate", "--announce")[1]["announced"] == [new]
            assert operator("signer", "rotate")[1]["signer_key"] == new
            assert operator("signer", "rotate", "--retire")[1]["signer_key"] == new
        assert len(operator.configs()) == 3
        assert operator.files() == [f"signer-{new}.pem"]

    @pytest.mark.parametrize("written", [True, False])
    @pytest.mark.parametrize("at", [1, 2])
    def test_an_append_without_an_answer(self, operator: Operator, at: int, written: bool) -> None:
        with running(operator):
            operator.log = Breaking(operator.truth, at, written)
            assert operator("signer", "rotate")[0] == 7
            operator.log = operator.truth
            code, _, err = operator("signer", "rotate")
            assert code == 0, err
        self.rotated_once(operator)

    @pytest.mark.parametrize("words", [("--announce",), ()])
    def test_no_head_in_time(self, operator: Operator, words: tuple[str, ...]) -> None:
        """The signer is away: what is in the queue is not put there again."""
        with running(operator):
            pass
        for _ in range(2):
            code, document, _ = operator("signer", "rotate", *words, "--timeout", "0")
            assert code == 7
            assert "repeat the command" in document["error"]["problem"]
        with running(operator):
            code, _, err = operator("signer", "rotate")
            assert code == 0, err
        self.rotated_once(operator)

    def test_killed_before_the_old_key_was_put_away(
        self, operator: Operator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = Path.rename

        def killed(path: Path, target: Path) -> Path:
            if path.name == "signer.pem":
                raise KeyboardInterrupt
            return rename(path, target)

        with running(operator):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "rename", killed)
                assert operator("signer", "rotate")[0] == 1
            assert "signer.pem" in operator.files()
            code, _, err = operator("signer", "rotate")
            assert code == 0, err
        self.rotated_once(operator)

    def rotated_once(self, operator: Operator) -> None:
        configs = operator.configs()
        assert [len(config.signer_keys) for config in configs] == [1, 2, 1]
        assert operator.files() == [f"signer-{configs[-1].signer_key.id.hex()}.pem"]
        assert operator.audited() == len(heads(operator.truth))

    def test_it_can_be_done_again_and_again(self, operator: Operator) -> None:
        with running(operator):
            for _ in range(3):
                assert operator("signer", "rotate")[0] == 0
        assert len({config.signer_key for config in operator.configs()}) == 4
        assert len(operator.files()) == 1
        assert len(list((operator.folder / "retired").iterdir())) == 3

    def test_a_prepared_key_is_taken(self, operator: Operator) -> None:
        replace_file(operator.folder / "next.pem", b.private_key("prepared").to_pem())
        with running(operator):
            assert operator("signer", "rotate")[0] == 0
        assert operator.configs()[-1].signer_key == b.public(b.private_key("prepared"))
        assert operator.files() == ["next.pem"]

    def test_two_prepared_keys_are_refused(self, operator: Operator) -> None:
        for name in ("one", "two"):
            replace_file(operator.folder / f"{name}.pem", b.private_key(name).to_pem())
        with running(operator):
            code, document, _ = operator("signer", "rotate")
        assert code == 2
        assert "one.pem" in document["error"]["problem"]
        assert len(operator.configs()) == 1

    def test_without_the_key_in_force_nothing_is_made(self, operator: Operator) -> None:
        with running(operator):
            replace_file(operator.folder / "signer.pem", b.private_key("other").to_pem())
            code, _, err = operator("signer", "rotate")
        assert code == 2
        assert "does not have the signer key in force" in err
        assert operator.files() == ["signer.pem"]

    def test_wrong_usage(self, operator: Operator) -> None:
        assert operator("signer", "rotate", "--announce", "--retire")[0] == 2


class Breaking:
    """A log whose append number ``at`` has no answer."""

    def __init__(self, log: MemoryLog, at: int, written: bool) -> None:
        self._log, self._at, self._written = log, at, written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, *arguments: Any) -> None:
        self._at -= 1
        if self._at or self._written:
            self._log.append(*arguments)
        if not self._at:
            raise UnavailableError("broken by the test")


class TestConfig:
    def test_intervals_are_set_and_take_effect(self, operator: Operator) -> None:
        with running(operator):
            code, document, err = operator("config", "set", "--max-interval", "0.2", "--min-interval", "0.02")
            assert code == 0, err
            assert document["changed"] == ["max_interval", "max_merge_delay", "min_interval"]
            assert (document["min_interval"], document["max_interval"]) == (20, 200)
            for line in ("- max_interval 0.1 s", "+ max_interval 0.2 s", "+ min_interval 0.02 s"):
                assert line in err
            code, shown, _ = operator("config", "show")
            assert code == 0
            assert shown["hash"] == document["hash"]
            assert shown["number"] == 2
        assert operator.audited() == len(heads(operator.truth))

    def test_repeated_it_signs_nothing(self, operator: Operator) -> None:
        with running(operator):
            for changed in (["max_merge_delay"], []):
                code, document, _ = operator("config", "set", "--max-merge-delay", "3")
                assert (code, document["changed"]) == (0, changed)
        assert len(operator.configs()) == 2

    def test_interrupted_it_is_continued(self, operator: Operator) -> None:
        with running(operator):
            pass
        for _ in range(2):
            assert operator("config", "set", "--max-interval", "0.3", "--timeout", "0")[0] == 7
        code, shown, _ = operator("config", "show")
        assert (code, shown["epoch"], shown["max_interval"]) == (0, None, 300)
        with running(operator):
            assert operator("config", "set", "--max-interval", "0.3")[0] == 0
        assert len(operator.configs()) == 2

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            ((), "nothing to set"),
            (("--max-interval", "2592001"), "max_interval"),
            (("--min-interval", "5"), "min_interval"),
        ],
    )
    def test_what_no_reader_would_take_is_not_signed(
        self, operator: Operator, words: tuple[str, ...], problem: str
    ) -> None:
        code, document, _ = operator("config", "set", *words)
        assert code == 2
        assert problem in document["error"]["problem"]
        assert operator.truth.last_revision(NAMES.queue) == 0


class TestChanges:
    def changes(
        self, log: EventLog, pinned: PrivateKey = b.SIGNER, base: Base | None = None
    ) -> ConfigChanges:
        return ConfigChanges(log, NAMES, b.ORIGIN, b.public(pinned), base or Base())

    def test_what_is_refused_is_not_part_of_the_chain(self) -> None:
        log = new_log()
        first = self.changes(log).chain()[0].config
        stranger = SignedConfig.sign(following(first, max_interval=7), [b.private_key("eve")])
        for data in (stranger.encode(), b"garbage"):
            log.append(NAMES.queue, ANY, [content_event(NAMES.queue, CONFIG, data)])
        changes = self.changes(log)
        made = sign_change(following(first, max_interval=70_000), [b.SIGNER])
        changes.submit(made)
        assert [signed.config.max_interval for signed in changes.chain()] == [60_000, 70_000]

    def test_a_lost_race_is_reported(self) -> None:
        log = new_log()
        changes = self.changes(log)
        first = changes.chain()[0].config
        changes.submit(sign_change(following(first, max_interval=70_000), [b.SIGNER]))
        with pytest.raises(Exception, match="another change of the config came first"):
            changes.submit(sign_change(following(first, max_interval=80_000), [b.SIGNER]))

    def test_another_directory_and_a_truncated_queue(self) -> None:
        log = new_log()
        with pytest.raises(Exception, match="never was a signer key"):
            self.changes(log, b.private_key("eve")).chain()
        with pytest.raises(ConfigError, match="has no config yet"):
            self.changes(MemoryLog()).chain()
        log.append(NAMES.queue, ANY, [content_event(NAMES.queue, "Other", b"")])
        log.truncate(NAMES.queue, 1)
        with pytest.raises(ConfigError, match="is truncated"):
            self.changes(log).chain()
        base = Base((b.signed_config(),), 1)
        assert self.changes(log, base=base).chain() == (b.signed_config(),)


def test_a_ring_finds_a_key_that_came_later(tmp_path: Path) -> None:
    replace_file(tmp_path / "signer.pem", b.SIGNER.to_pem())
    ring = KeyRing.load(tmp_path)
    later = b.private_key("later")
    with pytest.raises(ConfigError, match="no private key"):
        ring.key_for(b.public(later))
    replace_file(tmp_path / "later.pem", later.to_pem())
    assert ring.key_for(b.public(later)).public == later.public
