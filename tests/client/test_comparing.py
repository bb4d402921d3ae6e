"""A client compares what others were shown: the same log at any size, split views, and places that fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.comparing import Comparison
from kt_es.client.state import FileStateStore, MemoryStateStore
from kt_es.errors import ConfigError, EquivocationError, UnavailableError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence, EvidenceKind, armored
from kt_es.formats.heads import Checkpoint, heads_origin, sign_checkpoint
from kt_es.process.site import Page
from tests import builders as b
from tests.reference.clients import client_of, naming
from tests.reference.directory import Directory, problem
from tests.reference.shown import Shown, showing

ALICE = b.label_of("alice")


def directory(*users: str) -> Directory:
    """One user in each epoch."""
    made = Directory()
    for user in users:
        made.put_user(user)
        made.advance()
    return made


@pytest.fixture(scope="module")
def ours() -> Directory:
    return directory("alice", "bob", "carol", "dave", "erin")


@pytest.fixture(scope="module")
def theirs() -> Directory:
    return directory("alice", "bob", "mallory", "trent", "victor")


def shown_by(made: Directory, size: int, logs: str = "heads mutations") -> Shown:
    """What a place shows that has ``size`` heads of the directory."""
    pages = {"heads": made.heads_checkpoint(size)}
    if "mutations" in logs:
        pages["mutations"] = made.mutations_checkpoint(size)
    return Shown({f"/{log}/checkpoint": Page(pages[log].encode()) for log in logs.split()})


@contextmanager
def place(shown: Shown) -> Iterator[str]:
    with showing(shown) as url:
        yield url


@pytest.mark.parametrize("size", range(1, 6))
def test_every_earlier_state_of_the_same_log_agrees(ours: Directory, size: int) -> None:
    client = client_of(ours)
    with place(shown_by(ours, size)) as url:
        found = client.comparing.compare(url)
    assert [(one.log, one.where) for one in found] == [("heads", url), ("mutations", url)]
    assert found[0] == Comparison(url, "heads", size)
    assert client.trusted().size == 5


@pytest.mark.parametrize("size", range(3, 6))
@pytest.mark.parametrize(
    ("logs", "kind"),
    [("heads", EvidenceKind.CHECKPOINTS), ("mutations", EvidenceKind.HEAD_CHECKPOINT)],
)
def test_another_log_becomes_evidence_and_nothing_is_believed_afterwards(
    ours: Directory, theirs: Directory, size: int, logs: str, kind: EvidenceKind, tmp_path: Path
) -> None:
    client = client_of(ours, FileStateStore(tmp_path))
    client.lookup(ALICE)
    with place(shown_by(theirs, size, logs)) as url, pytest.raises(EquivocationError) as caught:
        client.comparing.compare(url)
    assert caught.value.saved is not None
    evidence = Evidence.decode(caught.value.saved.read_bytes())
    assert evidence.kind is kind
    convict(evidence)
    with pytest.raises(EquivocationError, match="proven before"):
        client_of(ours, FileStateStore(tmp_path)).lookup(ALICE)


def test_before_the_fork_both_are_right(ours: Directory, theirs: Directory) -> None:
    with place(shown_by(theirs, 2)) as url:
        assert client_of(ours).comparing.compare(url)[0].size == 2


def test_both_sides_find_it_in_a_file_of_the_other(
    ours: Directory, theirs: Directory, tmp_path: Path
) -> None:
    for mine, other in ((ours, theirs), (theirs, ours)):
        path = tmp_path / f"{mine is ours}"
        path.write_text(client_of(other).head().heads_checkpoint)
        with pytest.raises(EquivocationError, match="two different logs of 5 leaves"):
            client_of(mine).comparing.compare(str(path))


def test_a_front_end_that_is_behind_is_asked_again(ours: Directory) -> None:
    """The front end has three heads until it was asked a few times."""
    behind, asked = directory("alice", "bob", "carol"), [0]

    def handle(request: httpx.Request) -> httpx.Response:
        asked[0] += request.url.path.startswith("/v1/heads/")
        return (behind if asked[0] < 3 else ours).handle(request)

    with place(shown_by(ours, 5)) as url:
        assert client_of(ours, handler=handle).comparing.compare(url)[0].size == 5
    assert asked[0] >= 3


def test_a_front_end_that_stays_behind_proves_nothing(ours: Directory) -> None:
    behind = directory("alice", "bob", "carol")
    with (
        place(shown_by(ours, 5)) as url,
        pytest.raises(UnavailableError, match=r"has 3 of the 5 leaves .* behind, or withholds them"),
    ):
        client_of(behind).comparing.compare(url, timeout=0.5)


def test_a_front_end_that_withholds_its_statement_is_no_evidence_and_not_believed(
    ours: Directory, theirs: Directory
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/heads/3":
            return problem(404, "unknown-epoch", "there is none")
        return ours.handle(request)

    client = client_of(ours, handler=handle)
    for logs in ("heads", "mutations"):
        with place(shown_by(theirs, 3, logs)) as url, pytest.raises(VerificationError) as caught:
            client.comparing.compare(url)
        assert (caught.value.step, type(caught.value)) == ("comparison", VerificationError)


@pytest.mark.parametrize(
    ("show", "problem_said"),
    [
        (lambda _: Page(b"<html>"), "note: has no signatures"),
        (lambda _: Page(b"\xff\n"), "is not valid UTF-8"),
        (lambda made: Page(made.mutations_checkpoint(2).encode()), "no signature is by a known key"),
    ],
)
def test_what_the_directory_has_not_signed_convicts_nobody(
    ours: Directory, show: Callable[[Directory], Page], problem_said: str
) -> None:
    with (
        place(Shown({"/heads/checkpoint": show(ours)})) as url,
        pytest.raises(VerificationError, match=problem_said) as caught,
    ):
        client_of(ours).comparing.compare(url)
    assert caught.value.step == "checkpoint"
    assert not isinstance(caught.value, EquivocationError)


def test_places_that_cannot_be_read(ours: Directory, tmp_path: Path) -> None:
    client = client_of(ours)
    with pytest.raises(ConfigError, match=r"cannot be read.*begins with https"):
        client.comparing.compare(str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="begins with https"):
        client.comparing.compare("kt.example.org:8443")
    with pytest.raises(ConfigError, match="is empty"):
        client.comparing.compare("")
    checkpoint = ours.heads_checkpoint(2)
    origin = heads_origin(b.ORIGIN)
    another = sign_checkpoint(Checkpoint(origin, 1, bytes(32)), origin, b.private_key("another"))
    for text, problem_said in (
        ("another/heads\n1\n", "is no checkpoint of"),
        (checkpoint[:-20], "no complete checkpoint"),
        (another, "no checkpoint that the directory has signed"),
    ):
        (tmp_path / "other").write_text(text)
        with pytest.raises(ConfigError, match=problem_said):
            client.comparing.compare(str(tmp_path / "other"))
    with place(Shown()) as url, pytest.raises(UnavailableError, match="shows no checkpoint"):
        client.comparing.compare(url)
    with pytest.raises(ConfigError):
        client.comparing.compare("gopher://example.org")


def test_after_a_rotation_the_client_learns_the_new_key(ours: Directory) -> None:
    rotated = directory("alice", "bob")
    store = MemoryStateStore()
    client_of(rotated, store).lookup(ALICE)
    rotated.rotate(b.private_key("successor"))
    rotated.advance()
    rotated.advance()
    client: Client = client_of(rotated, store)
    with place(shown_by(rotated, 4)) as url:
        assert client.comparing.compare(url)[0].size == 4


def test_the_watchers_that_a_directory_names(ours: Directory) -> None:
    good = [f"https://w{number}.example/" for number in range(9)]
    bad = [
        None,
        "http://plain.example/",
        "file:///etc/passwd",
        "https://",
        "https://[x/",
        "https://localhost/",
    ]
    handler = naming(ours, *bad, "https://127.0.0.1:1/", "https://w0.example/" + "x" * 3000, good[0], *good)
    assert client_of(ours, handler=handler).comparing.watchers() == tuple(good[:8])
    assert client_of(ours).comparing.watchers() == ()


def test_a_watcher_in_a_private_network_is_not_asked(ours: Directory) -> None:
    shown = shown_by(ours, 5)
    client = client_of(ours)
    with place(shown) as url, pytest.raises(UnavailableError, match="its address is not a public one"):
        client.comparing.compare_with_watcher(url)
    assert not shown.asked


def test_in_a_trial_on_one_machine_the_watchers_are_there_too(ours: Directory, theirs: Directory) -> None:
    with place(shown_by(theirs, 4)) as url:
        client = client_of(ours, handler=naming(ours, url), server="http://127.0.0.1:1")
        assert client.comparing.watchers() == (url,)
        with pytest.raises(EquivocationError):
            client.comparing.compare_with_watcher(url)


def evidence_against(ours: Directory, theirs: Directory) -> bytes:
    with place(shown_by(theirs, 4)) as url, pytest.raises(EquivocationError) as caught:
        client_of(ours).comparing.compare(url)
    assert caught.value.evidence is not None
    return caught.value.evidence


def test_evidence_that_others_have_convicts_on_both_sides(
    ours: Directory, theirs: Directory, tmp_path: Path
) -> None:
    """What one client, or a monitor, has found ends the other side's trust as well."""
    evidence = evidence_against(ours, theirs)
    (tmp_path / "mail").write_text(f"look at this\n{armored(evidence)}\n")
    listed = {"evidence": [{"name": "../x.evidence"}, {"name": "checkpoints-size-4.evidence"}, 5]}
    monitor = Shown(
        {
            "/evidence": Page(json.dumps(listed).encode(), "application/json"),
            "/evidence/checkpoints-size-4.evidence": Page(evidence),
        }
    )
    with place(monitor) as url:
        for number, made in enumerate((ours, theirs)):
            for where in (url, str(tmp_path / "mail")):
                store = FileStateStore(tmp_path / f"{number} {where == url}")
                with pytest.raises(EquivocationError, match="two different logs of 4 leaves") as caught:
                    client_of(made, store).comparing.compare(where)
                assert caught.value.saved is not None
                assert caught.value.saved.read_bytes() == evidence
    assert not any("x.evidence" in path for path in monitor.asked)


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b"<html>", b'{"evidence": {"name": 1}}', b'{"evidence": ["x"]}']
)
def test_lists_of_evidence_that_are_none(ours: Directory, body: bytes) -> None:
    shown = shown_by(ours, 4)
    shown.pages["/evidence"] = Page(body, "application/json")
    with place(shown) as url:
        assert client_of(ours).comparing.compare(url)[0].size == 4


def test_evidence_that_proves_nothing_here_is_passed_over(
    ours: Directory, theirs: Directory, tmp_path: Path
) -> None:
    good = evidence_against(ours, theirs)
    shown = shown_by(ours, 4)
    named = {
        "a": good[:-90] + bytes(90),
        "b": b"junk",
        "c": good.replace(b"kt.example.org", b"kt.example.com"),
    }
    listed = {"evidence": [{"name": f"{name}.evidence"} for name in (*named, "missing")]}
    shown.pages["/evidence"] = Page(json.dumps(listed).encode(), "application/json")
    for name, data in named.items():
        shown.pages[f"/evidence/{name}.evidence"] = Page(data)
    with place(shown) as url:
        assert client_of(ours).comparing.compare(url)[0].size == 4
