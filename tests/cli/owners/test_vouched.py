"""With a policy, each command of an owner says who vouched for what it was answered."""

from __future__ import annotations

import json

import httpx
import pytest

from kt_es.cli.options import Reach
from kt_es.client import Client, Policies
from kt_es.client.state import FileStateStore
from kt_es.formats.policies import Policy
from tests.cli.owners.people import ALICE, Kt
from tests.client.test_vouching import VKEYS, cosigned
from tests.reference.clients import client_of
from tests.reference.directory import Directory

POLICIES = Policies(Policy.parse(f"witness w1 {VKEYS['w1']}\nquorum w1\n"))


@pytest.fixture(autouse=True)
def with_a_policy(kt: Kt, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/cosigned":
            return directory.handle(request)
        time = directory.now // 1000
        note = cosigned(directory, len(directory.heads), "w1", time=time)
        return httpx.Response(200, content=json.dumps({"heads": [note], "mutations": []}).encode())

    def client(reach: Reach, *_: object, **__: object) -> Client:
        return client_of(directory, FileStateStore(reach.state / "directory"), kt.handle, policies=POLICIES)

    kt.handler = handle
    monkeypatch.setattr(Reach, "client", client)


def test_each_command_names_who_vouched(kt: Kt) -> None:
    for words in (
        ("put", ALICE),
        ("put", "--add", str(kt.file), ALICE),  # which signs nothing
        ("erase", "--yes", ALICE),
    ):
        code, document, err = kt(*words)
        assert code == 0, err
        (quorum,) = document["vouched"]["quorums"]
        assert (quorum["kind"], quorum["quorum"]) == ("witnesses", "w1"), words
        assert [one["name"] for one in document["vouched"]["vouchers"]] == ["w1"]
        assert err.count("witnesses: quorum w1 vouches up to epoch") == 1
