"""A front end as a process would run it: real node, real HTTP, the real client; outages and shutdown."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.errors import ConfigError, KtError, LockedError, RefusedError
from kt_es.eventstore.connecting import connect
from kt_es.formats.entries import ProfileKey
from kt_es.process.files import replace_file
from projections.frontend import FrontendSettings, serve
from tests import builders as b
from tests.reference.frontends import until
from tests.reference.signed_streams import SignedStreams

pytestmark = pytest.mark.e2e


class Node:
    """The embedded node as a process."""

    def __init__(self, data: Path) -> None:
        command = [sys.executable, "-m", "kt_es.node", "--data", str(data), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.uri = f"esdb://{self.process.stdout.readline().strip()}?Tls=false"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "node")
    yield made
    made.stop()


@pytest.fixture
def streams(node: Node) -> Iterator[SignedStreams]:
    log = connect(node.uri)
    made = SignedStreams(log)
    made.put_user("alice")
    made.epoch()
    yield made
    log.close()


@pytest.fixture
def settings(tmp_path: Path, node: Node) -> FrontendSettings:
    key = tmp_path / "vrf.pem"
    replace_file(key, b.private_key("vrf").to_pem())
    return FrontendSettings(
        b.ORIGIN, "people", b.SIGNER_KEY, log=node.uri, data=tmp_path / "front", vrf_key=key, port=0
    )


@contextmanager
def served(settings: FrontendSettings) -> Iterator[str]:
    """A front end in a thread; its URL once it is ready."""
    stop = threading.Event()
    told: Queue[str | KtError] = Queue()

    def run() -> None:
        try:
            serve(settings, stop, on_ready=told.put, now=lambda: b.START + 30_000)
        except KtError as error:
            told.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        url = told.get(timeout=30)
        assert isinstance(url, str), url
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        yield url
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def client_of(url: str, timeout: float = 30.0) -> Client:
    pinned = Pinned(b.ORIGIN, b.SIGNER_KEY)
    now = b.START + 30_000
    return Client(url, MemoryStateStore(), pinned=pinned, timeout=timeout, now=lambda: now)


def test_a_change_is_published_and_verified_by_the_client(
    streams: SignedStreams, settings: FrontendSettings
) -> None:
    profile = [ProfileKey("laptop", "raw", b"bob")]
    with served(settings) as url, client_of(url) as client, streams.signing():
        assert client.lookup("nobody@example.org").absent
        client.publish("bob@example.org", profile, [b.private_key("bob")])
        assert client.lookup("bob@example.org").profile == tuple(profile)
        renewed = client.publish(
            "bob@example.org",
            profile,
            [b.private_key("bob"), b.private_key("next")],
            [b.public(b.private_key("next"))],
        )
        assert renewed.lookup.entry is not None
        assert renewed.lookup.entry.version == 2
        with pytest.raises(RefusedError):
            client.publish("bob@example.org", profile, [b.private_key("bob")])
        assert len(client.history("bob@example.org", profiles=True).versions) == 2
        assert client.head().head.epoch == 3


def test_many_submissions_at_once_are_all_decided(streams: SignedStreams, settings: FrontendSettings) -> None:
    users = [f"user{number}" for number in range(24)]
    with served(settings) as url, client_of(url) as client, streams.signing():
        threads = [
            threading.Thread(
                target=client.publish,
                args=(b.label_of(user), [ProfileKey("k", "raw", user.encode())], [b.private_key(user)]),
            )
            for user in users
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for user in users:
            assert client.lookup(b.label_of(user)).profile == (ProfileKey("k", "raw", user.encode()),)
    events = [event for event in streams.log.read(streams.names.queue) if event.type == "Mutations"]
    assert len(events) <= len(users)


def test_with_a_frozen_log_lookups_go_on_and_submissions_get_a_503(
    node: Node, streams: SignedStreams, settings: FrontendSettings
) -> None:
    with served(settings) as url, client_of(url) as client, httpx.Client(base_url=url, timeout=30) as http:
        assert client.lookup("alice@example.org").profile is not None
        submission = client.prepare(
            "bob@example.org", [ProfileKey("k", "raw", b"bob")], [b.private_key("bob")]
        )
        node.process.send_signal(signal.SIGSTOP)
        until(lambda: http.get("/readyz").status_code == 503)
        assert client.lookup("alice@example.org").profile is not None
        with pytest.raises(KtError, match=r"the event log cannot be reached|takes too long"):
            client.submit(submission, timeout=8)
        node.process.send_signal(signal.SIGCONT)
        until(lambda: http.get("/readyz").status_code == 200)
        with streams.signing():
            assert client.submit(submission, wait=20).verdict == "accepted"
        assert client.confirm(submission).mutation == submission.mutation


def test_a_front_end_starts_without_its_log(
    node: Node, streams: SignedStreams, settings: FrontendSettings
) -> None:
    assert streams.ledger.committed.epoch == 1
    with served(settings) as url:
        assert httpx.post(f"{url}/v1/lookup", json={"label": "alice@example.org"}).status_code == 200
    node.stop()
    stop = threading.Event()
    urls: Queue[str] = Queue()
    thread = threading.Thread(target=serve, args=(settings, stop, None, urls.put))
    thread.start()
    url = urls.get(timeout=30)
    assert httpx.post(f"{url}/v1/lookup", json={"label": "alice@example.org"}).status_code == 200
    assert httpx.get(f"{url}/readyz").status_code == 503
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_what_cannot_be_used_is_reported_in_one_line(
    tmp_path: Path, streams: SignedStreams, settings: FrontendSettings
) -> None:
    def fails(error: type[KtError], match: str, **changed: object) -> None:
        values = {name: getattr(settings, name) for name in settings.__slots__}
        with pytest.raises(error, match=match):
            serve(FrontendSettings(**{**values, **changed}), threading.Event())

    bad_key = tmp_path / "bad.key"
    bad_key.write_text("secret")
    other_key = tmp_path / "other.key"
    replace_file(other_key, b.private_key("other").to_pem())
    fails(ConfigError, "No such file", vrf_key=tmp_path / "missing")
    fails(ConfigError, "VRF key", vrf_key=bad_key)
    fails(ConfigError, "connection string", log="http://127.0.0.1")
    fails(ConfigError, "does not belong to this directory", vrf_key=other_key)
    fails(ConfigError, "data directory", data=bad_key)
    with served(settings) as url:
        assert streams.ledger.committed.epoch == 1
        fails(LockedError, "in use")
        port = int(url.rpartition(":")[2])
        fails(ConfigError, "cannot listen", data=tmp_path / "second", port=port)


def test_sigterm_ends_the_process_cleanly(streams: SignedStreams, settings: FrontendSettings) -> None:
    program = """
import sys
from pathlib import Path
import structlog
from kt_es.cli.output import stop_on_signals
from kt_es.formats.entries import PublicKey
from projections.frontend import FrontendSettings, serve
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
origin, key, log, data, vrf, now = sys.argv[1:]
settings = FrontendSettings(
    origin, "people", PublicKey(1, bytes.fromhex(key)), log, Path(data), Path(vrf), port=0
)
serve(settings, stop_on_signals(), on_ready=lambda url: print(url, flush=True), now=lambda: int(now))
"""
    arguments = [b.ORIGIN, b.SIGNER_KEY.raw.hex(), settings.log, str(settings.data), str(settings.vrf_key)]
    arguments.append(str(b.START + 30_000))
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
    # Somebody who waits for a verdict that does not come is answered before the end.
    answers: Queue[int] = Queue()
    with client_of(url) as client:
        submission = client.prepare(
            "bob@example.org", [ProfileKey("k", "raw", b"bob")], [b.private_key("bob")]
        )
        waiting = threading.Thread(
            target=lambda: answers.put(0 if client.submit(submission, wait=60).verdict is None else 1)
        )
        waiting.start()
        until(lambda: streams.log.last_revision(streams.names.queue) >= 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert answers.get(timeout=30) == 0
        waiting.join(30)
    process.stdout.close()
