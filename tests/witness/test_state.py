"""The folder of a witness: a key and its memory belong together, and damage is found at the start."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_es.crypto import mldsa
from kt_es.errors import ConfigError, DivergenceError, LockedError, UnavailableError
from kt_es.formats.cosignatures import cosign, read_cosigned
from kt_es.formats.notes import parse_note, verifier_key
from kt_es.formats.witnessing import origin_hash, parse_size
from kt_es.witness.logs import known_logs
from kt_es.witness.state import opened
from kt_es.witness.witness import Witness
from tests.witness.test_judging import KEY, LOGS, NAME, ORIGIN, OTHER, Clock, made, note_of, request


def vkey(folder: Path, name: str | None = None) -> str:
    with opened(folder, name) as identity:
        return identity.public.vkey


def test_a_new_folder_gets_a_key_that_stays(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --name"):
        vkey(tmp_path / "w")
    for name in ("a b", "a+b", ""):
        with pytest.raises(ConfigError, match="--name"):
            vkey(tmp_path / "w", name)
    first = vkey(tmp_path / "w", NAME)
    assert first == vkey(tmp_path / "w") == vkey(tmp_path / "w", NAME)
    assert (tmp_path / "w" / "key.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="not other"):
        vkey(tmp_path / "w", "other")
    assert first != vkey(tmp_path / "v", NAME)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        opened(tmp_path, NAME),
        pytest.raises(LockedError, match="another witness runs"),
        opened(tmp_path, NAME),
    ):
        pass


def test_it_remembers_after_a_restart(tmp_path: Path) -> None:
    made(tmp_path).add_checkpoint(request(0, 5))
    witness = made(tmp_path)
    assert parse_size(witness.add_checkpoint(request(0, 8)).body) == 5
    assert witness.add_checkpoint(request(5, 8, fork=1)).status == 422


def _delete_logs(folder: Path) -> None:
    shutil.rmtree(folder / "logs")


def _delete_files(folder: Path) -> None:
    for path in (folder / "logs").iterdir():
        path.unlink()


def _delete_name(folder: Path) -> None:
    (folder / "witness.json").unlink()


def _another_key(folder: Path) -> None:
    vkey(folder.with_name("other"), NAME)
    shutil.copy(folder.with_name("other") / "key.pem", folder / "key.pem")


def _change(folder: Path) -> None:
    path = folder / "logs" / origin_hash(ORIGIN)
    path.write_text(path.read_text().replace("\n5\n", "\n4\n"))


def _empty(folder: Path) -> None:
    (folder / "logs" / origin_hash(ORIGIN)).write_bytes(b"")


def _swap(folder: Path) -> None:
    (folder / "logs" / origin_hash(ORIGIN)).rename(folder / "logs" / origin_hash(OTHER))


def _uncosigned(folder: Path) -> None:
    (folder / "logs" / origin_hash(ORIGIN)).write_text(note_of(5))


@pytest.mark.parametrize(
    "damage", [_delete_logs, _delete_files, _delete_name, _another_key, _change, _empty, _swap, _uncosigned]
)
def test_a_key_without_its_memory_cosigns_nothing(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "w"
    made(folder).add_checkpoint(request(0, 5))
    damage(folder)
    with pytest.raises((ConfigError, DivergenceError)):
        made(folder)


def test_one_lost_file_of_several_is_named_at_the_start(tmp_path: Path) -> None:
    witness = made(tmp_path)
    for origin in (ORIGIN, OTHER):
        assert witness.add_checkpoint(request(0, 5, origin=origin)).status == 200
    lost = tmp_path / "logs" / origin_hash(OTHER)
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(DivergenceError, match=f"{lost} is lost"):
        made(tmp_path)
    # It was only elsewhere.
    lost.write_bytes(kept)
    assert parse_size(made(tmp_path).add_checkpoint(request(0, 8, origin=OTHER)).body) == 5


def test_a_folder_of_an_earlier_version_goes_on_and_remembers_from_then_on(tmp_path: Path) -> None:
    made(tmp_path).add_checkpoint(request(0, 5))
    name = tmp_path / "witness.json"
    written = json.loads(name.read_bytes())
    assert written.pop("logs") == [origin_hash(ORIGIN)]
    name.write_text(json.dumps(written))
    assert parse_size(made(tmp_path).add_checkpoint(request(0, 8)).body) == 5
    (tmp_path / "logs" / origin_hash(ORIGIN)).unlink()
    with pytest.raises(DivergenceError, match="is lost"):
        made(tmp_path)


def test_a_witness_that_cannot_remember_a_log_does_not_cosign_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = made(tmp_path)

    def full(path: Path, data: bytes) -> None:
        if path.name == "witness.json":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    with monkeypatch.context() as patched:
        patched.setattr("kt_es.witness.state.replace_file", full)
        with pytest.raises(UnavailableError):
            witness.add_checkpoint(request(0, 5))
    # Killed there: the file is written and not named, so it is a memory all the same.
    assert parse_size(made(tmp_path).add_checkpoint(request(0, 8)).body) == 5


@pytest.mark.parametrize("logs", ['"x"', "[1]"])
def test_a_damaged_list_of_logs_is_refused(tmp_path: Path, logs: str) -> None:
    made(tmp_path)
    name = tmp_path / "witness.json"
    name.write_text(name.read_text().replace("[]", logs))
    with pytest.raises(DivergenceError, match="damaged"):
        made(tmp_path)


def test_a_file_that_was_never_complete_is_no_memory(tmp_path: Path) -> None:
    made(tmp_path).add_checkpoint(request(0, 5))
    (tmp_path / "logs" / ".0123.new").write_bytes(b"half a no")
    assert parse_size(made(tmp_path).add_checkpoint(request(0, 8)).body) == 5


def test_a_beginning_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), opened(tmp_path, NAME, _interrupted):
        pass
    assert not (tmp_path / "witness.json").exists()
    first = vkey(tmp_path, NAME)
    # Up to the last step: the key is there, and has cosigned nothing.
    (tmp_path / "witness.json").unlink()
    assert vkey(tmp_path, NAME) == first
    assert json.loads((tmp_path / "witness.json").read_bytes())["vkey"] == first


def _interrupted(_: int) -> bytes:
    raise KeyboardInterrupt


def test_threads_never_get_cosignatures_of_two_forks(tmp_path: Path) -> None:
    with opened(tmp_path, NAME) as identity:
        witness = Witness(identity, LOGS, Clock())
        barrier, statuses = threading.Barrier(8), [0] * 8

        def ask(number: int) -> None:
            barrier.wait()
            statuses[number] = witness.add_checkpoint(request(0, 8, fork=number)).status

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200, *[409] * 7]


class TestLists:
    VKEYS = [key.encode() for key in LOGS[ORIGIN]]

    def known(self, tmp_path: Path, text: str) -> dict[str, list[str]]:
        path = tmp_path / "logs"
        path.write_text(text)
        return {origin: [key.encode() for key in keys] for origin, keys in known_logs([], [path]).items()}

    def test_a_list_as_the_specification_has_it(self, tmp_path: Path) -> None:
        text = (
            f"#\n# comment\nlogs/v0\n\n  vkey {self.VKEYS[0]}\nqpd 1\ncontact a b\n\n"
            f"vkey {self.VKEYS[1]}\norigin other origin\n\tqpd 24\n\tcontact x (at) y\n"
        )
        assert self.known(tmp_path, text) == {ORIGIN: [self.VKEYS[0]], "other origin": [self.VKEYS[1]]}

    def test_two_keys_of_one_log(self, tmp_path: Path) -> None:
        parts = [f"vkey {vkey}\nqpd 1\ncontact a\n" for vkey in (*self.VKEYS, self.VKEYS[0])]
        assert self.known(tmp_path, "logs/v0\n" + "".join(parts)) == {ORIGIN: self.VKEYS}
        assert known_logs(self.VKEYS, []) == {ORIGIN: LOGS[ORIGIN]}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "logs/v1\n",
            "vkey KEY\nqpd 1\ncontact a\n",
            "logs/v0\nvkey KEY\n",
            "logs/v0\nvkey KEY\nqpd 1\n",
            "logs/v0\nvkey KEY\ncontact a\nqpd 1\n",
            "logs/v0\nqpd 1\nvkey KEY\ncontact a\n",
            "logs/v0\nvkey KEY\nqpd 1\ncontact a\nmore b\n",
            "logs/v0\nvkey junk\nqpd 1\ncontact a\n",
        ],
    )
    def test_no_other_text_is_one(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ConfigError):
            self.known(tmp_path, text.replace("KEY", self.VKEYS[0]))

    def test_a_line_of_the_command_is_named(self) -> None:
        with pytest.raises(ConfigError, match="--log"):
            known_logs(["junk"], [])


def test_a_cosignature_of_another_witness_is_no_memory(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    made(folder)
    vkey(folder.with_name("other"), NAME)
    with opened(folder.with_name("other"), None) as other:
        note = note_of(5)
        line = cosign(parse_note(note).text, NAME, other.key, 5)
    (folder / "logs" / origin_hash(ORIGIN)).write_text(note + line)
    with pytest.raises(DivergenceError, match="must not go on"):
        made(folder)


@pytest.mark.skipif(not mldsa.is_available(), reason="the installed cryptography has no ML-DSA-44")
def test_a_second_key_is_added_beside_the_memory(tmp_path: Path) -> None:
    made(tmp_path).add_checkpoint(request(0, 5))
    with opened(tmp_path, None, ml_dsa=True) as identity:
        first, second = identity.keys
        witness = Witness(identity, LOGS, Clock())
        # At once, though the first key has cosigned within this second.
        reply = witness.add_checkpoint(request(5, 5))
        assert set(read_cosigned(note_of(5).encode() + reply.body, identity.keys).cosigners) == {
            first,
            second,
        }
        assert witness.add_checkpoint(request(5, 5)) == reply
        assert witness.add_checkpoint(request(5, 8, fork=1)).status == 422
    with opened(tmp_path, None) as identity:
        assert identity.keys == (first, second)
        assert parse_size(Witness(identity, LOGS, Clock()).add_checkpoint(request(0, 8)).body) == 5


def test_names_that_ml_dsa_cannot_sign_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose a name of at most 255"), opened(tmp_path / "w", "w" * 256):
        pass
    assert vkey(tmp_path / "w", "w" * 255)
    key = verifier_key("o" * 256, KEY.public)
    with pytest.raises(ConfigError, match="has an origin of 256 bytes"):
        known_logs([key.encode()], [])
