"""A split view: two clients that share no state but one witness, one monitor, or each other, both find it.

The operator of ``tools/lies`` shows one log to one client and another log to the other. Everything that
compares is the real command: ``kt get``, ``kt watch``, ``kt checkpoint``, ``kt witness``, ``kt monitor``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from tools.lies.catalogue.views import ALICE, Views
from tools.lies.commands import Ran
from tools.lies.nodes import Log, running_logs
from tools.lies.stage import VKEY, Stage, StageUser

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Log, Log]]:
    with running_logs(tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture
def stage(logs: tuple[Log, Log], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    name = f"d{abs(hash(request.node.name))}"
    with Stage(tmp_path / name, name, logs) as made:
        yield made


def found_by(user: StageUser, ran: Ran, heads: int = 4) -> bytes:
    """The evidence of a user whose command has found the split view."""
    assert ran.code == 5, ran.err
    sentence = f"the directory signed two different logs of {heads} leaves"
    assert sentence in ran.err
    (path,) = user.evidence
    data = path.read_bytes()
    assert sentence in convict(Evidence.decode(data))
    # Nothing that the directory says counts for this user any more.
    assert user.kt("get", ALICE).code == 5
    return data


def splits(views: Views) -> None:
    """The directory shows one more head to each side, and each is another one."""
    for server, name in ((views.one, "dave"), (views.other, "erin")):
        server.universe.put(name)
        server.universe.epoch()


def test_two_clients_that_share_one_other_client(stage: Stage) -> None:
    """Each has a checkpoint that the other one has sent. Alone, neither could tell."""
    one, other = Views(stage).users()
    sent = {user: user.ok("checkpoint").out for user in (one, other)}
    for user, friend in ((one, other), (other, one)):
        user.ok("get", ALICE)
        (user.home / "friend").write_text(sent[friend])
        found_by(user, user.kt("get", ALICE, "--also", "friend"))


def test_two_clients_that_share_one_witness(stage: Stage) -> None:
    """The witness has cosigned one log and refuses the other.

    Who is shown the other one finds it there, and the evidence convinces the first one.
    """
    views = Views(stage)
    one, other = views.users()
    other.ok("get", ALICE)
    witness = views.witness()
    one.ok("get", ALICE, "--also", witness)
    evidence = found_by(other, other.kt("get", ALICE, "--also", witness))
    (one.home / "sent").write_bytes(evidence)
    assert found_by(one, one.kt("get", ALICE, "--also", "sent")) == evidence


def test_two_clients_that_share_one_monitor(stage: Stage) -> None:
    """The monitor finds it within an interval and shows the evidence, which both clients find there."""
    stage.settings.write_text(stage.settings.read_text().replace("[monitor]", "[monitor]\nalso_interval = 1"))
    views = Views(stage, honest=True)
    views.other.universe = views.universes[0].fork()
    monitor, url = views.monitor("--also", views.one.url, "--also", views.other.url)
    users = views.users()
    for user in users:
        user.ok("get", ALICE, "--also", url)
    splits(views)
    stage.write(views.universes[0])

    def listed() -> list[dict[str, str]]:
        found: list[dict[str, str]] = httpx.get(f"{url}/evidence", trust_env=False).json()["evidence"]
        return found

    stage.until(lambda: listed() != [], "there is evidence")
    stage.until(lambda: "Something is wrong" in httpx.get(url, trust_env=False).text, "the page says so")
    evidence = {found_by(user, user.kt("get", ALICE, "--also", url), 5) for user in users}
    (name,) = (one["name"] for one in listed())
    assert evidence == {httpx.get(f"{url}/evidence/{name}", trust_env=False).content}
    assert monitor.stop().code == 5
    ran = stage.kt("verify", stage.base / "monitor" / "evidence" / name, "--vkey", VKEY)
    assert ran.code == 5, ran.err


def test_two_owners_that_watch_find_it_within_an_interval(stage: Stage) -> None:
    """They watch before the split, and one more epoch is enough."""
    views = Views(stage, honest=True)
    one, other = views.users()
    views.other.universe = views.universes[0].fork()
    watches = []
    for user, also in ((one, views.other.url), (other, views.one.url)):
        user.holds("alice")
        watch = user.start("watch", ALICE, "--interval", "0.5", "--also", also)
        watch.wait_for_line("shows the same log")
        watches.append(watch)
    splits(views)
    for user, watch in zip((one, other), watches, strict=True):
        ran = watch.end()
        assert ran.code == 5, ran.err
        assert "two different logs of 5 leaves" in ran.err
        assert len(user.evidence) == 1
