"""``kt cosign`` beside a running directory: witnesses of kt-es and of others cosign both of its logs.

The foreign witness and client are those of transparency-dev, in a program in Go (``tests/go/witness``). Go
fetches their modules through its proxy, once; where Go or the modules are missing, the tests are skipped and
say why.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.formats.cosignatures import CosignerKey, read_cosigned
from kt_es.formats.heads import open_checkpoint
from kt_es.formats.notes import VerifierKey
from kt_es.formats.witnessing import origin_hash
from tests.builders import private_key
from tests.e2e.go_modules import fetch_modules, go
from tests.e2e.processes import ORIGIN, SHORT, Running, Stranger, Up, import_accounts, running_up, until
from tests.reference import naive_log
from tests.witness.test_judging import LOGS, NOW, leaves, note_of
from tests.witness.test_judging import ORIGIN as SOME_LOG

pytestmark = pytest.mark.e2e
SOURCE = Path(__file__).parents[1] / "go/witness"
OWN = "witness.example.org/w1"
FOREIGN = "foreign.example.org/w2"
NOWHERE = "esdb://127.0.0.1:1?Tls=false"
MONITOR = "monitor.example.org"
BOTH = {OWN, FOREIGN}
ALL = {*BOTH, MONITOR}
ROUNDS = int(os.environ.get("KT_TEST_WITNESS_ROUNDS", "1"))
"""How often witnesses and ``kt cosign`` are killed; a round takes ten seconds, so 1,000 take some hours."""
ROTATION = 20
"""The signer rotates its key in the first round, and every so many rounds."""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program ``tests/go/witness``."""
    source = tmp_path_factory.mktemp("go") / "witness"
    shutil.copytree(SOURCE, source)
    fetch_modules(source)
    built = go(source, "build", "-o", "foreign", ".")
    assert built.returncode == 0, built.stderr
    return source / "foreign"


@dataclass(frozen=True)
class Foreign:
    """The foreign witness: its URL, its key of ML-DSA-44, and the file with the keys of logs."""

    url: str
    key: CosignerKey
    keys: Path


@contextmanager
def foreign_witness(program: Path, keys: Path) -> Iterator[Foreign]:
    keys.touch()
    words = [str(program), "serve", "127.0.0.1:0", FOREIGN, str(keys)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        # It cosigns with both of its keys. The policy has the second one.
        url, _, vkey = process.stdout.readline().split()
        yield Foreign(url, CosignerKey.parse(vkey), keys)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class OwnWitness(Running):
    """``kt witness``, on a free port unless ``listen`` says another."""

    def __init__(self, folder: Path, *words: str | Path, listen: str = "127.0.0.1:0") -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        where = ("witness", "--data", folder, "--name", OWN, "--listen", listen)
        super().__init__(folder.with_name(f"{folder.name}.log"), *where, *words)

    @property
    def serving(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.wait_for_line('"serving"'))
        return found


@dataclass
class Cosigned:
    """A running directory that knows its cosigners."""

    up: Up
    keys: list[CosignerKey]

    def names(self, log: str, size: int = 0) -> set[str]:
        """Who has cosigned a checkpoint of at least this size."""
        answer = httpx.get(f"{self.up.url}/v1/cosigned", trust_env=False).json()
        found: set[str] = set()
        for note in answer.get(log, ()):
            cosigned = read_cosigned(note, self.keys)
            if int(cosigned.note.text.split("\n")[1]) >= size:
                found |= set(cosigned.names)
        return found

    def size(self, log: str) -> int:
        text = httpx.get(f"{self.up.url}/{log}/checkpoint", trust_env=False).text
        return int(text.split("\n")[1])

    def wait_for(self, names: set[str]) -> None:
        """Until all of them have cosigned what is published now."""
        for log in ("heads", "mutations"):
            size = self.size(log)
            until(partial(self._have, names, log, size), f"{names} cosign {log} of {size}")

    def _have(self, names: set[str], log: str, size: int) -> bool:
        return self.names(log, size) == names

    def publish(self, state: Path, prefix: str) -> None:
        with self.up.client(state) as client:
            names = [f"{prefix}{number}" for number in range(3)]
            report = import_accounts(client, names, private_key(prefix), at=1, then=lambda: None)
        assert report.published == 3


def cosigning(up: Up, folder: Path, *words: str | Path) -> Running:
    where = ("-c", up.settings, "cosign", "--log", up.log_uri, "--interval", "0.2", *words)
    # That of kt.toml belongs to the kt cosign that kt up runs.
    where += ("--data", folder / "asked")
    return Running(folder / "cosign.log", *where)


def described(up: Up, home: Path) -> str:
    return Stranger(home).kt("-c", up.settings, "cosign", "--log", up.log_uri, "--describe").out


@pytest.mark.timeout(180 + 30 * ROUNDS)
def test_witnesses_cosign_over_epochs_restarts_and_a_rotation(tmp_path: Path, foreign: Path) -> None:
    data = tmp_path / "data"
    someone = Stranger(tmp_path / "home")
    someone.kt("init", "--data", data, "--patience", "0", "--log", NOWHERE, *SHORT, code=7)
    with ExitStack() as stack:
        theirs = stack.enter_context(foreign_witness(foreign, tmp_path / "keys"))
        logs = tmp_path / "logs"
        logs.write_text("logs/v0\n")
        own = OwnWitness(tmp_path / "witness", "--logs", logs)
        stack.callback(lambda: own.stop(signal.SIGKILL))
        serving = own.serving
        policy = (
            f"witness own {serving['vkeys'][0]} {serving['url']}/\n"
            f"witness foreign {theirs.key.vkey} {theirs.url}\ngroup both all own foreign\nquorum both\n"
        )
        (data / "policy").write_text(policy)
        settings = data / "kt.toml"
        text = settings.read_text().replace(NOWHERE, "esdb://127.0.0.1:2113?Tls=false")
        words = ("witness", "--data", tmp_path / "cosigner", "--name", MONITOR, "--show-key")
        vkey = someone.kt(*words).out.strip()
        (data / "monitors").write_text(f"witness watcher {vkey}\nquorum watcher\n")
        table = '\n[cosign]\npolicy = "policy"\nmonitors = "monitors"\ncontact = "ops"\n'
        settings.write_text(text + table)
        up = stack.enter_context(running_up(data))
        keys = [CosignerKey.parse(serving["vkeys"][0]), theirs.key, CosignerKey.parse(vkey)]
        directory = Cosigned(up, keys)
        cosign = cosigning(up, tmp_path)
        stack.callback(lambda: cosign.stop(signal.SIGKILL))

        # Nobody knows the logs yet; the log of kt cosign says what to do.
        cosign.wait_for_line("it does not know the log; give its operator the lines of kt cosign --describe")
        logs.write_text(described(up, tmp_path / "operator"))
        vkeys = [line.split()[1] for line in logs.read_text().splitlines() if line.startswith("vkey ")]
        assert [VerifierKey.parse(vkey).name for vkey in vkeys] == [f"{ORIGIN}/heads", f"{ORIGIN}/mutations"]
        theirs.keys.write_text("".join(f"{vkey}\n" for vkey in vkeys))
        own.process.send_signal(signal.SIGHUP)
        directory.wait_for(BOTH)

        # A monitor that has nothing but the address and the key of the directory.
        where = ("monitor", "--from", up.url, "--vkey", up.vkey, "--interval", "0.5")
        cosigner = (
            "--cosigner",
            tmp_path / "cosigner",
            "--cosigner-interval",
            "0.2",
            "--publish",
            up.url,
            "--metrics",
            "127.0.0.1:0",
        )
        monitor = Running(tmp_path / "monitor.log", *where, *cosigner, "--data", tmp_path / "monitor")
        stack.callback(lambda: monitor.stop(signal.SIGKILL))
        directory.wait_for(ALL)
        page = json.loads(monitor.wait_for_line('"metrics"'))["url"].removesuffix("/metrics")
        directory.publish(tmp_path / "state", "first")
        directory.wait_for(ALL)
        for log in ("heads", "mutations"):
            shown = httpx.get(f"{page}/{log}/checkpoint", trust_env=False).text
            assert set(read_cosigned(shown, keys).names) == {MONITOR}
        notes = httpx.get(f"{up.url}/v1/cosigned", trust_env=False).json()
        for log, vkey in zip(("heads", "mutations"), vkeys, strict=True):
            key = VerifierKey.parse(vkey)
            assert all(open_checkpoint(note, key.name, [key.key]).size for note in notes[log])
            # The witness shows the same to monitors.
            shown = httpx.get(f"{serving['url']}/{origin_hash(key.name)}/checkpoint", trust_env=False).text
            assert OWN in read_cosigned(shown, directory.keys).names
        # A user wants both quorums, and compares with everybody.
        reach = ("--server", up.url, "--vkey", up.vkey, "--watchers", "--also", page)
        policies = ("--policy", data / "policy", "--monitors", data / "monitors")
        ran = someone.kt("--json", "get", "nobody@example.org", *reach, *policies, code=3)
        vouched = ran.document["vouched"]
        assert {one["quorum"] for one in vouched["quorums"]} == {"both", "watcher"}
        assert {one["name"] for one in vouched["vouchers"]} == {"own", "foreign", "watcher"}
        compared = {one["where"]: one["compared"] for one in ran.document["compared"]}
        assert compared[page]
        assert compared[f"{serving['url']}/"]
        assert "vouches up to epoch" in ran.err
        status = someone.kt("--json", "-c", up.settings, "status", "--log", up.log_uri).document
        assert {log: set(ages) for log, ages in status["frontend"]["cosigned"].items()} == {
            "heads": {"own", "foreign", "watcher"},
            "mutations": {"own", "foreign", "watcher"},
        }

        for number in range(ROUNDS):
            # Both sides are killed and go on from what they had on disk.
            own.stop(signal.SIGKILL)
            assert cosign.stop(signal.SIGTERM) == 0, cosign.spoken
            directory.publish(tmp_path / "state", f"second-{number}-")
            where = serving["url"].removeprefix("http://")
            own = OwnWitness(tmp_path / "witness", "--logs", logs, listen=where)
            assert own.serving["vkeys"] == serving["vkeys"]
            cosign = cosigning(up, tmp_path)
            directory.wait_for(ALL)
            assert "does not cosign" not in cosign.spoken
            if number % ROTATION:
                continue

            # A rotation: witnesses refuse the new key until their operators have it.
            someone.kt("--json", "-c", up.settings, "signer", "rotate", "--announce")
            announced = [
                line for line in described(up, tmp_path / "operator").splitlines() if "rotation: vkey" in line
            ]
            someone.kt("--json", "-c", up.settings, "signer", "rotate")
            cosign.wait_for_line("it trusts none of the keys that signed the checkpoint")
            rotated = described(up, tmp_path / "operator")
            assert rotated != logs.read_text()
            logs.write_text(rotated)
            new = [line.split()[1] for line in rotated.splitlines() if line.startswith("vkey ")]
            assert [line.split()[-1] for line in announced] == new
            with theirs.keys.open("a") as keys_of_logs:
                keys_of_logs.writelines(f"{vkey}\n" for vkey in new)
            own.process.send_signal(signal.SIGHUP)
            directory.publish(tmp_path / "state", f"third-{number}-")
            directory.wait_for(ALL)
        assert cosign.stop(signal.SIGTERM) == 0, cosign.spoken
        for process in (own, monitor):
            assert process.stop(signal.SIGTERM) == 0, process.spoken
        assert "Traceback" not in cosign.spoken + own.spoken + monitor.spoken


def test_a_foreign_client_asks_the_witness(tmp_path: Path, foreign: Path) -> None:
    known = [word for key in LOGS[SOME_LOG] for word in ("--log", key.encode())]
    own = OwnWitness(tmp_path / "witness", *known, "--ml-dsa")

    def ask(old: int, proof: list[bytes], note: str) -> Any:
        words = [foreign, "ask", own.serving["url"], str(old), *(value.hex() for value in proof)]
        done = subprocess.run(words, input=note, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    try:
        key = CosignerKey.parse(own.serving["vkeys"][0])
        first = ask(0, [], note_of(5))
        assert read_cosigned(note_of(5) + first["lines"], [key]).names[OWN] > NOW
        stale = ask(0, [], note_of(9))
        assert (stale["size"], stale["error"]) == (5, "old size != current")
        assert ask(5, [], note_of(9))["error"] == "consistency proof invalid"
        assert ask(5, [], note_of(5, fork=1))["error"] == "roots do not match"
        assert ask(9, [], note_of(5))["error"] == "old size > current"
        assert ask(0, [], note_of(5, origin="log.example.org/three"))["error"] == "unknown log"
        assert (
            "no valid signature"
            in ask(0, [], note_of(5).replace(SOME_LOG + " ", "other.example.org "))["error"]
        )
        cosigned = note_of(5) + first["lines"]
        words = [str(foreign), "verify", *own.serving["vkeys"]]
        done = subprocess.run(words, input=cosigned, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.split() == own.serving["vkeys"], done.stderr
        assert len(own.serving["vkeys"]) == 2
        second = ask(5, naive_log.consistency(5, leaves(9)), note_of(9))
        assert OWN in read_cosigned(note_of(9) + second["lines"], [key]).names
        assert own.stop(signal.SIGTERM) == 0, own.spoken
    finally:
        own.stop(signal.SIGKILL)
