"""Evidence is posted until it is accepted, and each webhook is asked no longer than that."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kt_es.errors import ConfigError
from kt_es.formats.evidence import armored
from kt_es.ledger.convicting import FOLDER
from projections.webhooks import MAX_WEBHOOKS, Webhooks, checked_webhook
from tests.example_directory import evidence_of_heads
from tests.reference.shown import Hook, hooked

EVIDENCE = evidence_of_heads().encode()


def keep(data: Path, name: str, content: bytes) -> None:
    (data / FOLDER).mkdir(exist_ok=True)
    (data / FOLDER / name).write_bytes(content)


def test_what_is_posted_is_the_evidence_and_its_sentence(tmp_path: Path) -> None:
    keep(tmp_path, "heads-epoch-2.evidence", EVIDENCE)
    hook = Hook()
    with hooked(hook) as url:
        assert Webhooks([url, url], tmp_path).post()
    assert hook.media == ["application/json"]
    document = json.loads(hook.bodies[0])
    assert base64.b64decode(document.pop("evidence")) == EVIDENCE
    assert len(document.pop("sha256")) == 64
    assert document == {
        "type": "kt-es evidence",
        "origin": "kt.example.org/people",
        "kind": "heads",
        "contradiction": "the directory signed two different heads of epoch 2",
    }


def test_one_that_refuses_does_not_hold_up_another_and_is_asked_after_a_restart(tmp_path: Path) -> None:
    keep(tmp_path, "heads-epoch-2.evidence", EVIDENCE)
    refusing, accepting = Hook("404 Not Found"), Hook()
    with hooked(refusing) as first, hooked(accepting) as second:
        for attempts in (1, 2):
            # Each is a new start.
            assert not Webhooks([first, second], tmp_path).post()
            assert (len(refusing.bodies), len(accepting.bodies)) == (attempts, 1)
        refusing.statuses = ["200 OK"]
        assert Webhooks([first, second], tmp_path).post()
        assert Webhooks([first, second], tmp_path).post()
    assert (len(refusing.bodies), len(accepting.bodies)) == (3, 1)


def test_new_evidence_is_posted_too_also_under_an_old_name(tmp_path: Path) -> None:
    hook = Hook()
    with hooked(hook) as url:
        webhooks = Webhooks([url], tmp_path)
        assert webhooks.post()
        keep(tmp_path, "heads-epoch-2.evidence", EVIDENCE)
        assert webhooks.post()
        keep(tmp_path, "heads-epoch-2.evidence", armored(EVIDENCE).encode())
        assert webhooks.post()
    assert len(hook.bodies) == 2


def test_what_proves_nothing_is_not_posted(tmp_path: Path) -> None:
    keep(tmp_path, "heads-epoch-2.evidence", EVIDENCE[:-70] + bytes(70))
    keep(tmp_path, "notes.txt", b"private")
    hook = Hook()
    with hooked(hook) as url, capture_logs() as said:
        assert Webhooks([url], tmp_path).post()
    assert not hook.bodies
    assert [line["event"] for line in said] == ["evidence not posted"]


def test_a_stop_ends_the_attempts(tmp_path: Path) -> None:
    keep(tmp_path, "heads-epoch-2.evidence", EVIDENCE)
    stop = threading.Event()

    class Stopping(Hook):
        def __call__(self, *call: object) -> object:  # type: ignore[override]
            stop.set()
            return super().__call__(*call)  # type: ignore[arg-type]

    with hooked(Stopping("503 Service Unavailable")) as url:
        Webhooks([url], tmp_path).run(stop)
    assert not (tmp_path / "webhooks").exists()


@pytest.mark.parametrize(
    "url",
    ["http://example.org/hook", "ftp://127.0.0.1/", "https://", "//host", "https://host/#x", "https://h:x/"],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="a webhook must be an https://") as caught:
        checked_webhook(url)
    assert "host" not in str(caught.value)


def test_there_may_be_only_so_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 16"):
        Webhooks([f"https://{number}.example/" for number in range(MAX_WEBHOOKS + 1)], tmp_path)
