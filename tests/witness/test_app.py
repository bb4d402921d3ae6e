"""The HTTP interface of a witness, behind the real server: addresses, limits, and a disk that fails."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from kt_es.errors import KtError
from kt_es.formats.cosignatures import read_cosigned
from kt_es.formats.witnessing import MAX_REQUEST, SIZE_MEDIA, AddCheckpoint, origin_hash
from kt_es.server.clients import Clients, HttpConnections
from kt_es.server.listening import http_server
from kt_es.server.slots import Slots
from kt_es.witness import state
from kt_es.witness.app import create_witness_app
from kt_es.witness.service import LIMITS
from kt_es.witness.state import opened
from kt_es.witness.witness import Witness
from tests.witness.test_judging import LOGS, NAME, ORIGIN, Clock, note_of, request


@dataclass
class Served:
    witness: Witness
    http: httpx.Client
    registry: CollectorRegistry

    def add(self, body: bytes) -> httpx.Response:
        return self.http.post("/add-checkpoint", content=body)

    def count(self, result: str) -> float:
        return self.registry.get_sample_value("kt_witness_answers_total", {"result": result}) or 0.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    registry, errors = CollectorRegistry(), list[KtError]()
    results = Counter("kt_witness_answers", "", ["result"], registry=registry)
    seconds = Histogram("kt_request_seconds", "", ["route"], registry=registry)
    refused = Counter("kt_refused", "", ["why"], registry=registry)
    clients = Clients(LIMITS)
    listener = socket.create_server(("127.0.0.1", 0))
    with opened(tmp_path, NAME) as identity, ThreadPoolExecutor(2) as threads, listener:
        witness = Witness(identity, LOGS, Clock())
        app = create_witness_app(witness, threads, Slots(clients, refused), results, seconds)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            http_server(app, HttpConnections(clients, 10, refused), listener, errors.append),
            httpx.Client(base_url=url, trust_env=False) as http,
        ):
            yield Served(witness, http, registry)
    assert not errors


def test_a_log_is_cosigned_and_shown(served: Served) -> None:
    answer = served.add(request(0, 5))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert read_cosigned(note_of(5).encode() + answer.content, served.witness.identity.keys).names
    stale = served.add(request(0, 8))
    assert (stale.status_code, stale.headers["content-type"], stale.text) == (409, SIZE_MEDIA, "5\n")
    shown = served.http.get(f"/{origin_hash(ORIGIN)}/checkpoint")
    assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")
    assert shown.text == note_of(5) + answer.text
    assert served.http.get(f"/{'0' * 64}/checkpoint").status_code == 404
    assert (served.count("cosigned"), served.count("size")) == (1, 1)
    figures = [metric.samples for metric in served.registry.collect()]
    assert "/{origin hash}/checkpoint" in str(figures)
    assert origin_hash(ORIGIN) not in str(figures)


def test_everything_else_is_refused(served: Served) -> None:
    for method, path, status in (
        ("GET", "/add-checkpoint", 405),
        ("POST", f"/{origin_hash(ORIGIN)}/checkpoint", 405),
        ("GET", f"/{origin_hash(ORIGIN).upper()}/checkpoint", 404),
        ("GET", f"/{origin_hash(ORIGIN)}/../checkpoint", 404),
        ("GET", "/v1/lookup", 404),
        ("GET", "/", 404),
        ("GET", "/healthz", 200),
    ):
        assert served.http.request(method, path).status_code == status, (method, path)


def test_a_request_has_a_largest_size(served: Served) -> None:
    good = request(0, 5)
    assert served.add(good + b"x" * MAX_REQUEST).status_code == 413
    assert served.add(good).status_code == 200


def test_nothing_is_cosigned_that_cannot_be_stored(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.add(request(0, 5))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(state, "replace_file", full)
        answer = served.add(request(5, 8))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "cannot store" in answer.json()["detail"]
        assert served.count("failed") == 1
    # What was not stored was not cosigned, and another continuation may still be.
    assert served.add(request(5, 9)).status_code == 200


def test_a_checkpoint_with_as_many_lines_as_a_note_may_have_is_cosigned(served: Served) -> None:
    text, line = note_of(5).split("\n\n")
    answer = served.add(AddCheckpoint(0, (), f"{text}\n\n{line * 64}").encode())
    assert answer.status_code == 200
    # A repeated line is kept once.
    assert served.http.get(f"/{origin_hash(ORIGIN)}/checkpoint").text == note_of(5) + answer.text


def test_a_fork_that_cannot_be_kept_is_refused_and_logged(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    served.add(request(0, 5))
    monkeypatch.setattr(state, "create_file", full)
    with structlog.testing.capture_logs() as logs:
        assert served.add(request(5, 5, fork=1)).status_code == 409
        assert served.add(request(5, 8, fork=1)).status_code == 422
    # The false proof proves nothing, so it is not worth a line for each request of anybody.
    (said,) = [each for each in logs if each["log_level"] != "info"]
    assert said["event"] == "a log was forked"
    assert "full" in said["not_kept"]
