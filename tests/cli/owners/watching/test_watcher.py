"""The watcher: every epoch since the last check, and whose version it holds."""

from __future__ import annotations

import json

import httpx
import pytest

from kt_es.client import attempts
from kt_es.client.changes import Mine
from kt_es.client.state import MemoryStateStore
from kt_es.client.watching import KIND, Change, Watcher, WatchProgress
from kt_es.errors import ConfigError, EquivocationError, UnavailableError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from tests import builders as b
from tests.cli.owners.people import follow, standing
from tests.cli.owners.watching.people import ALICE, ALICE_KEY, CAROL, PHONE, STRANGER, mine_of
from tests.reference.clients import Handler, client_of
from tests.reference.directory import Directory, problem


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

    def progress(self, label: str = ALICE) -> WatchProgress:
        data = self.store.recall(KIND, label.encode())
        assert data is not None
        return WatchProgress.decode(data)


class TestEveryEpoch:
    def test_the_first_watch_judges_the_history_and_then_every_epoch(self, directory: Directory) -> None:
        follow(directory, ALICE_KEY, STRANGER)
        follow(directory, ALICE_KEY)
        watched = Watched(directory, mine_of(ALICE_KEY))
        assert [(one.entry.version, one.mine) for one in watched.look()] == [(1, True), (2, False), (3, True)]
        assert watched.progress() == WatchProgress(4, standing(directory).entry_hash)
        assert watched.look() == []

    def test_a_change_is_reported_once_with_its_epoch(self, directory: Directory) -> None:
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

    def test_an_unauthorized_version_in_the_history_is_reported_at_the_first_watch(
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
        assert watched.progress(CAROL) == WatchProgress(2, None)
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
        monkeypatch.setattr(attempts, "LAG_PAUSES", (0.0, 0.0))
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
        watched.store.remember(KIND, ALICE.encode(), WatchProgress(2, bytes(32)).encode())
        directory.advance()
        with pytest.raises(VerificationError, match="epoch 2 holds another entry"):
            watched.look()


class TestMine:
    def test_a_declared_key_is_mine(self, directory: Directory) -> None:
        follow(directory, ALICE_KEY, PHONE)
        follow(directory, ALICE_KEY, PHONE, signed_by=PHONE)
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
