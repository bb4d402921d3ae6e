"""``kt watch``: what it says and what it ends with."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from kt_es.client.states import KeyStore
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.formats.proofs import ProofFile
from tests import builders as b
from tests.cli.owners.people import follow, standing
from tests.cli.owners.watching.people import (
    ALICE,
    ALICE_KEY,
    BOB,
    PHONE,
    STRANGER,
    WatchingKt,
    Webhook,
    injected,
)
from tests.reference.directory import Directory, problem


class TestCommand:
    def test_your_own_changes_are_yours(self, kt: WatchingKt, directory: Directory) -> None:
        assert kt("watch", "--once", ALICE).code == 0
        follow(directory, ALICE_KEY)
        ran = kt("watch", "--once", ALICE)
        assert (ran.code, json.loads(ran.out)["alarms"]) == (0, [])
        assert "version 2  since epoch 3" in ran.err
        assert ": yours" in ran.err
        assert "every epoch up to epoch 3 is checked" in ran.err

    def test_a_foreign_version_ends_with_6_and_its_proof(self, kt: WatchingKt, directory: Directory) -> None:
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

    def test_a_foreign_version_that_stands_is_reported_by_each_watch(
        self, kt: WatchingKt, directory: Directory, webhook: Webhook
    ) -> None:
        kt("watch", "--once", ALICE)
        injected(directory)
        kt("watch", "--once", "--webhook", webhook.url, ALICE)
        again = kt("watch", "--once", "--webhook", webhook.url, ALICE)
        assert again.code == 6
        assert "version 2  still stands in epoch 3" in again.err
        assert [alarm["kind"] for alarm in json.loads(again.out)["alarms"]] == ["still-foreign"]
        assert len(webhook.received) == 1
        follow(directory, ALICE_KEY)
        assert kt("watch", "--once", ALICE).code == 0
        assert kt("watch", "--once", ALICE).code == 0

    def test_a_contradiction_ends_with_5_and_its_evidence(self, kt: WatchingKt, directory: Directory) -> None:
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
        self, kt: WatchingKt, directory: Directory, labels: tuple[str, str]
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
        self, kt: WatchingKt, directory: Directory, answer: httpx.Response, code: int
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
        self, kt: WatchingKt, directory: Directory
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

    def test_a_stale_directory_is_undecided(self, kt: WatchingKt, directory: Directory) -> None:
        kt("watch", "--once", ALICE)
        type_now = directory.now + 10_000_000
        directory_now = type(directory).now
        type(directory).now = property(lambda self: type_now)  # type: ignore[assignment,method-assign]
        try:
            assert kt("watch", "--once", ALICE).code == 7
        finally:
            type(directory).now = directory_now  # type: ignore[method-assign]

    def test_keep_watching_goes_on_after_an_alarm(self, kt: WatchingKt, directory: Directory) -> None:
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

    def test_declared_by_name_and_by_key_id(self, kt: WatchingKt, directory: Directory) -> None:
        follow(directory, ALICE_KEY, PHONE)
        assert kt("watch", "--once", ALICE).code == 6
        phone = b.public(PHONE).id.hex()
        assert kt("watch", "--once", "--mine", phone, ALICE).code == 0
        KeyStore(kt.home / "keys").add("other", STRANGER)
        follow(directory, ALICE_KEY, STRANGER)
        assert kt("watch", "--once", "--mine", "default", "--mine", phone, ALICE).code == 6
        assert "no key absent" in kt("watch", "--once", "--mine", "absent", ALICE).err

    def test_a_label_that_cannot_be_ends_the_watch_at_once(self, kt: WatchingKt) -> None:
        ran = kt("watch", ALICE, "not an address")
        assert ran.code == 2
        assert ran.err.count("\n") == 2
        assert "directory key pinned on first use" in ran.err

    def test_without_any_key_nothing_could_be_yours(self, kt: WatchingKt) -> None:
        (kt.home / "keys" / "default.pem").unlink()
        ran = kt("watch", "--once", ALICE)
        assert ran.code == 2
        assert "--mine KEYID" in ran.err
        assert kt("watch", "--once", "--mine", b.public(ALICE_KEY).id.hex(), ALICE).code == 0
