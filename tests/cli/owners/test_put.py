"""What ``kt put`` shows, signs, refuses and says."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from tests import builders as b
from tests.cli.owners.people import ALICE, KEY, LAPTOP, PHONE, STRANGER, Kt, follow, ids, standing
from tests.reference.directory import Directory


class TestPut:
    def test_it_shows_what_it_signs(self, kt: Kt) -> None:
        code, document, err = kt("put", ALICE)
        assert code == 0
        key = ids(KEY)[0]
        assert f"version 2 of {ALICE}, signed by {key} (default)" in err
        sha256 = hashlib.sha256(b"new").hexdigest().upper()
        assert f"+ key raw new.raw, 3 bytes, fingerprint {sha256}" in err
        assert "- key raw laptop, 7 bytes, fingerprint " in err
        assert f"= authorized to sign the next version: {key} (default)" in err
        assert err.index("+ key raw") < err.index("stands in the directory")
        assert document["signed"] == {
            "published": [{"name": "new.raw", "type": "raw", "bytes": 3, "fingerprint": sha256}],
            "version": 2,
            "signed_by": [key],
            "keys": {"added": ["new.raw"], "kept": [], "removed": ["laptop"]},
            "authorized_keys": {"added": [], "kept": [key], "removed": []},
        }
        assert document["stands"]

    def test_a_private_key_is_refused_before_anything_is_asked(self, kt: Kt, directory: Directory) -> None:
        asked: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return directory.handle(request)

        kt.handler = handle
        kt.file.write_bytes(KEY.to_pem())
        code, document, err = kt("put", ALICE)
        assert (code, asked) == (2, [])
        assert "holds a private key" in document["error"]["problem"]
        assert "nothing was published" in err

    def test_what_is_not_recognized_needs_its_type(self, kt: Kt) -> None:
        code, document, _ = kt("put", "--type", "openpgp", ALICE)
        assert code == 2
        assert "--type raw" in document["error"]["problem"]

    def test_a_rotation_is_shown(self, kt: Kt) -> None:
        kt.keys.add("next", LAPTOP)
        _, document, err = kt("put", "--rotate-to", "next", ALICE)
        assert f"+ authorized to sign the next version: {ids(LAPTOP)[0]} (next)" in err
        assert document["signed"]["authorized_keys"] == {
            "added": ids(LAPTOP),
            "kept": [],
            "removed": ids(KEY),
        }

    def test_unknown_keys_are_refused_before_anything_is_signed(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        code, _, err = kt("put", ALICE)
        assert code == 1
        assert ids(STRANGER)[0] in err
        assert "--accept KEYID" in err
        assert standing(directory).entry.version == 3
        assert kt("put", "--accept", ids(PHONE)[0], ALICE)[0] == 0

    def test_accepting_takes_a_key_over_once_and_for_all(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        assert kt("put", ALICE)[0] == 1
        assert kt("put", "--accept", ids(STRANGER)[0], ALICE)[0] == 0
        assert kt("put", ALICE)[0] == 0

    def test_an_unknown_key_can_be_left_out(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        code, document, _ = kt("put", "--rotate-to", "default", ALICE)
        assert code == 0
        assert document["signed"]["authorized_keys"]["removed"] == ids(PHONE, STRANGER)

    def test_what_is_no_key_id_is_a_usage_error(self, kt: Kt) -> None:
        assert kt("put", "--accept", "somebody", ALICE)[0] == 2

    def test_it_signs_with_the_held_key_that_the_entry_names(self, kt: Kt, directory: Directory) -> None:
        kt.keys.add("laptop", LAPTOP)
        made = b.next_mutation("alice", standing(directory), keys=[LAPTOP], signed_by=[KEY, LAPTOP])
        assert directory.put(made, b.opening("alice", 2), b.profile("alice", 2)).succeeded
        directory.advance()
        code, document, err = kt("put", ALICE)
        assert (code, document["signed"]["signed_by"]) == (0, ids(LAPTOP))
        assert "(laptop)" in err

    def test_without_such_a_key_it_names_those_that_are_needed(self, kt: Kt, directory: Directory) -> None:
        made = b.next_mutation("alice", standing(directory), keys=[PHONE], signed_by=[KEY, PHONE])
        assert directory.put(made, b.opening("alice", 2), b.profile("alice", 2)).succeeded
        directory.advance()
        for words in ((), ("--sign-with", "default")):
            code, _, err = kt("put", *words, ALICE)
            assert code == 1
            assert f"can be changed by the keys {ids(PHONE)[0]} only" in err

    def test_another_change_came_first(self, kt: Kt, directory: Directory) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/mutations":
                kt.handler = directory.handle
                follow(directory, KEY, PHONE)
            return directory.handle(request)

        kt.handler = handle
        code, _, err = kt("put", ALICE)
        assert code == 1
        assert "stands in the directory" not in err
        assert standing(directory).entry.authorized_keys[1] == b.public(PHONE)

    def test_a_later_version_stands_already(self, kt: Kt, directory: Directory) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            response = directory.handle(request)
            if request.url.path == "/v1/mutations":
                follow(directory, KEY, PHONE)
            return response

        kt.handler = handle
        code, document, err = kt("put", ALICE)
        assert (code, document["stands"]) == (0, False)
        assert "stands in the directory" not in err
        assert "version 2 of alice@example.org was taken, but version 3 has replaced it" in err

    def test_a_terminal_is_asked(self, kt: Kt, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = ["n", "y"]
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("click.confirm", lambda *_, **__: answers.pop(0) == "y")
        code, _, err = kt("put", ALICE)
        assert code == 1
        assert "nothing was signed" in err
        assert standing(directory).entry.version == 1
        assert kt("put", ALICE)[0] == 0
        assert kt("put", "--yes", ALICE)[0] == 0
        assert answers == []


class TestHistory:
    def test_every_epoch_in_runs(self, kt: Kt, directory: Directory) -> None:
        directory.advance()
        follow(directory, KEY)
        code, document, err = kt("history", "--every-epoch", ALICE)
        assert code == 0
        assert [(run["first"], run["last"], run["version"]) for run in document["epochs"]] == [
            (1, 2, 1),
            (3, 3, 2),
        ]
        assert "each epoch from 1 to 3 verified" in err

    def test_absence_in_every_epoch(self, kt: Kt) -> None:
        code, document, _ = kt("history", "--every-epoch", "nobody@example.org")
        assert (code, document["versions"]) == (3, [])
        assert document["epochs"] == [{"first": 1, "last": 1, "version": None, "entry": None}]

    def test_a_version_that_stood_for_one_epoch_convicts(self, kt: Kt, directory: Directory) -> None:
        honest = standing(directory)
        for lie in (b.next_mutation("alice", honest, keys=[STRANGER]), honest):
            directory.forced[b.index("alice")] = lie
            directory.advance()
        assert kt("history", ALICE)[0] == 0
        code, _, err = kt("history", "--every-epoch", ALICE)
        assert code == 5
        assert "the evidence is in" in err

    def test_since_an_epoch(self, kt: Kt, directory: Directory) -> None:
        directory.advance()
        assert kt("history", "--every-epoch", "--since", "2", ALICE)[1]["epochs"][0]["first"] == 2
        assert kt("history", "--since", "2", ALICE)[0] == 2
        assert kt("history", "--every-epoch", "--since", "9", ALICE)[0] == 2
