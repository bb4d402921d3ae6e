"""Real processes come back to a log that is another one than they verified."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from kt_es.client.trusted import Pinned
from kt_es.eventstore.streams import ANY, content_event
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.formats.queue import MUTATIONS, encode_mutations
from tests import builders as b
from tests.e2e.processes import NAMES, ORIGIN, Running, Stranger, heads_of, log_at, until

pytestmark = pytest.mark.e2e

# No head comes by itself, and none is too old for an audit, however long the tests take.
QUIET = ("--min-interval", "0.1", "--max-interval", "3600")


@dataclass(frozen=True, slots=True)
class Scene:
    """A directory that was verified from the first log, and two other logs with the same keys behind them.

    ``empty`` never had a head; ``forked`` has as many as the first one, with other users.
    """

    base: Path
    operator: Stranger
    first: str
    empty: str
    forked: str
    stack: ExitStack

    @property
    def settings(self) -> Path:
        return self.base / "made/kt.toml"

    def run(self, name: str, *arguments: str | Path) -> Running:
        running = Running(self.base / f"{name}.log", "-c", self.settings, *arguments)
        self.stack.callback(running.stop, signal.SIGKILL)
        return running

    def sign(self, name: str, uri: str, users: list[str]) -> None:
        """Sign a head for the beginning, and one for each of ``users``."""
        data = self.base / f"signer-{name}"
        running = self.run(f"signer-{name}", "signer", "--log", uri, "--data", data)
        with log_at(uri) as log:
            until(lambda: heads_of(log), "the first head")
            for user in users:
                encoded = encode_mutations([b.mutation(user, origin=ORIGIN).encode()])
                log.append(NAMES.queue, ANY, [content_event(NAMES.queue, MUTATIONS, encoded)])
                last = log.last_revision(NAMES.queue)
                until(lambda: heads_of(log)[-1].queue_next > last, f"a head behind {user}")  # noqa: B023
        assert running.stop() == 0


def node(base: Path, name: str, stack: ExitStack) -> str:
    running = Running(base / f"{name}.log", "node", "--data", base / name, "--listen", "127.0.0.1:0")
    stack.callback(running.stop)
    return running.wait_for_line("listening on").rpartition(" ")[2]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    base = tmp_path_factory.mktemp("resumed")
    with ExitStack() as stack:
        first, empty, forked = (node(base, name, stack) for name in ("first", "empty", "forked"))
        operator = Stranger(base / "home")
        operator.kt("init", "--data", base / "made", "--log", first, *QUIET)
        made = Scene(base, operator, first, empty, forked, stack)
        # The same keys over another log: the settings name it while its queue is begun.
        text = made.settings.read_text()
        made.settings.write_text(text.replace(first, forked))
        operator.kt("init", "--data", base / "made", *QUIET)
        made.settings.write_text(text)
        made.sign("first", first, ["alice", "bob"])
        made.sign("forked", forked, ["carol", "dave", "erin"])
        yield made


def data_of(scene: Scene, name: str, *arguments: str) -> Path:
    """The data of a process that has verified the first log."""
    data = scene.base / name
    if not data.exists():
        scene.operator.kt("-c", scene.settings, "audit", "--log", scene.first, "--data", data)
    shutil.copytree(data, copy := scene.base / "-".join([name, *arguments]))
    return copy


def evidence(data: Path) -> str:
    (path,) = (data / "evidence").iterdir()
    return convict(Evidence.decode(path.read_bytes()))


def test_an_audit_of_nothing_fails_and_one_that_resumes_compares(scene: Scene) -> None:
    audit = ("-c", scene.settings, "audit", "--log")
    nothing = scene.operator.kt(*audit, scene.empty, code=1)
    assert "nothing was audited" in nothing.complaint
    assert NAMES.heads in nothing.complaint
    data = data_of(scene, "audited", "audit")
    again = scene.operator.kt(*audit, scene.first, "--data", data)
    assert "and the log still holds that head; nothing new since" in again.out
    back = scene.operator.kt(*audit, scene.empty, "--data", data, code=4)
    assert "the log was rolled back" in back.complaint
    assert not (data / "evidence").exists()
    fork = scene.operator.kt(*audit, scene.forked, "--data", data, code=5)
    assert "the log holds another signed head" in fork.err
    assert f"the evidence is in {data / 'evidence'}" in fork.err
    assert "two different heads" in evidence(data)


def test_evidence_that_no_disk_takes_is_printed(scene: Scene) -> None:
    data = data_of(scene, "audited", "full")
    (data / "evidence").write_text("in the way")
    fork = scene.operator.kt("-c", scene.settings, "audit", "--log", scene.forked, "--data", data, code=5)
    assert "BEGIN KT-ES EVIDENCE" in fork.err


def test_a_monitor_that_resumes_ends_with_4_or_5(scene: Scene) -> None:
    data = data_of(scene, "audited", "monitor")
    monitor = ("-c", scene.settings, "monitor", "--data", data, "--log")
    back = scene.operator.kt(*monitor, scene.empty, code=4)
    assert "the log was rolled back" in back.err
    fork = scene.operator.kt(*monitor, scene.forked, code=5)
    assert "the log holds another signed head" in fork.err
    assert "two different heads" in evidence(data)


@pytest.mark.parametrize(
    ("which", "reason", "code"),
    [("empty", "the log was rolled back", 4), ("forked", "the log holds another signed head of epoch", 5)],
)
def test_a_front_end_that_resumes_explains_why_it_serves_nothing(
    scene: Scene, which: str, reason: str, code: int
) -> None:
    data = data_of(scene, "audited", f"frontend-{which}")
    uri = getattr(scene, which)
    frontend = scene.run(
        f"frontend-{which}", "frontend", "--data", data, "--listen", "127.0.0.1:0", "--log", uri
    )
    url = frontend.wait_for_line(" at http://").rpartition(" ")[2]
    until(lambda: reason in httpx.get(f"{url}/readyz").text, f"/readyz says {reason}")
    assert httpx.get(f"{url}/v1/heads/latest").status_code == 503
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert frontend.process.poll() is None
    assert frontend.stop(signal.SIGTERM) == code
    assert frontend.spoken.count('"stopped serving"') == 1
    assert (data / "evidence").exists() == (code == 5)


@pytest.mark.parametrize(("which", "code"), [("empty", 4), ("forked", 5)])
def test_a_signer_that_resumes_publishes_nothing(scene: Scene, which: str, code: int) -> None:
    data = scene.base / f"resumed-{which}"
    shutil.copytree(scene.base / "signer-first", data)
    uri = getattr(scene, which)
    with log_at(uri) as log:
        before = len(heads_of(log))
        scene.operator.kt("-c", scene.settings, "signer", "--data", data, "--log", uri, code=code)
        assert len(heads_of(log)) == before
    assert (data / "evidence").exists() == (code == 5)


def test_a_foreign_key_is_named(scene: Scene) -> None:
    vkey = b.public(b.private_key("eve"))
    text = scene.operator.kt("-c", scene.settings, "audit", "--log", scene.first).out
    assert "correct in" in text
    foreign = ("audit", "--vkey", Pinned(ORIGIN, vkey).vkey, "--log", scene.first)
    assert "never was a signer key" in scene.operator.kt(*foreign, code=4).complaint
