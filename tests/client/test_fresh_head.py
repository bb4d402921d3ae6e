"""Whoever changes something waits for a fresh head; an import waits while too much waits for the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx
import pytest

from kt_es.cli.owners.importing import MERGING
from kt_es.client.bulk import BulkProgress, publish_all
from kt_es.client.planning import Wanted
from kt_es.errors import CannotTellError, StaleHeadError, UnavailableError
from kt_es.formats.entries import ProfileKey
from tests import builders as b
from tests.reference.clients import Handler, client_of
from tests.reference.clocks import Pauses
from tests.reference.directory import Directory, problem


@pytest.fixture(autouse=True)
def in_memory(pauses: Pauses) -> None:
    """All directories here are in memory."""


TOO_OLD = 60_000 + 60_000 + 1


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    return directory


class Restarted:
    """A clock by which the only head is too old for the first ``looks`` looks at it."""

    def __init__(self, directory: Directory, looks: int) -> None:
        self._directory = directory
        self._looks = looks
        self._lock = threading.Lock()
        self.told: list[StaleHeadError] = []

    def now(self) -> int:
        with self._lock:
            self._looks -= 1
            return self._directory.now + (TOO_OLD if self._looks >= 0 else 0)


def test_a_change_waits_for_a_fresh_head(directory: Directory) -> None:
    restarted = Restarted(directory, 3)
    client = client_of(directory, now=restarted.now, on_stale=restarted.told.append)
    published = client.publish(
        "carol@example.org", [ProfileKey("laptop", "raw", b"carol")], [b.private_key("carol")]
    )
    assert published.stands
    assert [error.step for error in restarted.told] == ["freshness"] * 3


def test_a_head_that_stays_old_is_7(directory: Directory) -> None:
    restarted = Restarted(directory, 10**6)
    client = client_of(directory, now=restarted.now, on_stale=restarted.told.append)
    with pytest.raises(CannotTellError, match="freshness") as error:
        client.lookup("alice@example.org", timeout=2)
    assert error.value.exit_code == 7
    assert restarted.told


def test_whoever_only_looks_does_not_wait(directory: Directory) -> None:
    restarted = Restarted(directory, 1)
    with pytest.raises(StaleHeadError):
        client_of(directory, now=restarted.now).lookup("alice@example.org")


def imported(directory: Directory, handler: Handler, restarted: Restarted, patience: float) -> int:
    client = client_of(directory, handler=handler, now=restarted.now, on_stale=restarted.told.append)
    wanted = [Wanted(f"{name}@example.org", (ProfileKey("k", "raw", name.encode()),)) for name in "abcdef"]
    progress = BulkProgress(lambda: None, lambda: None)
    return publish_all(
        client, wanted, [b.private_key("importer")], progress, merging=MERGING, jobs=2, patience=patience
    ).published


def test_an_import_waits_for_a_fresh_head(directory: Directory) -> None:
    restarted = Restarted(directory, 4)
    assert imported(directory, crowded(directory, 0)[0], restarted, 30) == 6
    assert restarted.told


def test_an_import_of_a_silent_directory_is_7(directory: Directory) -> None:
    with pytest.raises(CannotTellError) as error:
        imported(directory, crowded(directory, 0)[0], Restarted(directory, 10**6), 0.1)
    assert error.value.exit_code == 7


def crowded(directory: Directory, refusals: int) -> tuple[Handler, Callable[[], int]]:
    """A front end with too long a queue: it refuses so many submissions."""
    lock, refused = threading.Lock(), 0

    def handle(request: httpx.Request) -> httpx.Response:
        nonlocal refused
        with lock:
            if request.url.path == "/v1/mutations/batch" and refused < refusals:
                refused += 1
                answer = problem(503, "unavailable", "about 400 items wait for the next head")
                answer.headers["retry-after"] = "0"
                return answer
            return directory.handle(request)

    return handle, lambda: refused


def test_an_import_waits_while_too_much_waits(directory: Directory) -> None:
    handler, refused = crowded(directory, 12)
    assert imported(directory, handler, Restarted(directory, 0), 60) == 6
    assert refused() == 12


def test_an_import_that_is_refused_for_too_long_is_7(directory: Directory) -> None:
    handler, _ = crowded(directory, 10**6)
    with pytest.raises(UnavailableError, match="items wait") as error:
        imported(directory, handler, Restarted(directory, 0), 3)
    assert error.value.exit_code == 7
