"""An owner's watch: no epoch is skipped, no label hides another, and no alarm is lost."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.cli import watch as watch_module
from kt_es.cli.clients import Reach
from kt_es.cli.hooks import Hooks
from kt_es.cli.main import main
from kt_es.client import session
from kt_es.client.client import Client
from kt_es.client.keystore import KeyStore
from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
from kt_es.client.vouching import Mine
from kt_es.client.watching import KIND, Change, Progress, Watcher
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError, EquivocationError, UnavailableError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.entries import Mutation
from kt_es.formats.evidence import Evidence
from kt_es.formats.proofs import ProofFile
from tests import builders as b
from tests.reference.directory import Directory, problem

ALICE, BOB, CAROL = (b.label_of(name) for name in ("alice", "bob", "carol"))
ALICE_KEY = b.private_key("alice")
PHONE = b.private_key("phone")
STRANGER = b.private_key("stranger")
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def directory() -> Directory:
    """bob in epoch 1, alice in epoch 2."""
    directory = Directory()
    for user in ("bob", "alice"):
        directory.put_user(user)
        directory.advance()
    return directory


def client_of(directory: Directory, store: StateStore, handler: Handler | None = None) -> Client:
    return Client(
        "http://kt.test",
        store,
        transport=httpx.MockTransport(handler or directory.handle),
        now=lambda: directory.now,
    )


def mine_of(*keys: PrivateKey) -> Mine:
    return Mine(frozenset(b.public(key) for key in keys))


def standing(directory: Directory, user: str = "alice") -> Mutation:
    return directory.mutations[directory.entries[b.index(user)]]


def follow(
    directory: Directory,
    *keys: PrivateKey,
    signed_by: tuple[PrivateKey, ...] = (ALICE_KEY,),
    user: str = "alice",
) -> None:
    """The next version of an account, with these authorized keys, in an epoch of its own."""
    held = standing(directory, user)
    made = b.next_mutation(user, held, keys=keys, signed_by=signed_by)
    number = made.entry.version
    assert directory.put(made, b.opening(user, number), b.profile(user, number)).succeeded
    directory.advance()


class Watched:
    """A watcher, its store, and what it told."""

    def __init__(self, directory: Directory, mine: Mine, **options: bool) -> None:
        self.directory = directory
        self.store = MemoryStateStore()
        self.mine = mine
        self.options = options
        self.told: list[Change] = []
        self.watcher = self.again()

    def again(self, handler: Handler | None = None) -> Watcher:
        """A new process with the same state."""
        client = client_of(self.directory, self.store, handler)
        self.watcher = Watcher(client, self.mine, self.told.append, **self.options)
        return self.watcher

    def look(self, label: str = ALICE) -> list[Change]:
        """What one look tells."""
        self.told.clear()
        while self.watcher.look(label).behind:
            pass
        return list(self.told)

    def progress(self, label: str = ALICE) -> Progress:
        data = self.store.recall(KIND, label.encode())
        assert data is not None
        return Progress.decode(data)


class TestEveryEpoch:
    def test_the_first_watch_judges_the_history_and_then_every_epoch(self, directory: Directory) -> None:
        follow(directory, ALICE_KEY, STRANGER)
        follow(directory, ALICE_KEY)
        watched = Watched(directory, mine_of(ALICE_KEY))
        assert [(one.entry.version, one.mine) for one in watched.look()] == [(1, True), (2, False), (3, True)]
        assert watched.progress() == Progress(4, standing(directory).entry_hash)
        assert watched.look() == []

    def test_a_change_is_told_once_with_its_epoch(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        follow(directory, ALICE_KEY, STRANGER)
        directory.advance()
        (change,) = watched.look()
        assert (change.epoch, change.mine, change.authorized) == (3, False, True)
        assert change.signers == (b.public(ALICE_KEY),)
        assert watched.look() == []

    def test_an_entry_that_stood_for_one_epoch_between_two_looks(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        honest = standing(directory)
        directory.forced[b.index("alice")] = b.next_mutation("alice", honest, keys=[STRANGER])
        directory.advance()
        directory.forced[b.index("alice")] = honest
        directory.advance()
        with pytest.raises(EquivocationError, match="version 1, though version 2 stood there") as alarm:
            watched.look()
        assert alarm.value.evidence is not None
        assert convict(Evidence.decode(alarm.value.evidence))

    def test_the_count_stays_the_same_while_the_entry_changes(self, directory: Directory) -> None:
        """The newest version is still version 1, and the directory shows a history that fits to it."""
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        other = b.mutation("alice", keys=[STRANGER])
        directory.forced[b.index("alice")] = other
        directory.advance()
        directory.versions[b.index("alice")] = [(3, other.entry_hash)]
        with pytest.raises(EquivocationError, match="another version 1"):
            watched.look()

    def test_a_withheld_profile_hides_no_foreign_version(self, directory: Directory) -> None:
        """At the first watch neither: the history cannot be verified then, and every epoch is walked."""
        follow(directory, ALICE_KEY, STRANGER)
        del directory.private[standing(directory).entry_hash]
        assert [one.mine for one in Watched(directory, mine_of(ALICE_KEY)).look()] == [True, False]

    def test_an_unauthorized_version_in_the_history_is_told_at_the_first_watch(
        self, directory: Directory
    ) -> None:
        injected = b.next_mutation("alice", standing(directory), keys=[STRANGER])
        directory.forced[b.index("alice")] = injected
        directory.private[injected.entry_hash] = (b.opening("alice", 2), b.profile("alice", 2))
        directory.advance()
        directory.versions[b.index("alice")].append((3, injected.entry_hash))
        told = Watched(directory, mine_of(ALICE_KEY)).look()
        assert [(one.mine, one.authorized) for one in told] == [(True, True), (False, False)]

    def test_an_unauthorized_entry_that_stays(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        directory.forced[b.index("alice")] = b.next_mutation("alice", standing(directory), keys=[STRANGER])
        directory.advance()
        (change,) = watched.look()
        assert (change.mine, change.authorized) == (False, False)

    def test_an_account_that_somebody_else_opens(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        assert watched.look(CAROL) == []
        assert watched.progress(CAROL) == Progress(2, None)
        directory.put_user("carol")
        directory.advance()
        assert [(one.epoch, one.mine) for one in watched.look(CAROL)] == [(3, False)]

    def test_from_now_the_past_is_not_judged(self, directory: Directory) -> None:
        follow(directory, ALICE_KEY, STRANGER)
        follow(directory, ALICE_KEY)
        watched = Watched(directory, mine_of(ALICE_KEY), from_now=True)
        assert [(one.entry.version, one.mine) for one in watched.look()] == [(3, True)]
        follow(directory, ALICE_KEY, STRANGER)
        assert [one.mine for one in watched.look()] == [False]

    def test_600_epochs_are_read_in_ranges(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        for number in range(600):
            if number in (254, 255, 400):
                follow(directory, ALICE_KEY)
            else:
                directory.advance()
        sent: list[tuple[int, int]] = []

        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/range":
                body = json.loads(request.content)
                sent.append((body["first"], body["last"]))
            return directory.handle(request)

        watched.again(handle)
        assert [one.epoch for one in watched.look()] == [257, 258, 403]
        assert sent == [(2, 257), (257, 512), (512, 602)]
        assert watched.progress().epoch == 602

    def test_a_server_may_answer_about_fewer_epochs(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        for _ in range(5):
            follow(directory, ALICE_KEY)

        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path != "/v1/range":
                return directory.handle(request)
            body = json.loads(request.content)
            body["last"] = min(body["last"], body["first"] + 1)
            return directory.handle(
                httpx.Request("POST", "http://kt.test/v1/range", content=json.dumps(body).encode())
            )

        watched.again(handle)
        assert [one.epoch for one in watched.look()] == [3, 4, 5, 6, 7]

    def test_a_server_that_answers_about_no_new_epoch_is_refused(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        directory.advance()

        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path != "/v1/range":
                return directory.handle(request)
            body = {**json.loads(request.content), "last": 2}
            return directory.handle(
                httpx.Request("POST", "http://kt.test/v1/range", content=json.dumps(body).encode())
            )

        watched.again(handle)
        with pytest.raises(VerificationError, match=r"^answer: has no epoch after epoch 2"):
            watched.look()

    @pytest.mark.parametrize(("answers", "epoch"), [(1, 3), (100, 2)])
    def test_a_front_end_that_is_behind_is_asked_again(
        self, directory: Directory, answers: int, epoch: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is behind for a moment, or stays so: then nothing can be told."""
        monkeypatch.setattr(session, "_LAG_PAUSES", (0.0, 0.0))
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        directory.advance()
        behind = iter(range(answers))

        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/range" and next(behind, None) is not None:
                return problem(404, "unknown-epoch", "there is no such epoch yet", "last")
            return directory.handle(request)

        watched.again(handle)
        if answers == 1:
            watched.look()
        else:
            with pytest.raises(UnavailableError, match="does not know epoch 3 yet"):
                watched.look()
        assert watched.progress().epoch == epoch

    def test_an_alarm_is_not_lost_between_seeing_and_storing(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        follow(directory, ALICE_KEY, STRANGER)

        class CrashError(Exception):
            """The process ends here."""

        def crash(change: Change) -> None:
            raise CrashError

        with pytest.raises(CrashError):
            Watcher(client_of(directory, watched.store), watched.mine, crash).look(ALICE)
        assert watched.progress().epoch == 2
        watched.again()
        assert [one.mine for one in watched.look()] == [False]

    def test_an_outage_keeps_what_was_checked(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.look()
        for _ in range(300):
            directory.advance()
        ranges = 0

        def handle(request: httpx.Request) -> httpx.Response:
            nonlocal ranges
            ranges += request.url.path == "/v1/range"
            return httpx.Response(500) if ranges == 2 else directory.handle(request)

        watched.again(handle)
        with pytest.raises(UnavailableError):
            watched.look()
        assert watched.progress().epoch == 257

    def test_damaged_progress_is_named(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.store.remember(KIND, ALICE.encode(), b"\x80")
        with pytest.raises(ConfigError, match="is damaged"):
            watched.look()

    def test_progress_that_the_log_does_not_confirm_is_refused(self, directory: Directory) -> None:
        watched = Watched(directory, mine_of(ALICE_KEY))
        watched.store.remember(KIND, ALICE.encode(), Progress(2, bytes(32)).encode())
        directory.advance()
        with pytest.raises(VerificationError, match="epoch 2 holds another entry"):
            watched.look()


class TestMine:
    def test_a_declared_key_is_mine(self, directory: Directory) -> None:
        follow(directory, ALICE_KEY, PHONE)
        follow(directory, ALICE_KEY, PHONE, signed_by=(PHONE,))
        held = frozenset({b.public(ALICE_KEY)})
        assert [one.mine for one in Watched(directory, Mine(held)).look()] == [True, False, False]
        declared = Mine(held, frozenset({b.public(PHONE).id}))
        assert [one.mine for one in Watched(directory, declared).look()] == [True, True, True]

    def test_signed_by_mine_is_not_enough_and_neither_is_naming_mine(self, directory: Directory) -> None:
        mine = mine_of(ALICE_KEY)
        entry = b.entry("alice", keys=[ALICE_KEY])
        assert mine.made(entry, [b.public(ALICE_KEY)])
        assert not mine.made(entry, [b.public(STRANGER)])
        assert not mine.made(b.entry("alice", keys=[ALICE_KEY, STRANGER]), [b.public(ALICE_KEY)])


class Ran:
    """What a run of ``kt`` came to."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Kt:
    """``kt`` in this process, its client asking a directory of the tests."""

    def __init__(self, directory: Directory, home: Path, capsys: Any, patch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.handler: Handler = directory.handle
        self.home = home
        self.stop = threading.Event()
        self._capsys = capsys
        self._patch = patch
        KeyStore(home / "keys").add("default", ALICE_KEY)

        def client(reach: Reach, connections: int = 32, timeout: float = 1.0) -> Client:
            del connections
            return Client(
                "http://kt.test",
                FileStateStore(reach.state / "directory"),
                transport=httpx.MockTransport(self.handle),
                now=lambda: directory.now,
                timeout=timeout if timeout < 1 else 1.0,
            )

        patch.setattr(Reach, "client", client)
        patch.setattr(watch_module, "stop_on_signals", lambda: self.stop)

    def handle(self, request: httpx.Request) -> httpx.Response:
        return self.handler(request)

    def __call__(self, *words: str) -> Ran:
        command, *rest = words
        options = ["--keys", str(self.home / "keys"), "--state", str(self.home / "state")]
        self._patch.setattr(sys, "argv", ["kt", "--json", command, *options, *rest])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return Ran(int(ended.value.code or 0), out, err)


@pytest.fixture
def kt(directory: Directory, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Kt:
    return Kt(directory, tmp_path, capsys, monkeypatch)


def injected(directory: Directory, user: str = "alice") -> None:
    """A version that a stranger's key and the owner's signed, as a thief of the owner's key would."""
    key = b.private_key(user)
    follow(directory, key, STRANGER, signed_by=(key,), user=user)


class TestCommand:
    def test_your_own_changes_are_yours(self, kt: Kt, directory: Directory) -> None:
        assert kt("watch", "--once", ALICE).code == 0
        follow(directory, ALICE_KEY)
        ran = kt("watch", "--once", ALICE)
        assert (ran.code, json.loads(ran.out)["alarms"]) == (0, [])
        assert "version 2  since epoch 3" in ran.err
        assert ": yours" in ran.err
        assert "every epoch up to epoch 3 is checked" in ran.err

    def test_a_foreign_version_ends_with_6_and_its_proof(self, kt: Kt, directory: Directory) -> None:
        kt("watch", "--once", ALICE)
        injected(directory)
        ran = kt("watch", ALICE)
        (alarm,) = json.loads(ran.out)["alarms"]
        assert ran.code == 6
        assert "not yours" in ran.err
        assert (alarm["kind"], alarm["version"], alarm["epoch"]) == ("foreign-version", 2, 3)
        assert b.public(STRANGER).id.hex() in alarm["authorized_keys"]
        proof = ProofFile.decode(Path(alarm["proof"]).read_bytes())
        assert (proof.label, proof.answer.mutation) == (ALICE, standing(directory))
        assert Path(alarm["proof"]).stat().st_mode & 0o777 == 0o600
        assert kt("watch", "--once", ALICE).code == 0

    def test_a_contradiction_ends_with_5_and_its_evidence(self, kt: Kt, directory: Directory) -> None:
        kt("watch", "--once", ALICE)
        honest = standing(directory)
        for lie in (b.next_mutation("alice", honest, keys=[STRANGER]), honest):
            directory.forced[b.index("alice")] = lie
            directory.advance()
        ran = kt("watch", ALICE, BOB)
        alarm = next(one for one in json.loads(ran.out)["alarms"] if one["label"] == ALICE)
        assert (ran.code, alarm["kind"], alarm["exit_code"]) == (5, "contradiction", 5)
        assert convict(Evidence.decode(Path(alarm["evidence"]).read_bytes()))

    @pytest.mark.parametrize("labels", [(BOB, ALICE), (ALICE, BOB)])
    def test_an_outage_of_one_label_hides_no_alarm_of_another(
        self, kt: Kt, directory: Directory, labels: tuple[str, str]
    ) -> None:
        kt("watch", "--once", ALICE)
        injected(directory)
        kt.handler = lambda request: (
            problem(500, "fault", "broken") if BOB.encode() in request.content else directory.handle(request)
        )
        ran = kt("watch", *labels)
        assert f"{BOB}: cannot look now" in ran.err
        assert ran.code == 6
        assert [one["label"] for one in json.loads(ran.out)["alarms"]] == [ALICE]

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (httpx.Response(200, content=b"not JSON"), 1),
            (httpx.Response(200, content=b"{}"), 1),
            (httpx.Response(404, content=b"{}"), 1),
            (httpx.Response(302), 1),
            (httpx.Response(500), 7),
            (httpx.Response(200, content=b"[" * 100_000), 1),
        ],
    )
    def test_no_answer_ends_an_unattended_watch(
        self, kt: Kt, directory: Directory, answer: httpx.Response, code: int
    ) -> None:
        kt("watch", "--once", ALICE)
        rounds = 0

        def handle(request: httpx.Request) -> httpx.Response:
            nonlocal rounds
            if request.url.path == "/v1/heads/latest":
                rounds += 1
                if rounds == 1:
                    return httpx.Response(answer.status_code, content=answer.content)
                injected(directory) if rounds == 2 else None
            return directory.handle(request)

        kt.handler = handle
        assert kt("watch", "--interval", "0.1", ALICE).code == 6
        kt.handler = lambda request: (
            httpx.Response(answer.status_code, content=answer.content)
            if request.url.path == "/v1/heads/latest"
            else directory.handle(request)
        )
        assert kt("watch", "--once", ALICE).code == code

    def test_an_answer_that_does_not_verify_is_an_alarm_and_the_watch_goes_on(
        self, kt: Kt, directory: Directory
    ) -> None:
        kt("watch", "--once", ALICE)
        directory.advance()

        def handle(request: httpx.Request) -> httpx.Response:
            response = directory.handle(request)
            if request.url.path != "/v1/range":
                return response
            kt.stop.set()
            body = json.loads(response.content)
            return httpx.Response(200, content=json.dumps({**body, "answer": "gA=="}).encode())

        kt.handler = handle
        ran = kt("watch", "--interval", "0.1", ALICE)
        (alarm,) = json.loads(ran.out)["alarms"]
        assert (ran.code, alarm["kind"], alarm["evidence"]) == (4, "verification-failed", None)

    def test_a_stale_directory_cannot_tell(self, kt: Kt, directory: Directory) -> None:
        kt("watch", "--once", ALICE)
        type_now = directory.now + 10_000_000
        directory_now = type(directory).now
        type(directory).now = property(lambda self: type_now)  # type: ignore[assignment,method-assign]
        try:
            assert kt("watch", "--once", ALICE).code == 7
        finally:
            type(directory).now = directory_now  # type: ignore[method-assign]

    def test_keep_watching_goes_on_after_an_alarm(self, kt: Kt, directory: Directory) -> None:
        kt("watch", "--once", ALICE)
        injected(directory)
        looks = 0

        def handle(request: httpx.Request) -> httpx.Response:
            nonlocal looks
            looks += request.url.path == "/v1/heads/latest"
            if looks == 3:
                kt.stop.set()
            return directory.handle(request)

        kt.handler = handle
        ran = kt("watch", "--keep-watching", "--interval", "0.1", ALICE)
        assert (ran.code, len(json.loads(ran.out)["alarms"])) == (6, 1)
        assert looks == 3

    def test_declared_by_name_and_by_key_id(self, kt: Kt, directory: Directory) -> None:
        follow(directory, ALICE_KEY, PHONE)
        assert kt("watch", "--once", ALICE).code == 6
        phone = b.public(PHONE).id.hex()
        assert kt("watch", "--once", "--mine", phone, ALICE).code == 0
        KeyStore(kt.home / "keys").add("other", STRANGER)
        follow(directory, ALICE_KEY, STRANGER)
        assert kt("watch", "--once", "--mine", "default", "--mine", phone, ALICE).code == 6
        assert "no key absent" in kt("watch", "--once", "--mine", "absent", ALICE).err

    def test_a_label_that_cannot_be_ends_the_watch_at_once(self, kt: Kt) -> None:
        ran = kt("watch", ALICE, "not an address")
        assert ran.code == 1
        assert ran.err.count("\n") == 2
        assert "directory key pinned on first use" in ran.err

    def test_without_any_key_nothing_could_be_yours(self, kt: Kt) -> None:
        (kt.home / "keys" / "default.pem").unlink()
        ran = kt("watch", "--once", ALICE)
        assert ran.code == 2
        assert "--mine KEYID" in ran.err
        assert kt("watch", "--once", "--mine", b.public(ALICE_KEY).id.hex(), ALICE).code == 0


class Webhook:
    """A real server on a free port of the loopback."""

    def __init__(self, status: int) -> None:
        received: list[dict[str, Any]] = []

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                received.append(json.loads(self.rfile.read(length)))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.received = received
        self.server = HTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-token"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook(204)
    yield made
    made.close()


def program(tmp_path: Path, text: str) -> str:
    """A command that runs a Python program."""
    path = tmp_path / "hook.py"
    path.write_text(text)
    return f"{sys.executable} {path}"


class TestHooks:
    def test_a_command_gets_the_document(self, kt: Kt, directory: Directory, tmp_path: Path) -> None:
        injected(directory)
        told = tmp_path / "told"
        command = program(tmp_path, f"import sys; open({str(told)!r}, 'wb').write(sys.stdin.buffer.read())")
        ran = kt("watch", "--on-alarm", command, ALICE)
        assert ran.code == 6
        assert json.loads(told.read_bytes()) == json.loads(ran.out)["alarms"][0]

    def test_a_webhook_gets_the_document(self, kt: Kt, directory: Directory, webhook: Webhook) -> None:
        injected(directory)
        ran = kt("watch", "--webhook", webhook.url, ALICE)
        assert ran.code == 6
        assert webhook.received == json.loads(ran.out)["alarms"]

    def test_a_hook_that_fails_changes_nothing_but_a_line(
        self, kt: Kt, directory: Directory, tmp_path: Path
    ) -> None:
        injected(directory)
        refusing = Webhook(500)
        command = program(tmp_path, "raise SystemExit(3)")
        ran = kt("watch", "--on-alarm", command, "--webhook", refusing.url, ALICE)
        refusing.close()
        assert ran.code == 6
        assert "ended with 3" in ran.err
        assert "the webhook answered with 500" in ran.err
        assert "secret-token" not in ran.err

    def test_a_webhook_that_is_away(self, webhook: Webhook) -> None:
        closed = Webhook(204)
        closed.close()
        (line,) = Hooks(webhook=closed.url).run({"label": ALICE})
        assert line.startswith("the webhook cannot be reached")

    def test_a_command_is_bounded_in_time(self, tmp_path: Path) -> None:
        command = program(tmp_path, "import threading; threading.Event().wait()")
        (line,) = Hooks(tuple(command.split()), seconds=0.5).run({"label": ALICE})
        assert "took longer" in line

    def test_a_webhook_is_bounded_in_time(self) -> None:
        asked = threading.Event()

        class Silent(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.wait(10)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Silent)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        (line,) = Hooks(webhook=f"http://127.0.0.1:{server.server_port}/", seconds=0.3).run({"label": ALICE})
        asked.set()
        thread.join()
        server.server_close()
        assert line.startswith("the webhook")

    def test_a_desktop_without_notifications_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        (line,) = Hooks(desktop=True).run({"label": ALICE, "sentence": "x"})
        assert "notify-send is not installed" in line

    @pytest.mark.parametrize(
        "options",
        [
            ("--on-alarm", ""),
            ("--on-alarm", "/nonexistent/program"),
            ("--on-alarm", "unclosed 'quote"),
            ("--webhook", "ftp://example.org"),
            ("--webhook", "example.org"),
            ("--webhook", "http://[::1"),
        ],
    )
    def test_a_hook_that_cannot_be_is_refused_before_the_watch_begins(
        self, kt: Kt, options: tuple[str, str]
    ) -> None:
        assert kt("watch", *options, ALICE).code == 2
