"""Several signers of one directory, and signers that do not belong to it, over a real node."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.queue import MUTATIONS, encode_mutations
from kt_es.process.files import replace_file
from tests import builders as b
from tests.e2e.processes import (
    NAMES,
    ORIGIN,
    Ran,
    Running,
    Stranger,
    heads_of,
    log_at,
    stream_of,
    until,
)

pytestmark = pytest.mark.e2e


@dataclass(frozen=True, slots=True)
class Place:
    """A node with the queue of a new directory, and where its signers live."""

    base: Path
    node: Running
    uri: str
    operator: Stranger
    stack: ExitStack

    @property
    def spoken(self) -> str:
        """What all processes here said."""
        return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(self.base.glob("*.log")))

    def signer(self, name: str) -> Running:
        """Start a signer with a data directory of its own and the directory's key."""
        home = self.base / name
        if not home.exists():
            shutil.copytree(self.base / "made", home)
        running = Running(self.base / f"{name}.log", *self.command(name))
        self.stack.callback(running.stop, signal.SIGKILL)
        return running

    def command(self, name: str) -> tuple[str | Path, ...]:
        return ("-c", self.base / name / "kt.toml", "signer", "--log", self.uri)

    def refused(self, name: str, code: int) -> Ran:
        """A signer that has to refuse: it ends by itself and publishes nothing."""
        with log_at(self.uri) as log:
            before = stream_of(log, NAMES.heads), stream_of(log, NAMES.mutations)
            ran = self.operator.kt(*self.command(name), code=code)
            assert (stream_of(log, NAMES.heads), stream_of(log, NAMES.mutations)) == before
        complaints = [
            line for line in ran.err.splitlines() if not line.startswith(("{", "  the evidence is in"))
        ]
        assert len(complaints) == 1
        return ran

    def put(self, user: str) -> None:
        """Queue an account, and wait until a head has it."""
        mutation = b.mutation(user, origin=ORIGIN)
        data = encode_mutations([mutation.encode()])
        with log_at(self.uri) as log:
            log.append(NAMES.queue, ANY, [content_event(NAMES.queue, MUTATIONS, data)])
            last = log.last_revision(NAMES.queue)
            until(
                lambda: any(head.queue_next > last for head in heads_of(log)),
                f"a head with {user}, which is behind revision {last} of the queue",
            )

    def audited(self) -> int:
        """How many entries a clean audit counts."""
        ran = self.operator.kt(
            "--json", "-c", self.base / "made/kt.toml", "audit", "--allow-gaps", "--log", self.uri
        )
        # A signer that wakes up may put a marker into the queue before it knows that it was replaced.
        assert set(ran.document["verdicts"]) - {"stale-marker"} == {"config", "epoch", "accepted"}
        return int(ran.document["entries"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        node = Running(tmp_path / "node.log", "node", "--data", tmp_path / "node", "--listen", "127.0.0.1:0")
        stack.callback(node.stop)
        uri = node.wait_for_line("listening on").rpartition(" ")[2]
        operator = Stranger(tmp_path / "home")
        short = ("--min-interval", "0.1", "--max-interval", "3")
        operator.kt("init", "--data", tmp_path / "made", "--log", uri, *short)
        yield Place(tmp_path, node, uri, operator, stack)


def test_a_standby_takes_over_where_the_active_one_was_killed(place: Place) -> None:
    active = place.signer("one")
    active.wait_for_line('"active"')
    place.put("alice")
    standby = place.signer("two")
    standby.wait_for_line('"standby"')
    place.put("bob")
    assert '"active"' not in standby.spoken
    active.stop(signal.SIGKILL)
    standby.wait_for_line('"active"')
    place.put("carol")

    # The one that was killed lost its disk, too: it comes back as the standby of the other.
    shutil.rmtree(place.base / "one/signer")
    back = place.signer("one")
    back.wait_for_line('"standby"')
    assert '"recovered"' in back.spoken
    assert standby.stop() == 0
    back.wait_for_line('"active"')
    place.put("dora")
    assert back.stop() == 0
    assert place.audited() == 4
    for running in (active, standby, back):
        assert "Traceback" not in running.spoken


def test_a_signer_that_was_frozen_finds_itself_replaced(place: Place) -> None:
    """A subscription is a lock, not a fence: the one that wakes up writes the same bytes or stops."""
    frozen = place.signer("one")
    frozen.wait_for_line('"active"')
    place.put("alice")
    standby = place.signer("two")
    standby.wait_for_line('"standby"')
    os.kill(frozen.process.pid, signal.SIGSTOP)
    try:
        standby.wait_for_line('"active"', 60)
        place.put("bob")
        place.put("carol")
    finally:
        os.kill(frozen.process.pid, signal.SIGCONT)
    place.put("dora")
    until(lambda: frozen.spoken.count('"standby"') or frozen.process.poll() is not None, "it gave way")
    assert frozen.process.poll() in (None, 1, 4)
    place.put("erin")
    assert place.audited() == 5


def test_a_signer_with_another_key_refuses_to_start(place: Place) -> None:
    first = place.signer("one")
    place.put("alice")
    assert first.stop() == 0
    shutil.copytree(place.base / "one", place.base / "two")
    replace_file(place.base / "two/keys/signer/signer.pem", b.private_key("somebody else").to_pem())
    ran = place.refused("two", 2)
    assert "no private key for the config's signer key" in ran.err
    # Neither does one that has nothing yet, nor one of a directory without any epoch.
    shutil.rmtree(place.base / "two/signer")
    assert "no private key" in place.refused("two", 2).err


def test_a_first_signer_with_another_key_refuses_to_start(place: Place) -> None:
    shutil.copytree(place.base / "made", place.base / "one")
    replace_file(place.base / "one/keys/signer/signer.pem", b.private_key("somebody else").to_pem())
    assert "no private key" in place.refused("one", 2).err


def test_data_of_another_directory_are_refused(place: Place, tmp_path: Path) -> None:
    first = place.signer("one")
    place.put("alice")
    assert first.stop() == 0
    # The same keys, another origin: the data say whose they are.
    others = tmp_path / "others"
    options = ("--directory", "others", "--origin", "kt.example.org/others")
    place.operator.kt("init", "--data", others, "--log", place.uri, *options)
    shutil.copytree(place.base / "one/signer", others / "signer")
    assert "belongs to 'localhost/people', not to kt.example.org/others" in place.refused("others", 2).err


def test_data_of_another_log_are_refused(place: Place, tmp_path: Path) -> None:
    """The same keys and origin, but what was committed is not what this log has published."""
    first = place.signer("one")
    place.put("alice")
    assert first.stop() == 0
    node = Running(tmp_path / "second.log", "node", "--data", tmp_path / "second", "--listen", "127.0.0.1:0")
    place.stack.callback(node.stop)
    uri = node.wait_for_line("listening on").rpartition(" ")[2]
    other = Place(place.base, node, uri, place.operator, place.stack)
    place.operator.kt("-c", place.base / "made/kt.toml", "status", "--log", uri)
    empty = other.refused("one", 4)
    assert "kt_heads-people has no head of epoch" in empty.err

    settings = (place.base / "made/kt.toml").read_text()
    (place.base / "made/kt.toml").write_text(settings.replace(place.uri, uri))
    place.operator.kt("init", "--data", place.base / "made", "--min-interval", "0.1", "--max-interval", "3")
    shutil.copytree(place.base / "made", place.base / "three")
    second = other.signer("three")
    for user in ("bob", "carol", "dora"):
        other.put(user)
    with log_at(place.uri) as log, log_at(uri) as other_log:
        wanted = len(heads_of(log))
        until(lambda: len(heads_of(other_log)) >= wanted, "as many heads")
    assert second.stop() == 0
    assert "another signed head of epoch" in other.refused("one", 5).err
    assert list((place.base / "one/signer/evidence").glob("heads-epoch-*.evidence"))
