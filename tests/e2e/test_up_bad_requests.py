"""Bad input over HTTP: a problem document that names reason and field, and nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.client.changes import Submission
from kt_es.crypto.hashes import commit
from kt_es.eventstore.esdb import EsdbLog
from kt_es.formats.entries import Entry, Mutation, ProfileKey, Signature, encode_profile
from kt_es.formats.notes import encode_base64
from kt_es.formats.queue import MUTATIONS
from tests import builders as b
from tests.e2e.processes import NAMES, ORIGIN, Up, account, log_at

pytestmark = pytest.mark.e2e

OWNER = b.private_key("owner")
MALLORY = b.private_key("mallory")
STANDING = account("standing")
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """Good submissions that the cases spoil: of a new label, and of the next version of one that stands."""

    new: Submission
    next: Submission
    taken: Submission


@pytest.fixture(scope="module")
def prepared(directory: Up, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    with directory.client(tmp_path_factory.mktemp("client")) as client:
        taken = client.publish(STANDING.label, STANDING.profile, [OWNER]).submission
        new = client.prepare("new@example.org", account("new").profile, [OWNER])
        following = client.prepare(STANDING.label, account("next").profile, [OWNER])
    return Prepared(new, following, taken)


def body(submission: Submission, **fields: Any) -> dict[str, Any]:
    return {
        "label": submission.label,
        "mutation": encode_base64(submission.mutation.encode()),
        "opening": encode_base64(submission.opening),
        "profile": encode_base64(submission.profile),
        **fields,
    }


def resigned(submission: Submission, *, origin: str = ORIGIN, **changes: Any) -> Submission:
    """The same with another entry, signed properly."""
    entry: Entry = replace(submission.mutation.entry, **changes)
    return replace(submission, mutation=Mutation.sign(entry, origin, [OWNER]))


def committed(submission: Submission, profile: bytes) -> Submission:
    """The same with another profile, which its commitment opens to."""
    version = submission.mutation.entry.version
    commitment = commit(submission.opening, submission.label, version, profile)
    return replace(resigned(submission, commitment=commitment), profile=profile)


def wrongly_signed(submission: Submission) -> Submission:
    (good,) = submission.mutation.signatures
    bad = Signature(good.key_id, good.value[:-1] + bytes([good.value[-1] ^ 1]))
    return replace(submission, mutation=replace(submission.mutation, signatures=(bad,)))


def one_byte_more(submission: Submission) -> bytes:
    return submission.mutation.encode() + b"\x00"


Case = tuple[Callable[[Prepared], dict[str, Any]], int, str, str | None]

SUBMISSIONS: dict[str, Case] = {
    "a field is missing": (
        lambda p: {key: value for key, value in body(p.new).items() if key != "opening"},
        400,
        "malformed",
        "opening",
    ),
    "a field too many": (lambda p: body(p.new, surplus=1), 400, "malformed", "surplus"),
    "a number for a text": (lambda p: body(p.new, label=1), 400, "malformed", "label"),
    "nothing for a text": (lambda p: body(p.new, mutation=None), 400, "malformed", "mutation"),
    "no address": (lambda p: body(p.new, label="nobody"), 400, "malformed", "label"),
    "a label too long": (lambda p: body(p.new, label="x" * 256 + "@example.org"), 400, "malformed", "label"),
    "a surrogate": (lambda p: body(p.new, label="\ud800@example.org"), 400, "malformed", "label"),
    "no base64": (lambda p: body(p.new, mutation="*"), 400, "malformed", "mutation"),
    "stray bits": (lambda p: body(p.new, opening="AB=="), 400, "malformed", "opening"),
    "no padding": (lambda p: body(p.new, profile="AA"), 400, "malformed", "profile"),
    "endless waiting": (lambda p: body(p.new, wait=61), 400, "malformed", "wait"),
    "waiting backwards": (lambda p: body(p.new, wait=-1), 400, "malformed", "wait"),
    "no mutation": (lambda p: body(p.new, mutation=""), 400, "malformed", "mutation"),
    "not canonical": (
        lambda p: body(p.new, mutation=encode_base64(b"\x98\x02" + p.new.mutation.encode()[1:])),
        400,
        "malformed",
        "mutation",
    ),
    "a byte too many": (
        lambda p: body(p.new, mutation=encode_base64(one_byte_more(p.new))),
        400,
        "malformed",
        "mutation",
    ),
    "a mutation too large": (
        lambda p: body(p.new, mutation=encode_base64(bytes(16 * 1024 + 1))),
        413,
        "oversize",
        "mutation",
    ),
    "a profile too large": (
        lambda p: body(p.new, profile=encode_base64(bytes(512 * 1024 + 1))),
        413,
        "oversize",
        "profile",
    ),
    "a body too large": (lambda p: body(p.new, profile="A" * 1_300_000), 413, "oversize", None),
    "the entry of another label": (
        lambda p: body(p.new, label="other@example.org"),
        400,
        "malformed",
        "mutation",
    ),
    "another index": (
        lambda p: body(resigned(p.new, index=bytes(32))),
        400,
        "malformed",
        "mutation",
    ),
    "an opening too short": (lambda p: body(p.new, opening="AAAA"), 400, "malformed", "opening"),
    "another opening": (
        lambda p: body(p.new, opening=encode_base64(bytes(16))),
        400,
        "malformed",
        "opening",
    ),
    "another profile": (
        lambda p: body(p.new, profile=encode_base64(p.next.profile)),
        400,
        "malformed",
        "opening",
    ),
    "no profile": (lambda p: body(committed(p.new, b"junk")), 400, "malformed", "profile"),
    "a profile of an unknown type": (
        lambda p: body(
            committed(p.new, encode_profile([ProfileKey("n", "raw", b"d")]).replace(b"raw", b"new"))
        ),
        400,
        "malformed",
        "profile",
    ),
    "a wrong signature": (lambda p: body(wrongly_signed(p.new)), 403, "unauthorized", "mutation"),
    "another origin": (
        lambda p: body(resigned(p.new, origin=b.OTHER_ORIGIN)),
        403,
        "unauthorized",
        "mutation",
    ),
    "not by the key that stands": (
        lambda p: body(
            replace(
                p.next,
                mutation=Mutation.sign(
                    replace(p.next.mutation.entry, authorized_keys=(b.public(MALLORY),)), ORIGIN, [MALLORY]
                ),
            )
        ),
        403,
        "unauthorized",
        "mutation",
    ),
    "another previous": (
        lambda p: body(resigned(p.next, previous=bytes(32))),
        409,
        "stale",
        "mutation",
    ),
}


@dataclass(frozen=True, slots=True)
class Written:
    """What a submission leaves behind: mutations in the queue, and openings."""

    queued: int
    openings: int

    @classmethod
    def of(cls, log: EsdbLog, prepared: Prepared) -> Written:
        queued = [event for event in log.read(NAMES.queue) if event.type == MUTATIONS]
        indices = (prepared.new.mutation.entry.index, prepared.next.mutation.entry.index, bytes(32))
        last = [log.last_revision(NAMES.openings(index)) for index in indices]
        return cls(len(queued), sum(last))


def check_problem(answer: httpx.Response, status: int, reason: str | None, field: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:kt-es:problem:")
    assert problem["title"]
    assert problem["detail"]
    if reason is not None:
        assert problem["reason"] == reason
    assert problem.get("field") == field, problem
    assert "new@example.org" not in answer.text, "a label is not repeated"


@pytest.mark.parametrize("case", SUBMISSIONS)
def test_a_bad_submission_is_refused_and_leaves_nothing(directory: Up, prepared: Prepared, case: str) -> None:
    spoiled, status, reason, field = SUBMISSIONS[case]
    with log_at(directory.log_uri) as log:
        before = Written.of(log, prepared)
        content = json.dumps(spoiled(prepared))
        answer = httpx.post(f"{directory.url}/v1/mutations", content=content, headers=JSON)
        check_problem(answer, status, reason, field)
        assert Written.of(log, prepared) == before


def test_what_stands_already_is_no_new_change(directory: Up, prepared: Prepared) -> None:
    with log_at(directory.log_uri) as log:
        before = Written.of(log, prepared)
        answer = httpx.post(f"{directory.url}/v1/mutations", json=body(prepared.taken))
        assert (answer.status_code, answer.json()["verdict"]) == (200, "accepted")
        assert Written.of(log, prepared) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b'{"label": NaN}'])
@pytest.mark.parametrize("path", ["/v1/mutations", "/v1/lookup", "/v1/history"])
def test_what_is_no_json_object_is_refused(directory: Up, path: str, content: bytes) -> None:
    answer = httpx.post(f"{directory.url}{path}", content=content, headers=JSON)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == "malformed"


@pytest.mark.parametrize(
    ("request_", "status", "reason", "field"),
    [
        ({"label": "nobody"}, 400, "malformed", "label"),
        ({"label": ""}, 400, "malformed", "label"),
        ({"label": "a@example.org", "epoch": 0}, 400, "malformed", "epoch"),
        ({"label": "a@example.org", "epoch": 10**6}, 404, "unknown-epoch", "epoch"),
        ({"label": "a@example.org", "epoch": "1"}, 400, "malformed", "epoch"),
        ({"label": "a@example.org", "since": -1}, 400, "malformed", "since"),
        ({"label": "a@example.org", "since": 2**63}, 400, "malformed", "since"),
        ({"label": "a@example.org", "since": 10**6}, 503, "unavailable", None),
        ({"label": "a@example.org", "profile": "yes"}, 400, "malformed", "profile"),
        ({"label": "a@example.org", "more": 1}, 400, "malformed", "more"),
        ({}, 400, "malformed", "label"),
    ],
)
def test_a_bad_lookup_names_the_field(
    directory: Up, request_: dict[str, Any], status: int, reason: str, field: str | None
) -> None:
    check_problem(httpx.post(f"{directory.url}/v1/lookup", json=request_), status, reason, field)


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/v1/heads/0", 400, "epoch"),
        ("/v1/heads/none", 400, "epoch"),
        ("/v1/heads/1000000", 404, "epoch"),
        ("/v1/consistency?log=heads&from=2&to=1", 400, "from"),
        ("/v1/consistency?log=heads&from=0&to=1000000", 404, "to"),
        ("/v1/consistency?log=other&from=0&to=1", 400, "log"),
        ("/v1/consistency?log=heads&from=0", 400, "to"),
        ("/v1/nothing", 404, None),
        ("/v1/lookup", 405, None),
        ("/", 404, None),
    ],
)
def test_a_bad_address_is_a_problem(directory: Up, path: str, status: int, field: str | None) -> None:
    check_problem(httpx.get(f"{directory.url}{path}"), status, None, field)


def test_the_front_end_goes_on_and_the_audit_is_clean(directory: Up, tmp_path: Path) -> None:
    assert httpx.get(f"{directory.url}/readyz").status_code == 200
    assert "was ended" not in directory.spoken
    with directory.client(tmp_path / "client") as client:
        published = client.publish("after@example.org", account("after").profile, [OWNER])
        assert client.lookup(published.submission.label).profile == account("after").profile
    assert set(directory.audit()["verdicts"]) == {"config", "epoch", "accepted"}
