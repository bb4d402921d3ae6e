"""Publishing over HTTP: repeated until it is known what became of it, and proven in a head."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import (
    MalformedError,
    RefusedError,
    UnavailableError,
)
from kt_es.formats.entries import ProfileKey
from tests import builders as b
from tests.reference.clients import away, client_of, cut, failing
from tests.reference.clocks import Pauses
from tests.reference.directory import Directory

PROFILE = [ProfileKey("laptop", "raw", b"alice 1")]


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    directory.put_user("bob")
    directory.advance()
    return directory


class TestPublish:
    def publish(self, client: Client, version: int, *keys: PrivateKey, **options: Any) -> Any:
        profile = [ProfileKey("laptop", "raw", f"carol {version}".encode())]
        return client.publish("carol@example.org", profile, keys, **options)

    def test_it_is_proven_in_a_head(self, directory: Directory) -> None:
        client, key = client_of(directory), b.private_key("carol")
        first = self.publish(client, 1, key)
        assert first.lookup.epoch == 3
        assert first.lookup.entry == first.submission.mutation.entry
        second = self.publish(client, 2, key)
        assert second.lookup.entry.version == 2
        looked_up = client.lookup("carol@example.org").profile
        assert looked_up is not None
        assert looked_up[0].data == b"carol 2"

    def test_keys_are_handed_over(self, directory: Directory) -> None:
        client, old, new = client_of(directory), b.private_key("carol"), b.p256_key("carol's new one")
        self.publish(client, 1, old)
        published = self.publish(client, 2, old, new, new_authorized_keys=[b.public(new)])
        assert published.lookup.entry.authorized_keys == (b.public(new),)
        with pytest.raises(RefusedError, match="unauthorized"):
            self.publish(client, 3, old)
        assert self.publish(client, 3, new).lookup.entry.version == 3

    def test_strangers_are_refused_before_anything_is_sent(self, directory: Directory) -> None:
        handler, sent = failing(directory, 0, away)
        with pytest.raises(RefusedError) as refused:
            client_of(directory, handler=handler).publish(
                "alice@example.org", PROFILE, [b.private_key("mallory")]
            )
        assert (refused.value.reason, sent) == ("unauthorized", [])

    def test_a_lost_answer_does_not_turn_success_into_failure(self, directory: Directory) -> None:
        """The submission is accepted, its answer is lost, and a successor comes before it is repeated."""
        key, client = b.private_key("carol"), client_of(directory)

        def accepted_then_cut() -> httpx.Response:
            directory.handle(httpx.Request("POST", "http://kt.test/v1/mutations", content=sent[0]))
            for version in (2, 3):
                self.publish(client, version, key)
            return cut()

        handler, sent = failing(directory, 1, accepted_then_cut)
        published = self.publish(client_of(directory, handler=handler), 1, key)
        assert published.submission.mutation.entry.version == 1
        assert published.lookup.entry.version == 3

    @pytest.mark.parametrize("retries", [0, 1])
    def test_a_change_that_came_second_is_built_anew_only_if_asked(
        self, directory: Directory, retries: int
    ) -> None:
        key, client = b.private_key("carol"), client_of(directory)
        rivals = [1]

        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/mutations" and rivals:
                rivals.pop()
                self.publish(client, 1, key)
            return directory.handle(request)

        second = client_of(directory, handler=handle)
        if retries:
            assert self.publish(second, 2, key, retries=1).lookup.entry.version == 2
        else:
            with pytest.raises(RefusedError, match="stale"):
                self.publish(second, 2, key)

    def test_a_receipt_is_not_a_proof(self, directory: Directory, pauses: Pauses) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path != "/v1/mutations":
                return directory.handle(request)
            return httpx.Response(202, content=json.dumps({"mutation": receipt}).encode())

        client = client_of(directory, handler=handle)
        submission = client.prepare("carol@example.org", PROFILE, [b.private_key("carol")])
        receipt = submission.mutation.entry_hash.hex()
        assert client.submit(submission).verdict is None
        with pytest.raises(UnavailableError, match="not in a map head yet"):
            client.confirm(submission, timeout=2)
        receipt = "00" * 32
        with pytest.raises(MalformedError, match="another mutation"):
            client.submit(submission)
