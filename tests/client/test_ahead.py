"""A place that shows a longer log than the client's front end has: compared at once, or kept and compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from kt_es.client.ahead import MOST, Ahead, forget_ahead, keep_ahead, kept_ahead
from kt_es.client.comparing import Comparison
from kt_es.client.state import FileStateStore, MemoryStateStore
from kt_es.errors import CannotTellError, ConfigError, EquivocationError, UnavailableError
from kt_es.evidence import convict
from kt_es.formats.codec import encode
from kt_es.formats.evidence import Evidence
from kt_es.process.exposition import answering
from kt_es.process.site import Page
from tests.reference.clients import client_of
from tests.reference.directory import Directory
from tests.reference.shown import Shown, showing

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def directory(*users: str) -> Directory:
    """One user in each epoch."""
    made = Directory()
    for user in users:
        made.put_user(user)
        made.advance()
    return made


def ours(size: int = 3) -> Directory:
    return directory(*["alice", "bob", "carol", "dave", "erin", "frank", "grace"][:size])


@pytest.fixture(scope="module")
def longer() -> Directory:
    return ours(5)


@pytest.fixture(scope="module")
def forked() -> Directory:
    return directory("alice", "bob", "mallory", "trent", "victor")


def shown_by(made: Directory, size: int) -> Shown:
    pages = {"heads": made.heads_checkpoint(size), "mutations": made.mutations_checkpoint(size)}
    return Shown({f"/{log}/checkpoint": Page(text.encode()) for log, text in pages.items()})


@contextmanager
def front_end(made: Directory) -> Iterator[str]:
    """Another front end, which serves proofs and heads beside its checkpoints."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, size = environ["PATH_INFO"], len(made.heads)
        if path == "/heads/checkpoint":
            answer = httpx.Response(200, content=made.heads_checkpoint(size).encode())
        elif path == "/mutations/checkpoint":
            answer = httpx.Response(200, content=made.mutations_checkpoint(size).encode())
        else:
            answer = made.handle(httpx.Request("GET", f"http://place{path}?{environ['QUERY_STRING']}"))
        start_response(f"{answer.status_code} X", [("Content-Length", str(len(answer.content)))])
        return [answer.content]

    with answering(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_front_end_that_is_ahead_proves_how_the_same_log_continues(longer: Directory) -> None:
    client = client_of(ours())
    with front_end(longer) as url:
        found = client.comparing.compare(url)
    assert found == (Comparison(url, "heads", 5), Comparison(url, "mutations", len(longer.records)))
    assert client.trusted().size == 3


def test_a_front_end_that_is_ahead_with_another_log_convicts_at_once(
    forked: Directory, tmp_path: Path
) -> None:
    """The client's own front end never gets as many heads."""
    client = client_of(ours(), FileStateStore(tmp_path))
    with front_end(forked) as url, pytest.raises(EquivocationError) as caught:
        client.comparing.compare(url)
    assert url in str(caught.value)
    assert "http://kt.test" in str(caught.value)
    assert caught.value.saved is not None
    convict(Evidence.decode(caught.value.saved.read_bytes()))


def test_a_place_without_proofs_is_compared_though_it_stays_ahead(forked: Directory, tmp_path: Path) -> None:
    """The first checkpoint is kept, also for another process, while the place shows newer and newer ones."""
    mine = ours()
    shown = shown_by(forked, 4)
    with showing(shown) as url:
        for size in (4, 5):
            shown.pages = shown_by(forked, size).pages
            with pytest.raises(UnavailableError):
                client_of(mine, FileStateStore(tmp_path)).comparing.compare(url, timeout=2)
        mine.put_user("dave")
        mine.advance()
        with pytest.raises(EquivocationError, match="two different logs of 4 leaves") as caught:
            client_of(mine, FileStateStore(tmp_path)).comparing.compare(url, timeout=2)
        assert url in str(caught.value)


def test_what_was_kept_is_compared_without_the_place(longer: Directory) -> None:
    mine, store = ours(), MemoryStateStore()
    with showing(shown_by(longer, 4)) as url, pytest.raises(UnavailableError):
        client_of(mine, store).comparing.compare(url, timeout=2)
    assert client_of(mine, store).comparing.settle() == ()
    mine.put_user("dave")
    mine.advance()
    assert client_of(mine, store).comparing.settle() == (Comparison(url, "heads", 4),)
    assert client_of(mine, store).comparing.settle() == ()
    assert kept_ahead(store) == ()


def test_what_cannot_be_compared_in_time_is_not_passed_over(longer: Directory) -> None:
    mine, store = ours(), MemoryStateStore()
    allowed = mine.configs[0].config.max_interval + 60_000
    clock = [mine.now]
    client = client_of(mine, store, now=lambda: clock[0])
    with showing(shown_by(longer, 4)) as url:
        with pytest.raises(UnavailableError):
            client.comparing.compare(url, timeout=2)
        clock[0] += allowed
        assert client.comparing.settle() == ()
        clock[0] += 1
        with pytest.raises(CannotTellError, match="a signed log of 4 leaves") as caught:
            client.comparing.settle()
        assert (caught.value.step, caught.value.exit_code) == ("comparison", 7)
        with pytest.raises(CannotTellError, match="a signed log of 4 leaves"):
            client.comparing.compare(url)


def test_so_many_checkpoints_are_kept_and_no_more() -> None:
    store = MemoryStateStore()
    many = [Ahead(f"http://w{number}", "heads", number, "text") for number in range(MOST)]
    assert all(keep_ahead(store, one) for one in many)
    assert not keep_ahead(store, Ahead("http://late", "heads", 1, "text"))
    assert not keep_ahead(store, Ahead("http://" + "x" * 5000, "heads", 1, "text"))
    assert keep_ahead(store, Ahead("http://w0", "heads", 99, "newer"))
    assert kept_ahead(store) == tuple(many)
    forget_ahead(store, many[0])
    assert kept_ahead(store) == tuple(many[1:])


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        encode(["another mark", []]),
        encode(["kt-es checkpoints ahead v1", [["w", "another", 1, "text"]]]),
        encode(["kt-es checkpoints ahead v1", [["w", "heads", 1]]]),
    ],
)
def test_a_damaged_list_is_not_forgotten_silently(data: bytes) -> None:
    store = MemoryStateStore()
    store.remember("ahead", b"", data)
    with pytest.raises(ConfigError, match="is damaged"):
        kept_ahead(store)
