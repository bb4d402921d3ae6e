"""Real processes on a disk that becomes full: none ends, each says so, and goes on when there is space.

The node has a disk of its own with space. Every test kills its process while the disk is full.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import load_settings
from kt_es.formats.notes import encode_base64
from tests.builders import private_key
from tests.e2e.processes import Running, Stranger, account, heads_of, log_at, until
from tests.faults.full_disk import FullDisk, full_disk

pytestmark = pytest.mark.e2e

OWNER = private_key("owner of all")
FULL = "the disk is full; waiting for space"
AGAIN = "the disk has space again"


@dataclass(slots=True)
class Scene:
    """A directory whose parts are processes of their own, one of them with its data on ``disk``."""

    base: Path
    disk: FullDisk
    node: str
    operator: Stranger
    stack: ExitStack
    put: list[str] = field(default_factory=list)
    starts: int = 0

    @property
    def settings(self) -> Path:
        return self.base / "made/kt.toml"

    def start(self, part: str, data: Path, *options: str | Path) -> Running:
        self.starts += 1
        words = ("-c", self.settings, part, "--log", self.node, "--data", data, *options)
        running = Running(self.base / f"{part}-{self.starts}.log", *words)
        self.stack.callback(running.stop, signal.SIGKILL)
        return running

    def frontend(self, data: Path, *options: str) -> tuple[Running, str]:
        running = self.start("frontend", data, "--listen", "127.0.0.1:0", *options)
        return running, str(json.loads(running.wait_for_line('"serving"'))["url"])

    def client(self, url: str) -> Client:
        settings = load_settings(self.settings)
        pinned = Pinned(settings.origin, settings.pinned)
        return self.stack.enter_context(Client(url, MemoryStateStore(), pinned=pinned, timeout=60))

    def publish(self, client: Client, name: str) -> None:
        """Publish an account; it is acknowledged by an epoch that has it."""
        wanted = account(name)
        client.publish(wanted.label, wanted.profile, [OWNER])
        self.put.append(name)

    def check(self) -> None:
        """An audit from the start is clean, and everything that was acknowledged is there."""
        ran = self.operator.kt("--json", "-c", self.settings, "audit", "--allow-gaps", "--log", self.node)
        assert ran.document["entries"] == len(self.put)
        with log_at(self.node) as log:
            heads_of(log)
        _, url = self.frontend(self.base / "fresh")
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "a fresh front end is ready")
        client = self.client(url)
        epoch = ran.document["epoch"]
        until(lambda: metric(f"{url}/metrics", "kt_epoch") >= epoch, "it has every epoch")
        for name in self.put:
            assert client.lookup(account(name).label).profile == account(name).profile


def metric(url: str, name: str) -> float:
    lines = httpx.get(url).text.splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), -1.0)


def metrics_of(running: Running) -> str:
    url: str = json.loads(running.wait_for_line('"metrics"'))["url"]
    return url


def json_lines(running: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.spoken.splitlines() if line.startswith("{")]


def is_reported_once(running: Running, part: str) -> None:
    """One line of the beginning, however often it was tried."""
    lines = [line for line in json_lines(running) if line.get("part") == part and line["event"] == FULL]
    assert len(lines) == 1
    assert "Traceback" not in running.spoken


def kill(running: Running) -> None:
    assert running.process.poll() is None, running.spoken
    running.stop(signal.SIGKILL)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with full_disk(tmp_path, 32) as disk, ExitStack() as stack:
        node = Running(tmp_path / "node.log", "node", "--data", tmp_path / "node", "--listen", "127.0.0.1:0")
        stack.callback(node.stop)
        uri = node.wait_for_line("listening on").rpartition(" ")[2]
        operator = Stranger(tmp_path / "home")
        intervals = ("--min-interval", "0.1", "--max-interval", "300")
        operator.kt("init", "--data", tmp_path / "made", "--log", uri, *intervals)
        yield Scene(tmp_path, disk, uri, operator, stack)


def test_the_signer_publishes_nothing_more_and_goes_on(scene: Scene) -> None:
    data, disk = scene.disk.path / "signer", scene.disk
    signer = scene.start("signer", data, "--metrics", "127.0.0.1:0")
    _, url = scene.frontend(scene.base / "replica")
    client = scene.client(url)
    for number in range(3):
        scene.publish(client, f"before{number}")
    disk.fill()
    waiting = []
    # The journal still grows to the end of its page: one epoch at a time until none more is taken.
    for number in range(50):
        wanted = account(f"during{number}")
        waiting.append(client.prepare(wanted.label, wanted.profile, [OWNER]))
        client.submit(waiting[-1])
        scene.put.append(f"during{number}")
        with log_at(scene.node) as log:
            until(
                lambda: FULL in signer.spoken or heads_of(log)[-1].map_size >= len(scene.put),
                "a head, or a full disk",
            )
        if FULL in signer.spoken:
            break
    assert metric(metrics_of(signer), "kt_signer_disk_full") == 1
    # More is queued, and no head comes of it while the disk is full.
    with log_at(scene.node) as log:
        heads = heads_of(log)
        late = account("late")
        waiting.append(client.prepare(late.label, late.profile, [OWNER]))
        client.submit(waiting[-1])
        scene.put.append("late")
        assert client.lookup(account("before0").label).profile == account("before0").profile
        kill(signer)
        is_reported_once(signer, "signer")
        signer = scene.start("signer", data, "--metrics", "127.0.0.1:0")
        signer.wait_for_line(FULL)
        assert metric(metrics_of(signer), "kt_signer_disk_full") == 1
        assert heads_of(log) == heads
    disk.free()
    signer.wait_for_line(AGAIN)
    for submission in waiting:
        assert client.confirm(submission).entry == submission.mutation.entry
    assert metric(metrics_of(signer), "kt_signer_disk_full") == 0
    is_reported_once(signer, "signer")
    assert signer.stop() == 0
    scene.check()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_front_end_answers_from_what_it_has_and_takes_no_submission(scene: Scene, workers: int) -> None:
    data, disk = scene.disk.path / "replica", scene.disk
    scene.start("signer", scene.base / "signer")
    other = scene.client(scene.frontend(scene.base / "other")[1])
    options = ("--workers", str(workers))
    frontend, url = scene.frontend(data, *options)
    scene.publish(scene.client(url), "before")
    disk.fill()
    for number in range(50):
        scene.publish(other, f"during{number}")
        if metric(f"{url}/metrics", "kt_disk_full") == 1:
            break
    submission = other.prepare(account("refused").label, account("refused").profile, [OWNER])

    def is_full() -> None:
        until(lambda: metric(f"{url}/metrics", "kt_disk_full") == 1, "its figure says so")
        found = scene.client(url).lookup(account("before").label)
        assert found.profile == account("before").profile
        ready = httpx.get(f"{url}/readyz")
        assert ready.status_code == 503
        assert any("disk" in problem for problem in ready.json()["problems"])
        assert str(data) not in ready.text
        assert httpx.get(f"{url}/healthz").status_code == 200
        document = {
            "label": submission.label,
            "mutation": encode_base64(submission.mutation.encode()),
            "opening": encode_base64(submission.opening),
            "profile": encode_base64(submission.profile),
        }
        refused = httpx.post(f"{url}/v1/mutations", json=document, timeout=30)
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert int(refused.headers["retry-after"]) >= 1
        assert "disk" in refused.json()["detail"]

    is_full()
    kill(frontend)
    is_reported_once(frontend, "replica")
    frontend, url = scene.frontend(data, *options)
    is_full()
    disk.free()
    until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "ready again")
    scene.publish(scene.client(url), "after")
    # What the other processes of a front end counted is up to a second old.
    until(lambda: metric(f"{url}/metrics", "kt_disk_full") == 0, "its figure says so")
    assert frontend.stop() == 0
    scene.check()


def test_the_monitor_waits_and_verifies_the_rest(scene: Scene) -> None:
    data, disk = scene.disk.path / "monitor", scene.disk
    scene.start("signer", scene.base / "signer")
    client = scene.client(scene.frontend(scene.base / "replica")[1])
    monitor = scene.start("monitor", data, "--metrics", "127.0.0.1:0")
    scene.publish(client, "before")
    until(lambda: any(line["event"] == "verified" for line in json_lines(monitor)), "it verified a head")
    disk.fill()
    for number in range(50):
        scene.publish(client, f"during{number}")
        if FULL in monitor.spoken:
            break
    monitor.wait_for_line(FULL)
    assert metric(metrics_of(monitor), "kt_monitor_disk_full") == 1
    assert metric(metrics_of(monitor), "kt_monitor_alarm") == 0
    kill(monitor)
    is_reported_once(monitor, "monitor")
    monitor = scene.start("monitor", data, "--metrics", "127.0.0.1:0")
    monitor.wait_for_line(FULL)
    assert metric(metrics_of(monitor), "kt_monitor_disk_full") == 1
    with log_at(scene.node) as log:
        last = heads_of(log)[-1].epoch
    disk.free()
    monitor.wait_for_line(AGAIN)
    until(
        lambda: (
            max(
                (line.get("epoch", 0) for line in json_lines(monitor) if line["event"] == "verified"),
                default=0,
            )
            >= last
        ),
        "it has verified everything",
    )
    assert metric(metrics_of(monitor), "kt_monitor_disk_full") == 0
    assert monitor.stop() == 0
    scene.check()


@pytest.mark.parametrize("part", ["signer", "monitor", "frontend"])
def test_a_new_one_waits_for_its_first_space_and_can_be_stopped(scene: Scene, part: str) -> None:
    scene.disk.fill()
    running = scene.start(
        part, scene.disk.path / part, *(("--listen", "127.0.0.1:0") if part == "frontend" else ())
    )
    running.wait_for_line(FULL)
    assert running.stop(signal.SIGTERM) == 0
    running = scene.start(
        part, scene.disk.path / part, *(("--listen", "127.0.0.1:0") if part == "frontend" else ())
    )
    running.wait_for_line(FULL)
    scene.disk.free()
    running.wait_for_line(AGAIN)
    assert running.stop(signal.SIGTERM) == 0
