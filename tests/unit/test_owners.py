"""Publishing vouches for nothing unasked: what ``kt put`` shows, signs, refuses and says."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.cli.clients import Reach
from kt_es.cli.importing import MERGING
from kt_es.cli.main import main
from kt_es.client.bulk import Progress, Wanted, publish_all
from kt_es.client.client import Client
from kt_es.client.keystore import KeyStore
from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
from kt_es.client.vouching import OWN, Difference, Mine, Own
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError, MalformedError, RefusedError, VerificationError
from kt_es.formats.entries import Mutation
from kt_es.formats.profiles import ProfileKey
from kt_es.importers.combining import combined
from tests import builders as b
from tests.reference.directory import Directory

ALICE = b.label_of("alice")
RITA = "rita@example.org"
CASES = Path(__file__).parents[1] / "cases" / "import-replaces-other-keys"
KEY = b.private_key("alice")
LAPTOP, PHONE, STRANGER = (b.private_key(name) for name in ("laptop", "phone", "stranger"))
PROFILE = [ProfileKey("laptop", "raw", b"new")]
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def directory() -> Directory:
    """alice in epoch 1, with one key."""
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    return directory


def client_of(
    directory: Directory, store: StateStore | None = None, handler: Handler | None = None
) -> Client:
    return Client(
        "http://kt.test",
        store or MemoryStateStore(),
        transport=httpx.MockTransport(handler or directory.handle),
        now=lambda: directory.now,
        timeout=2.0,
    )


def standing(directory: Directory, user: str = "alice") -> Mutation:
    return directory.mutations[directory.entries[b.index(user)]]


def follow(directory: Directory, *keys: PrivateKey, signed_by: PrivateKey = KEY) -> None:
    """The next version of alice's account in an epoch of its own."""
    made = b.next_mutation("alice", standing(directory), keys=keys, signed_by=[signed_by])
    number = made.entry.version
    assert directory.put(made, b.opening("alice", number), b.profile("alice", number)).succeeded
    directory.advance()


def ids(*keys: PrivateKey) -> list[str]:
    return [b.public(key).id.hex() for key in keys]


class TestPropose:
    """The library's own calls obey the rule, not only the command."""

    def test_what_is_mine_is_signed_on(self, directory: Directory) -> None:
        published = client_of(directory).publish(ALICE, PROFILE, [KEY])
        assert published.stands
        assert standing(directory).entry.version == 2

    def test_keys_that_a_key_of_mine_brought_in_are_known(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        assert client_of(directory).publish(ALICE, PROFILE, [KEY]).stands

    def test_a_key_that_another_key_brought_in_is_not(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        with pytest.raises(RefusedError) as refused:
            client_of(directory).publish(ALICE, PROFILE, [KEY])
        assert refused.value.reason == "unknown-keys"
        assert ids(STRANGER)[0] in str(refused.value)
        assert ids(PHONE)[0] not in str(refused.value)
        assert standing(directory).entry.version == 3

    def test_declared_keys_are_known_and_so_is_what_they_brought_in(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, LAPTOP, signed_by=PHONE)
        client = client_of(directory)
        mine = Mine(frozenset(), frozenset({b.public(PHONE).id}))
        before = client.lookup(ALICE)
        assert client.send(client.propose(before, PROFILE, [KEY], mine=mine)).stands

    def test_a_key_that_the_directory_injected_without_authorization(self, directory: Directory) -> None:
        """The map holds it and proves it; the keys before did not sign it."""
        injected = b.next_mutation("alice", standing(directory), keys=[KEY, STRANGER], signed_by=[STRANGER])
        directory.forced[b.index("alice")] = injected
        directory.private[injected.entry_hash] = (b.opening("alice", 2), b.profile("alice", 2))
        directory.advance()
        directory.versions[b.index("alice")].append((2, injected.entry_hash))
        with pytest.raises(VerificationError, match="version 2 is not authorized"):
            client_of(directory).publish(ALICE, PROFILE, [KEY])

    def test_keys_that_the_caller_names_are_the_callers_word(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        published = client_of(directory).publish(ALICE, PROFILE, [KEY], [b.public(KEY)])
        assert published.stands
        assert standing(directory).entry.authorized_keys == (b.public(KEY),)

    def test_what_was_signed_last_has_to_stand_in_the_history(self, directory: Directory) -> None:
        store = MemoryStateStore()
        client = client_of(directory, store)
        client.publish(ALICE, PROFILE, [KEY])
        data = store.recall(OWN, ALICE.encode())
        assert data is not None
        assert Own.decode(data) == Own(2, standing(directory).entry_hash)
        store.remember(OWN, ALICE.encode(), Own(2, bytes(32)).encode())
        with pytest.raises(VerificationError, match="does not have the version 2 that was signed here"):
            client.publish(ALICE, PROFILE, [KEY])
        store.remember(OWN, ALICE.encode(), b"\x80")
        with pytest.raises(ConfigError, match="is damaged"):
            client.publish(ALICE, PROFILE, [KEY])

    def test_a_lost_race_is_judged_anew(self, directory: Directory) -> None:
        """Between the lookup and the submission another key of the account adds a stranger's."""
        follow(directory, KEY, PHONE)
        raced = False

        def handle(request: httpx.Request) -> httpx.Response:
            nonlocal raced
            if request.url.path == "/v1/mutations" and not raced:
                raced = True
                follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
            return directory.handle(request)

        with pytest.raises(RefusedError) as refused:
            client_of(directory, handler=handle).publish(ALICE, PROFILE, [KEY], retries=3)
        assert refused.value.reason == "unknown-keys"

    def test_a_difference_says_what_is_added_kept_and_removed(self) -> None:
        assert Difference.between("ab", "bc") == Difference(("c",), ("b",), ("a",))


class TestBulk:
    def publish(self, directory: Directory, *keys: PrivateKey) -> tuple[int, list[tuple[str, str]]]:
        quiet = Progress(lambda: None, lambda: None)
        accounts = [Wanted(ALICE, tuple(PROFILE)), Wanted(b.label_of("bob"), tuple(PROFILE))]
        report = publish_all(
            client_of(directory), accounts, keys, quiet, merging=MERGING, jobs=1, patience=2.0
        )
        return report.published, report.refused

    def test_accounts_of_my_own_are_published(self, directory: Directory) -> None:
        assert self.publish(directory, KEY) == (2, [])

    def test_keys_that_a_key_of_mine_brought_in_are_known(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        assert self.publish(directory, KEY) == (2, [])

    def test_unknown_keys_of_an_account_are_refused_with_the_reason(self, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        published, refused = self.publish(directory, KEY)
        assert published == 1
        ((label, problem),) = refused
        assert label == ALICE
        assert problem.startswith("unknown-keys: ")
        assert ids(STRANGER)[0] in problem
        assert standing(directory).entry.version == 3


class TestImport:
    """A second import adds to an account, or says that it replaces."""

    def write(self, kt: Kt, name: str) -> str:
        path = kt.home / name
        path.write_bytes((CASES / name).read_bytes())
        return str(path)

    def keys(self, kt: Kt) -> list[str]:
        return [key["type"] for key in kt("get", RITA)[1]["keys"]]

    def test_a_second_import_adds(self, kt: Kt) -> None:
        code, document, err = kt("import", "openpgp", self.write(kt, "r1.asc"))
        assert code == 0, err
        code, document, err = kt("import", "ssh", self.write(kt, "r1_signers"))
        assert (code, document["published"], document["extended"], document["replaced"]) == (0, 1, 1, 0)
        assert f"{RITA}: ssh SHA256:" in err
        assert err.index(f"{RITA}: ssh SHA256:") < len(err)
        assert self.keys(kt) == ["openpgp", "ssh"]
        for kind, name in (("openpgp", "r1.asc"), ("ssh", "r1_signers")):
            document = kt("import", kind, str(kt.home / name))[1]
            assert (document["published"], document["unchanged"]) == (0, 1)

    def test_it_replaces_where_it_says_so(self, kt: Kt) -> None:
        kt("import", "openpgp", self.write(kt, "r1.asc"))
        signers = self.write(kt, "r1_signers")
        code, document, err = kt("import", "--dry-run", "--replace", "ssh", signers)
        assert (code, document["published"]) == (0, 0)
        (planned,) = document["planned"]
        assert (planned["label"], planned["action"]) == (RITA, "replaced")
        assert [key["type"] for key in planned["keys"]] == ["ssh"]
        assert [key["type"] for key in planned["lost"]] == ["openpgp"]
        assert "lose those marked -" in err
        assert self.keys(kt) == ["openpgp"]
        assert kt("import", "--replace", "ssh", signers)[1]["replaced"] == 1
        assert self.keys(kt) == ["ssh"]

    def test_a_dry_run_lists_accounts_and_skipped_lines(self, kt: Kt) -> None:
        signers = self.write(kt, "r1_signers")
        line = Path(signers).read_text()
        key = line.split(" ", 1)[1].strip()
        added = f'{line}x@example.org valid-before="20200101" {key}\nbob@example.org {key}\nrubbish\n'
        Path(signers).write_text(added)
        code, document, err = kt("import", "--dry-run", "ssh", signers)
        assert code == 0
        assert [(one["label"], one["action"]) for one in document["planned"]] == [
            (RITA, "new"),
            ("bob@example.org", "new"),
        ]
        number = len(line.splitlines())
        assert document["skipped_parts"] == [
            {"what": f"line {number + 1}", "reason": "has expired"},
            {"what": f"line {number + 3}", "reason": "is no SSH public key"},
        ]
        assert f"skipped line {number + 1}: has expired" in err
        assert kt("get", RITA)[1]["absent"]
        kt("import", "ssh", signers)
        again = kt("import", "--dry-run", "ssh", signers)[1]["planned"]
        assert [one["action"] for one in again] == ["unchanged", "unchanged"]

    def test_an_old_copy_takes_no_revocation_back(self) -> None:
        parts = [b"\xc6\x0a\x04" + bytes(4) + b"\x1b" + bytes(4), b"\xc2\x01r", b"\xcd\x01u", b"\xc2\x01s"]
        revoked, old = b"".join(parts), b"".join([parts[0], *parts[2:], b"\xc2\x01t"])
        present = ProfileKey("mine", "openpgp", revoked)
        (both,) = combined([present], [ProfileKey("F", "openpgp", old)])
        assert (both.name, both.data) == ("mine", revoked + b"\xc2\x01t")
        assert combined([both], [present]) == (both,)

    def test_what_does_not_fit_is_refused(self) -> None:
        half = [ProfileKey(name, "raw", name.encode() * (300 * 1024)) for name in "ab"]
        with pytest.raises(MalformedError, match="exceed"):
            combined(half[:1], half[1:])
        many = [ProfileKey(str(number), "raw", b"%d" % number) for number in range(257)]
        with pytest.raises(MalformedError, match="256 keys"):
            combined(many[:1], many[1:])
        assert combined(many[:5], many[:9]) == tuple(many[:9])

    def test_several_certificates_in_one_key_are_left_alone(self) -> None:
        first = b"\xc6\x0a\x04" + bytes(4) + b"\x1b" + bytes(4)
        second = b"\xc6\x0a\x04" + bytes(4) + b"\x1b" + bytes(3) + b"\x01"
        ring = ProfileKey("ring", "openpgp", first + second)
        one = ProfileKey("one", "openpgp", first)
        assert combined([ring], [one]) == (ring, one)


class Kt:
    """``kt`` in this process, its client asking a directory of the tests."""

    def __init__(self, directory: Directory, home: Path, capsys: Any, patch: pytest.MonkeyPatch) -> None:
        self.handler: Handler = directory.handle
        self.home = home
        self.keys = KeyStore(home / "keys")
        self.file = home / "new.raw"
        self.file.write_bytes(b"new")
        self._lock = threading.Lock()
        self._capsys = capsys
        self._patch = patch

        def client(reach: Reach, *_: object, **__: object) -> Client:
            return client_of(directory, FileStateStore(reach.state / "directory"), self.handle)

        patch.setattr(Reach, "client", client)

    def handle(self, request: httpx.Request) -> httpx.Response:
        # An import asks from several threads, and the directory is of one.
        with self._lock:
            return self.handler(request)

    def __call__(self, command: str, *words: str) -> tuple[int, dict[str, Any], str]:
        """The exit code, the document and what stands on standard error."""
        options = ["--state", str(self.home / "state")]
        if command in ("put", "revoke", "erase", "import"):
            options += ["--keys", str(self.home / "keys")]
        if command == "put":
            options += ["--type", "raw"]
            if not {"--add", "--remove", "--key"} & set(words):
                options += ["--key", str(self.file)]
        return self._run(command, *options, *words)

    def with_config(self, command: str, *words: str) -> tuple[int, dict[str, Any], str]:
        """The same as an operator, with the ``kt.toml`` of the home."""
        options = ["--state", str(self.home / "state"), "--keys", str(self.home / "keys")]
        return self._run("-c", str(self.home / "kt.toml"), command, *options, *words)

    def _run(self, *words: str) -> tuple[int, dict[str, Any], str]:
        self._patch.setattr(sys, "argv", ["kt", "--json", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out or "{}"), err


@pytest.fixture
def kt(directory: Directory, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Kt:
    kt = Kt(directory, tmp_path, capsys, monkeypatch)
    kt.keys.add("default", KEY)
    return kt


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
        kt.handler = lambda request: (asked.append(request), directory.handle(request))[1]
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

    def test_without_such_a_key_it_says_which_are_needed(self, kt: Kt, directory: Directory) -> None:
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


class TestEdit:
    """``kt put --add`` and ``--remove``."""

    def keys(self, directory: Directory) -> dict[str, bytes]:
        found = client_of(directory).lookup(ALICE).profile
        return {key.name: key.data for key in found or ()}

    def test_added_keys_stand_beside_the_published_ones(self, kt: Kt, directory: Directory) -> None:
        code, document, err = kt("put", "--add", str(kt.file), ALICE)
        assert code == 0, err
        assert self.keys(directory) == {"laptop": b"alice 1", "new.raw": b"new"}
        assert document["signed"]["keys"] == {"added": ["new.raw"], "kept": ["laptop"], "removed": []}
        assert "= key raw laptop, 7 bytes" in err

    def test_a_namesake_is_replaced(self, kt: Kt, directory: Directory) -> None:
        kt("put", "--add", str(kt.file), ALICE)
        kt.file.write_bytes(b"newer")
        assert kt("put", "--add", str(kt.file), "--remove", "laptop", ALICE)[0] == 0
        assert self.keys(directory) == {"new.raw": b"newer"}
        assert standing(directory).entry.version == 3

    def test_repeated_it_signs_nothing(self, kt: Kt, directory: Directory) -> None:
        for _ in range(2):
            code, document, err = kt("put", "--add", str(kt.file), "--remove", "laptop", ALICE)
            assert code == 0, err
        assert document["signed"] is None
        assert document["stands"]
        assert "version 2 of alice@example.org is like that already" in err
        assert standing(directory).entry.version == 2

    def test_a_name_that_never_was_published_is_refused(self, kt: Kt, directory: Directory) -> None:
        code, document, err = kt("put", "--remove", "laptob", ALICE)
        assert code == 1
        assert "has no key called laptob; its keys are called: laptop" in err
        assert document["error"]["kind"] == "failure"
        assert standing(directory).entry.version == 1

    def test_a_new_account_can_be_begun_by_adding(self, kt: Kt, directory: Directory) -> None:
        assert kt("put", "--add", str(kt.file), "bob@example.org")[0] == 0
        assert standing(directory, "bob").entry.version == 1

    @pytest.mark.parametrize(
        "words",
        [
            ("--key", "FILE", "--remove", "laptop"),
            ("--add", "FILE", "--remove", "new.raw"),
            ("--yes", "--key="),
        ],
    )
    def test_wrong_usage(self, kt: Kt, words: tuple[str, ...], directory: Directory) -> None:
        code, _, _ = kt("put", *(str(kt.file) if word == "FILE" else word for word in words), ALICE)
        assert code == 2
        assert standing(directory).entry.version == 1


class TestRevoke:
    def test_a_lost_key_goes_and_everything_else_stays(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        code, document, err = kt("revoke", ALICE, *ids(PHONE))
        assert code == 0, err
        assert standing(directory).entry.authorized_keys == (b.public(KEY),)
        assert document["signed"]["authorized_keys"] == {"added": [], "kept": ids(KEY), "removed": ids(PHONE)}
        assert document["signed"]["keys"]["removed"] == document["signed"]["keys"]["added"] == []
        assert f"- authorized to sign the next version: {ids(PHONE)[0]}" in err

    def test_the_revoked_key_signs_no_version_where_another_one_can(
        self, kt: Kt, directory: Directory
    ) -> None:
        kt.keys.add("phone", PHONE)
        follow(directory, KEY, PHONE)
        _, document, _ = kt("revoke", ALICE, "default")
        assert document["signed"]["signed_by"] == ids(PHONE)
        assert standing(directory).entry.authorized_keys == (b.public(PHONE),)

    def test_repeated_it_signs_nothing(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        for _ in range(2):
            code, document, _ = kt("revoke", ALICE, *ids(PHONE))
            assert code == 0
        assert document["signed"] is None
        assert standing(directory).entry.version == 3

    def test_the_only_key_needs_a_replacement(self, kt: Kt, directory: Directory) -> None:
        code, _, err = kt("revoke", ALICE, "default")
        assert code == 1
        assert "--replace-with NAME" in err
        kt.keys.add("laptop", LAPTOP)
        code, _, err = kt("revoke", ALICE, "default", "--replace-with", "laptop")
        assert code == 0, err
        assert standing(directory).entry.authorized_keys == (b.public(LAPTOP),)

    def test_a_replacement_comes_beside_the_keys_that_stay(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        kt.keys.add("laptop", LAPTOP)
        code, _, err = kt("revoke", ALICE, "default", "--replace-with", "laptop")
        assert code == 0, err
        assert standing(directory).entry.authorized_keys == (b.public(PHONE), b.public(LAPTOP))
        code, _, err = kt("revoke", ALICE, "default", "--replace-with", "laptop")
        assert "is like that already" in err

    def test_a_stranger_that_stays_is_not_vouched_for(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        code, _, err = kt("revoke", ALICE, *ids(PHONE))
        assert code == 1
        assert ids(STRANGER)[0] in err
        assert standing(directory).entry.version == 3
        assert kt("revoke", ALICE, *ids(PHONE, STRANGER))[0] == 0
        assert standing(directory).entry.authorized_keys == (b.public(KEY),)

    def test_a_key_that_never_was_is_refused(self, kt: Kt, directory: Directory) -> None:
        code, _, err = kt("revoke", ALICE, *ids(STRANGER))
        assert code == 1
        assert f"{ids(STRANGER)[0]} never was an authorized key" in err
        assert kt("revoke", ALICE, "nonsense")[0] == 2
        assert kt("revoke", b.label_of("bob"), *ids(KEY))[0] == 1
