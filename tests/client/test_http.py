"""The client over HTTP: what it stores, what it repeats and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
from kt_es.client.transport import Transport
from kt_es.client.trusted import Pinned
from kt_es.errors import (
    ConfigError,
    KtError,
    MalformedError,
    RefusedError,
    UnavailableError,
    VerificationError,
)
from kt_es.formats.entries import ProfileKey
from tests import builders as b
from tests.reference.clients import away, changed, client_of, cut, failing
from tests.reference.clocks import Pauses
from tests.reference.directory import Directory, problem

PROFILE = [ProfileKey("laptop", "raw", b"alice 1")]


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    directory.put_user("bob")
    directory.advance()
    return directory


def test_the_client_needs_neither_rocksdb_nor_eventstoredb() -> None:
    program = (
        "import sys, kt_es.client.client, kt_es.client.bulk, kt_es.client.states\n"
        "servers = {'rocksdict', 'esdbclient', 'kurrentdbclient', 'grpc', 'projections', 'pydantic'}\n"
        "print(servers & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class TestLookup:
    def test_it_verifies_and_stores_the_checkpoint(self, directory: Directory, tmp_path: Path) -> None:
        store = FileStateStore(tmp_path / "state")
        with client_of(directory, store) as client:
            lookup = client.lookup("Alice@example.org")
        assert lookup.entry == b.entry("alice")
        stored = store.load()
        assert stored is not None
        assert stored.checkpoint == directory.heads_checkpoint(2)

    def test_the_next_one_is_consistent_with_it(self, directory: Directory) -> None:
        store = MemoryStateStore()
        client_of(directory, store).lookup("alice@example.org")
        for _ in range(3):
            directory.advance()
        lookup = client_of(directory, store).lookup("nobody@example.org")
        assert lookup.absent
        assert "consistent with the 2 heads trusted before" in lookup.checks

    def test_a_past_epoch(self, directory: Directory) -> None:
        assert client_of(directory).lookup("bob@example.org", epoch=1).absent
        with pytest.raises(RefusedError) as refused:
            client_of(directory).lookup("bob@example.org", epoch=7)
        assert (refused.value.reason, refused.value.field) == ("unknown-epoch", "epoch")

    def test_the_key_is_pinned_on_first_use_and_that_is_reported(self, directory: Directory) -> None:
        store = MemoryStateStore()
        first = client_of(directory, store)
        vkey = Pinned(b.ORIGIN, b.SIGNER_KEY).vkey
        assert first.lookup("alice@example.org").checks[0] == f"directory key pinned on first use: {vkey}"
        assert first.directory().on_first_use
        second = client_of(directory, store)
        assert not any("first use" in line for line in second.lookup("alice@example.org").checks)
        assert not second.on_first_use

    def test_another_key_or_origin_than_expected_is_refused(self, directory: Directory) -> None:
        stranger = Pinned(b.ORIGIN, b.public(b.private_key("stranger")))
        seen = MemoryStateStore()
        client_of(directory, seen).lookup("alice@example.org")
        for store in (None, seen):
            for options in ({"pinned": stranger}, {"origin": b.OTHER_ORIGIN}):
                with pytest.raises(VerificationError, match=r"^config:"):
                    client_of(directory, store, **options).lookup("alice@example.org")

    def test_a_rotated_key_is_followed(self, directory: Directory) -> None:
        store = MemoryStateStore()
        client_of(directory, store).lookup("alice@example.org")
        directory.rotate(b.private_key("successor"))
        directory.advance()
        directory.advance()
        lookup = client_of(directory, store, pinned=Pinned(b.ORIGIN, b.SIGNER_KEY)).lookup(
            "alice@example.org"
        )
        assert lookup.epoch == 4
        client_of(directory, store, pinned=Pinned(b.ORIGIN, b.public(b.private_key("successor")))).head()

    def test_a_front_end_that_lags_is_asked_again(self, directory: Directory) -> None:
        store = MemoryStateStore()
        ahead = client_of(directory, store)
        behind = directory.heads.pop()
        old = directory.handle(
            httpx.Request(
                "POST",
                "http://kt.test/v1/lookup",
                content=json.dumps(
                    {"label": "alice@example.org", "epoch": None, "since": None, "profile": True}
                ).encode(),
            )
        )
        directory.heads.append(behind)
        ahead.lookup("alice@example.org")
        stale = [old]

        def handle(request: httpx.Request) -> httpx.Response:
            return stale.pop() if stale and request.url.path == "/v1/lookup" else directory.handle(request)

        assert client_of(directory, store, handle).lookup("alice@example.org").epoch == 2
        assert not stale

    def test_threads_share_a_client_and_its_state(self, directory: Directory, tmp_path: Path) -> None:
        store = FileStateStore(tmp_path)
        client = client_of(directory, store)
        labels = ["alice@example.org", "bob@example.org", "nobody@example.org"] * 8
        with ThreadPoolExecutor(8) as pool:
            lookups = list(pool.map(client.lookup, labels))
        assert [lookup.label for lookup in lookups] == labels
        assert client.trusted().size == 2


class TestSharedState:
    """Somebody else stores a later checkpoint while this client's answer is on its way."""

    def overtaken(self, directory: Directory, by: Directory, store: StateStore) -> Client:
        """A client in the middle of whose lookup ``by`` is looked up through the same state."""
        todo = [1]

        def handle(request: httpx.Request) -> httpx.Response:
            response = directory.handle(request)
            if request.url.path == "/v1/lookup" and todo:
                todo.pop()
                by.advance()
                client_of(by, store).lookup("bob@example.org")
            return response

        return client_of(directory, store, handle)

    def test_the_later_one_stays(self, directory: Directory, tmp_path: Path) -> None:
        store = FileStateStore(tmp_path)
        client = self.overtaken(directory, directory, store)
        assert client.lookup("alice@example.org").epoch == 2
        assert client.trusted().size == 3

    def test_the_two_have_to_be_of_one_log(self, directory: Directory, tmp_path: Path) -> None:
        fork = Directory()
        fork.put_user("alice")
        fork.advance()
        store = FileStateStore(tmp_path)
        client_of(fork, store).lookup("alice@example.org")
        fork.advance()
        with pytest.raises(VerificationError, match=r"^consistency:"):
            self.overtaken(directory, fork, store).lookup("alice@example.org")
        stored = store.load()
        assert stored is not None
        assert stored.checkpoint == fork.heads_checkpoint(3)


class TestServer:
    @pytest.mark.parametrize("failure", [away, cut])
    def test_the_same_bytes_are_sent_until_they_are_answered(
        self, directory: Directory, failure: Callable[[], httpx.Response]
    ) -> None:
        handler, sent = failing(directory, 2, failure)
        client = client_of(directory, handler=handler)
        client.publish("carol@example.org", PROFILE, [b.private_key("carol")])
        assert len(sent) == 3
        assert len(set(sent)) == 1

    def test_until_the_deadline(self, directory: Directory, pauses: Pauses) -> None:
        handler, sent = failing(directory, 10**6, away)
        client = client_of(directory, handler=handler)
        submission = client.prepare("carol@example.org", PROFILE, [b.private_key("carol")])
        with pytest.raises(UnavailableError, match="the log is away"):
            client.submit(submission, timeout=2)
        assert len(sent) > 1
        assert len(set(sent)) == 1

    def test_an_attempt_that_the_deadline_cut_does_not_hide_why_the_others_failed(
        self, directory: Directory, pauses: Pauses
    ) -> None:
        def slow() -> httpx.Response:
            if pauses.now > begun:
                pauses.sleep(60)
                raise httpx.ReadTimeout("the answer takes too long")
            return away()

        begun = pauses.now
        client = client_of(directory, handler=failing(directory, 10**6, slow)[0])
        submission = client.prepare("carol@example.org", PROFILE, [b.private_key("carol")])
        with pytest.raises(UnavailableError, match="the log is away") as unavailable:
            client.submit(submission, timeout=2)
        assert unavailable.value.retry_after is not None

    def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(
        self, directory: Directory
    ) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            return httpx.Response(503, headers={"retry-after": "3600"})

        with pytest.raises(UnavailableError) as unavailable:
            client_of(directory, handler=handle).lookup("alice@example.org")
        assert unavailable.value.retry_after == 3600

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("answer", None),
            ("answer", 1),
            ("answer", ["x"]),
            ("answer", "not base64"),
            ("answer", "AB=="),
            ("answer", "AA==\n"),
            ("profile", {}),
            ("epoch", "1"),
            ("epoch", True),
            ("epoch", -1),
            ("epoch", 1.0),
            ("consistency", None),
            ("consistency", [1]),
            ("consistency", ["AA=="] * 65),
        ],
    )
    def test_fields_of_the_wrong_kind_are_malformed(
        self, directory: Directory, field: str, value: object
    ) -> None:
        handler = changed(directory, "/v1/lookup", lambda body: body.update({field: value}))
        with pytest.raises(MalformedError) as malformed:
            client_of(directory, handler=handler).lookup("alice@example.org")
        assert malformed.value.what == field

    @pytest.mark.parametrize(
        "content", [b"", b"<html>", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"a": ' * 100_000]
    )
    def test_what_is_no_json_object_is_malformed(self, directory: Directory, content: bytes) -> None:
        with pytest.raises(MalformedError):
            client_of(directory, handler=lambda _: httpx.Response(200, content=content)).lookup(
                "a@example.org"
            )

    def test_an_endless_answer_is_cut_off(self, directory: Directory) -> None:
        produced = []

        def endless() -> Any:
            while True:
                produced.append(1)
                yield b" " * 65536

        with pytest.raises(MalformedError, match="larger than"):
            client_of(directory, handler=lambda _: httpx.Response(200, content=endless())).directory()
        assert len(produced) < 100

    def test_what_is_compressed_is_not_unpacked(self, directory: Directory) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, headers={"content-encoding": "gzip"}, content=iter([b"\x1f\x8b"]))

        with pytest.raises(MalformedError, match="compressed"):
            client_of(directory, handler=handle).directory()

    def test_redirects_are_not_followed(self, directory: Directory) -> None:
        answer = httpx.Response(302, headers={"location": "http://elsewhere.test/"})
        with pytest.raises(MalformedError, match="302"):
            client_of(directory, handler=lambda _: answer).directory()

    @pytest.mark.parametrize(
        ("status", "kind"), [(400, RefusedError), (403, RefusedError), (500, UnavailableError)]
    )
    def test_problems_are_shown_without_what_a_terminal_would_obey(
        self, directory: Directory, status: int, kind: type[KtError]
    ) -> None:
        answer = problem(status, "label", "\x1b[31mred\x07", "label")
        with pytest.raises(kind, match=r"\?\[31mred\?"):
            client_of(directory, handler=lambda _: answer).directory()

    @pytest.mark.parametrize(
        "url",
        [
            "user:s3cret@kt.test",
            "//user:s3cret@kt.test",
            "http://kt.test/?token=s3cret",
            "http://kt.test/#s3cret",
        ],
    )
    def test_an_unusable_address_is_not_repeated(self, url: str) -> None:
        with pytest.raises(ConfigError, match="address") as refused:
            Client(url, MemoryStateStore())
        assert "s3cret" not in str(refused.value)

    @pytest.mark.parametrize("url", ["", "kt.test", "ftp://kt.test", "http://", "http://[", "file:///etc"])
    def test_an_unusable_address_is_a_configuration_error(self, url: str) -> None:
        with pytest.raises(ConfigError, match="address"):
            Client(url, MemoryStateStore())


def test_a_call_that_waits_reports_it_once() -> None:
    told: list[str] = []
    answers = iter([away(), away(), away()])

    def handle(_: httpx.Request) -> httpx.Response:
        return next(answers, httpx.Response(200, json={}))

    transport = Transport("http://kt.test", transport=httpx.MockTransport(handle))
    transport.on_waiting = told.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kt_es.client.transport._NOTICE_AFTER", 0.0)
        transport.get("/x", time.monotonic() + 60)
    (said,) = told
    assert said.startswith("waiting up to ")
    assert said.endswith("http://kt.test is unavailable: the log is away")
    # An answer that comes soon is nothing to speak of.
    answers = iter([away()])
    transport.get("/x", time.monotonic() + 60)
    assert len(told) == 1
