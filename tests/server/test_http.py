"""HTTP around the handlers: problem documents for everything, limits, OpenAPI, nothing of internals."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx
import pytest

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import UnverifiedRowError
from kt_es.formats.heads import open_checkpoint
from kt_es.formats.proofs import LookupAnswer, decode_configs
from kt_es.formats.ranges import RangeAnswer
from kt_es.merkle.verify import log_root_from_inclusion
from kt_es.server import limits
from tests import builders as b
from tests.reference.frontends import Front, front, front_with_alice
from tests.reference.signed_streams import SignedStreams


@pytest.fixture(scope="module")
def running() -> Iterator[Front]:
    with front_with_alice() as made:
        yield made


def bytes_of(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def check_problem(answer: httpx.Response, status: int, reason: str, field: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["reason"], body.get("field")) == (status, reason, field)
    assert body["type"] == f"urn:kt-es:problem:{reason}"
    assert body["title"]
    assert body["detail"]


def test_a_body_that_is_not_declared_as_json_is_a_problem_that_names_it(running: Front) -> None:
    answer = running.request("POST", "/v1/lookup", content=b'{"label": "alice@example.org"}')
    check_problem(answer, 415, "unsupported-media")
    assert "application/json" in answer.json()["detail"]


def test_the_name_of_an_unknown_member_is_cut(running: Front) -> None:
    answer = running.post("/v1/lookup", {"label": b.label_of("alice"), "x" * 8192: 1})
    check_problem(answer, 400, "malformed", "x" * 64)
    assert len(answer.content) < 512


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("identity", 200)])
def test_a_body_that_is_declared_as_encoded_is_refused(running: Front, coding: str, status: int) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}
    content = json.dumps({"label": b.label_of("alice")}).encode()
    answer = running.request("POST", "/v1/lookup", content=content, headers=headers)
    assert answer.status_code == status


def test_reading_routes_answer_as_agreed(running: Front) -> None:
    directory = running.get("/v1/directory").json()
    assert (directory["origin"], directory["directory"]) == (b.ORIGIN, "people")
    assert decode_configs(bytes_of(directory["configs"])) == (b.signed_config(),)
    found = running.post("/v1/lookup", {"label": b.label_of("alice"), "epoch": 1, "since": 1}).json()
    assert LookupAnswer.decode(bytes_of(found["answer"])).mutation == b.mutation("alice")
    assert (found["epoch"], bytes_of(found["profile"])) == (1, b.profile("alice"))
    assert len(found["consistency"]) == 1
    absent = running.post("/v1/lookup", {"label": b.label_of("bob"), "profile": False})
    assert (absent.status_code, absent.json()["profile"], absent.json()["consistency"]) == (200, None, [])
    (version,) = running.post("/v1/history", {"label": b.label_of("alice"), "profiles": True}).json()[
        "versions"
    ]
    assert (version["version"], version["epoch"]) == (1, 1)
    assert bytes_of(version["profile"]) == b.profile("alice")
    assert running.post("/v1/history", {"label": b.label_of("bob")}).json() == {
        "versions": [],
        "more": False,
    }
    found = running.post(
        "/v1/range", {"label": b.label_of("alice"), "first": 1, "last": 2, "since": 1}
    ).json()
    assert (found["first"], found["last"], len(found["consistency"])) == (1, 2, 1)
    assert RangeAnswer.decode(bytes_of(found["answer"])).mutations == (b.mutation("alice"),)


def test_heads_and_checkpoints_are_the_published_ones(running: Front) -> None:
    latest, first = running.get("/v1/heads/latest").json(), running.get("/v1/heads/1").json()
    assert (latest["epoch"], first["epoch"]) == (2, 1)
    for answer in (latest, first):
        checkpoint = open_checkpoint(answer["latest_checkpoint"], f"{b.ORIGIN}/heads", [b.SIGNER_KEY.raw])
        leaf = log_leaf_hash(bytes_of(answer["smh"]))
        proof = [bytes_of(value) for value in answer["inclusion"]]
        assert log_root_from_inclusion(answer["epoch"] - 1, 2, leaf, proof) == checkpoint.root
    heads, mutations = running.get("/heads/checkpoint"), running.get("/mutations/checkpoint")
    assert (heads.text, mutations.text) == (latest["heads_checkpoint"], latest["mutations_checkpoint"])
    assert heads.headers["content-type"] == "text/plain; charset=utf-8"
    proof = running.get("/v1/consistency", params={"log": "heads", "from": 1, "to": 2}).json()
    assert len(proof["hashes"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "is_kept"),
    [
        ("GET", "/v1/consistency?log=heads&from=1&to=2", True),
        # A larger log will have this proof.
        ("GET", "/v1/consistency?log=heads&from=1&to=3", False),
        ("GET", "/v1/heads/latest", False),
        # It shows the latest checkpoint, which changes.
        ("GET", "/v1/heads/1", False),
        ("GET", "/v1/directory", False),
        ("POST", "/v1/lookup", False),
        ("GET", "/metrics", False),
        ("GET", "/v1/nothing", False),
    ],
)
def test_only_what_never_changes_may_be_kept_by_caches(
    running: Front, method: str, path: str, *, is_kept: bool
) -> None:
    kept = running.request(method, path).headers["cache-control"]
    assert kept == ("public, max-age=31536000, immutable" if is_kept else "no-store")


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/docs", 404, "not-found"),
        ("GET", "/v1/lookup", 405, "method-not-allowed"),
        ("DELETE", "/v1/mutations", 405, "method-not-allowed"),
        ("GET", "/v1/heads/3", 404, "unknown-epoch"),
        ("GET", "/v1/heads/0", 400, "malformed"),
        ("GET", "/v1/heads/first", 400, "malformed"),
        ("GET", "/v1/heads/99999999999999999999", 400, "malformed"),
        ("GET", "/v1/heads/+1", 400, "malformed"),
        ("GET", "/v1/heads/%201", 400, "malformed"),
        ("GET", "/v1/heads/01", 400, "malformed"),
        ("GET", "/v1/heads/1_0", 400, "malformed"),
        ("GET", "/v1/heads/1.0", 400, "malformed"),
        ("GET", "/v1/heads/%D9%A1", 400, "malformed"),
        ("GET", "/v1/heads/1?since=1.0", 400, "malformed"),
        ("GET", "/v1/heads/1?since=%2B1", 400, "malformed"),
        ("GET", "/v1/heads/1?since=", 400, "malformed"),
        ("GET", "/v1/heads/1?since=1&since=2", 400, "malformed"),
        ("GET", "/v1/consistency?log=heads&from=01&to=2", 400, "malformed"),
        ("GET", "/v1/consistency?log=heads&from=1&to=2&t%6f=2", 400, "malformed"),
        ("GET", "/v1/consistency", 400, "malformed"),
        ("GET", "/v1/consistency?log=queue&from=1&to=2", 400, "malformed"),
        ("GET", "/v1/consistency?log=heads&from=-1&to=2", 400, "malformed"),
        ("GET", "/v1/consistency?log=heads&from=2&to=1", 400, "malformed"),
        ("GET", "/v1/consistency?log=heads&from=1&to=3", 404, "unknown-epoch"),
    ],
)
def test_what_is_not_there_is_a_problem(
    running: Front, method: str, path: str, status: int, reason: str
) -> None:
    answer = running.request(method, path)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"{", None),
        (b"[" * 8_000, None),
        (b"\xff", None),
        (b'\xef\xbb\xbf{"label": "a@example.org"}', None),
        ('{"label": "a@example.org"}'.encode("utf-16"), None),
        (b'{"label": "a@example.org", "label": "b@example.org"}', None),
        (b'{"label": "a@example.org", "l\\u0061bel": "b@example.org"}', None),
        (b'{"label": "a@example.org", "epoch": NaN}', None),
        (b"[]", None),
        (b"{}", "label"),
        (b'{"label": 1}', "label"),
        (b'{"label": "a@example.org", "epoch": 0}', "epoch"),
        (b'{"label": "a@example.org", "epoch": 1.5}', "epoch"),
        (b'{"label": "a@example.org", "epoch": "1"}', "epoch"),
        (b'{"label": "a@example.org", "epoch": ' + b"9" * 5000 + b"}", None),
        (b'{"label": "a@example.org", "since": -1}', "since"),
        (b'{"label": "a@example.org", "since": true}', "since"),
        (b'{"label": "a@example.org", "profile": "yes"}', "profile"),
        (b'{"label": "a@example.org", "other": 1}', "other"),
        (b'{"label": "not an address"}', "label"),
        (b'{"label": "' + b"a" * 2000 + b'@example.org"}', "label"),
    ],
)
def test_a_bad_body_is_refused_by_its_field(running: Front, body: bytes, field: str | None) -> None:
    answer = running.request("POST", "/v1/lookup", content=body, headers={"content-type": "application/json"})
    check_problem(answer, 400, "malformed", field)
    assert "a@example.org" not in answer.text


def test_an_epoch_that_is_not_there_yet_is_a_404(running: Front) -> None:
    answer = running.post("/v1/lookup", {"label": b.label_of("alice"), "epoch": 3})
    check_problem(answer, 404, "unknown-epoch", "epoch")


def test_a_client_ahead_of_this_replica_has_to_come_again(running: Front) -> None:
    answer = running.post("/v1/lookup", {"label": b.label_of("alice"), "since": 3})
    check_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"].isdigit()


def test_an_unexpected_error_shows_nothing_of_internals(
    running: Front, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret of alice@example.org")

    monkeypatch.setattr(type(running.directory), "lookup", fail)
    answer = running.post("/v1/lookup", {"label": b.label_of("alice")})
    check_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    logged = "".join(capfd.readouterr())
    assert "ZeroDivisionError" in logged
    assert "example.org" not in logged


def test_a_damaged_store_ends_the_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams) as made:
        # Pages that were used before stay in memory.
        for key, _ in list(made.store.scan("entries")):
            made.store.write([("entries", key, None)])
        answer = made.post("/v1/lookup", {"label": b.label_of("alice")})
        check_problem(answer, 500, "internal")
        assert [type(error) for error in made.errors] == [UnverifiedRowError]
        check_problem(made.post("/v1/lookup", {"label": b.label_of("alice")}), 503, "unavailable")


def test_too_many_requests_are_asked_to_come_again(running: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 0)
    check_problem(running.get("/v1/directory"), 503, "unavailable")
    assert running.get("/healthz").status_code == 200


def test_operations(running: Front) -> None:
    assert running.get("/healthz").json() == {"status": "ok"}
    assert running.get("/readyz").json() == {"status": "ready"}
    running.post("/v1/lookup", {"label": b.label_of("alice")})
    metrics = running.get("/metrics").text
    assert 'kt_lookups_total{result="found"}' in metrics
    assert 'kt_request_seconds_count{route="/v1/lookup"}' in metrics
    assert "kt_epoch 2.0" in metrics
    assert "kt_log_reachable 1.0" in metrics
    assert "example.org" not in metrics


def test_the_openapi_description_has_every_route_and_problem_documents(running: Front) -> None:
    schema = running.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    assert set(schema["paths"]) == {
        "/v1/directory",
        "/v1/lookup",
        "/v1/lookups",
        "/v1/status",
        "/v1/mutations",
        "/v1/mutations/batch",
        "/v1/erasures",
        "/v1/history",
        "/v1/range",
        "/v1/heads/latest",
        "/v1/heads/events",
        "/v1/heads/{epoch}",
        "/v1/consistency",
        "/v1/cosigned",
        "/v1/cosignatures",
        "/.well-known/kt-es.json",
        "/v1/registration",
        "/v1/registration/mail",
        "/heads/checkpoint",
        "/mutations/checkpoint",
        "/heads/tile/{tile}",
        "/mutations/tile/{tile}",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            problems = {status for status in operation["responses"] if status >= "400"}
            assert {"400", "429", "500", "503"} <= problems
            assert not problems & {"422", "default"}
            for status in problems:
                assert set(operation["responses"][status]["content"]) == {"application/problem+json"}
    assert "alice" not in json.dumps(schema["paths"])


def test_a_member_that_stands_twice_is_refused_however_the_type_is_written(running: Front) -> None:
    body = b'{"label": "alice@example.org", "label": "bob@example.org"}'
    answer = running.request("POST", "/v1/lookup", content=body, headers={"content-type": "Application/JSON"})
    check_problem(answer, 400, "malformed")
