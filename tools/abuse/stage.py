"""The stage of the abuse: a node and a front end as processes, with a directory that is already signed."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from kt_es.client.trusted import Pinned
from kt_es.eventstore.connecting import connect
from kt_es.process.files import replace_file
from tests import builders as b
from tests.contracts.certificates import certify
from tests.e2e.processes import until
from tests.reference.signed_streams import SignedStreams

USERS = 50
# One account with a long history.
VETERAN = "veteran"
VERSIONS = 150

_ROOT = Path(__file__).parents[2]
_KT = Path(sys.executable).with_name("kt")


@dataclass(frozen=True, slots=True)
class Stage:
    """A running front end. Loopback addresses are limited like all others.

    ``authority`` is the file of the certificate authority if the front end serves HTTPS.
    """

    port: int
    process: subprocess.Popen[bytes]
    authority: Path | None

    @property
    def files(self) -> int:
        """The number of files that the front end has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 - counts, reads no path

    @property
    def resident_mb(self) -> float:
        """The most memory that the front end ever had resident, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _publish(uri: str) -> None:
    log = connect(uri)
    try:
        streams = SignedStreams(log)
        for number in range(USERS):
            streams.put_user(f"user{number}")
        last = streams.put_user(VETERAN)
        streams.epoch()
        for _ in range(VERSIONS - 1):
            last = streams.put_user(VETERAN, last)
            streams.epoch()
    finally:
        log.close()


def _settings(data: Path, uri: str) -> Path:
    replace_file(data / "keys" / "vrf.pem", b.private_key("vrf").to_pem())
    path = data / "kt.toml"
    vkey = Pinned(b.ORIGIN, b.SIGNER_KEY).vkey
    path.write_text(f'directory = "people"\norigin = "{b.ORIGIN}"\nkey = "{vkey}"\nlog = "{uri}"\n')
    return path


def _line(said: Path, text: str, process: subprocess.Popen[bytes]) -> str:
    spoken = said.read_text()
    assert process.poll() is None, spoken[-2000:]
    return next((line for line in spoken.splitlines() if text in line), "")


@contextmanager
def stage(data: Path, *, tls: bool = False) -> Iterator[Stage]:
    """Start all processes, wait until they have caught up, and yield the stage. All processes end with it."""
    data.mkdir()
    certified = certify(data) if tls else None
    options = () if certified is None else ("--tls-cert", certified.certificate, "--tls-key", certified.key)
    node = subprocess.Popen(
        [sys.executable, "-m", "kt_es.node", "--data", data / "node", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=_ROOT,
    )  # fmt: skip
    running = [node]
    try:
        assert node.stdout is not None
        uri = f"esdb://{node.stdout.readline().decode().strip()}?Tls=false"
        _publish(uri)
        settings = _settings(data, uri)
        said = data / "frontend.log"
        with said.open("wb") as file:
            front = subprocess.Popen(
                [_KT, "-c", settings, "frontend", "--listen", "127.0.0.1:0", "--exempt", "", *options],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        running.append(front)
        line = until(lambda: _line(said, " at http", front), "the front end serves")
        url = line.strip().rpartition(" ")[2]
        verify = True if certified is None else ssl.create_default_context(cafile=certified.authority)
        with httpx.Client(verify=verify) as client:
            until(lambda: client.get(f"{url}/v1/heads/{VERSIONS}").status_code == 200, "caught up")
        port = int(url.rpartition(":")[2])
        yield Stage(port, front, None if certified is None else certified.authority)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)
            if process.stdout is not None:
                process.stdout.close()
