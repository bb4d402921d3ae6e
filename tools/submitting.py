"""Program that measures submissions over HTTP in several environments by turns: decided and proven.

  python -m tools.submitting ROUNDS COUNT KT...

``KT`` is the command ``kt`` of an environment, for instance of another commit. Each turn starts ``kt up`` of
that environment on a new directory and posts ``COUNT`` first entries over 32 connections, each as soon as the
answer before it has come. The turn ends when the directory has a head that decides the last of them. Then the
client looks up a sample of the labels and verifies each proof. The program prints the rate of each turn and
the CPU that each process used, the median of each environment, and its ratio to the first one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx

from kt_es.api.codec import encode_model
from kt_es.api.models import MutationRequest
from kt_es.api.operations import MUTATIONS
from kt_es.cli.trials.synthetic import Sampled, sample_labels
from kt_es.client.client import Client
from kt_es.client.state import FileStateStore
from kt_es.client.trusted import Pinned
from kt_es.config import load_settings
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.process.files import read_key

CONNECTIONS = 32
SAMPLE = 50
PATIENCE = 300.0


@contextmanager
def directory(kt: str, where: Path) -> Iterator[dict[str, Any]]:
    """Run ``kt up`` in ``where``; yield the content of its ``up.json``."""
    options = ["--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0", "--label-policy", "text"]
    with (where / "kt-up.log").open("wb") as said:
        process = subprocess.Popen(
            [*kt.split(), "up", "--data", str(where / "data"), *options],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        state = _until(lambda: _state(where / "data" / "up.json"), "kt up serves")
        yield state
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _state(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state: dict[str, Any] = json.loads(path.read_text())
    try:
        ready = httpx.get(f"{state['url']}/readyz", timeout=5).status_code == 200
    except (httpx.HTTPError, KeyError):
        return None
    return state if ready else None


def _until(condition: object, what: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    pause = threading.Event()
    while time.monotonic() < end:
        value = condition()  # type: ignore[operator]
        if value:
            return value  # type: ignore[no-any-return]
        pause.wait(0.1)
    raise SystemExit(f"not within 60 s: {what}")


async def _post(url: str, bodies: Sequence[bytes]) -> None:
    """Post each of ``bodies`` once. Ends the program on any other answer than 202."""
    where = urlsplit(url)
    left = iter(bodies)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for body in left:
            head = f"POST {MUTATIONS.path} HTTP/1.1\r\nHost: {where.netloc}\r\n"
            head += "Content-Type: application/json\r\n"
            writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in answer.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            content = await reader.readexactly(length)
            if b" 202 " not in answer[:20]:
                sys.exit(f"a submission was answered {answer[:40]!r}: {content!r}")
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))


def _size(url: str) -> int:
    """Return the number of records in the log of mutations, from its checkpoint."""
    answer = httpx.get(f"{url}/mutations/checkpoint", timeout=30)
    answer.raise_for_status()
    return int(answer.text.splitlines()[1])


def measure(kt: str, count: int) -> tuple[float, float]:
    """Return the submissions a second of one turn: decided, and only accepted into the queue."""
    with tempfile.TemporaryDirectory(prefix="kt-submitting-") as folder:
        where = Path(folder)
        with directory(kt, where) as state:
            url, pids = str(state["url"]), state["processes"]
            settings = load_settings(where / "data" / "kt.toml")
            vrf = read_key(settings.path(settings.frontend.vrf_key), "the VRF key", VrfPrivateKey.from_pem)
            made = sample_labels(settings.origin, vrf, count)
            bodies = [_body(one) for one in made]
            before = _size(url)
            used = {name: _cpu(pid) for name, pid in pids.items()}
            began = time.perf_counter()
            asyncio.run(_post(url, bodies))
            queued = time.perf_counter() - began
            pause = threading.Event()
            while _size(url) < before + count:
                if time.perf_counter() - began > PATIENCE:
                    sys.exit(f"not decided within {PATIENCE:g} s")
                pause.wait(0.02)
            seconds = time.perf_counter() - began
            for name, pid in pids.items():
                print(f"    {name}: {(_cpu(pid) - used[name]) / count * 1e3:.2f} ms of CPU a submission")
            _prove(url, str(state["key"]), made, where / "state")
    return count / seconds, count / queued


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _body(one: Sampled) -> bytes:
    asked = MutationRequest(one.label, one.mutation.encode(), one.opening.opening, one.opening.profile)
    return json.dumps(encode_model(asked)).encode()


def _prove(url: str, vkey: str, made: Sequence[Sampled], state: Path) -> None:
    """Look up some of the labels with the client, which verifies every proof."""
    with Client(url, FileStateStore(state), pinned=Pinned.parse(vkey), timeout=60) as client:
        for one in made[:: max(1, len(made) // SAMPLE)]:
            found = client.lookup(one.label)
            if found.entry != one.mutation.entry:
                sys.exit(f"the directory does not hold the entry of {one.label}")


def main(arguments: Sequence[str]) -> None:
    rounds, count, *commands = arguments
    rates: dict[str, list[float]] = {kt: [] for kt in commands}
    for number in range(int(rounds)):
        for kt in commands if number % 2 == 0 else commands[::-1]:
            decided, queued = measure(kt, int(count))
            rates[kt].append(decided)
            load = os.getloadavg()[0]
            print(f"{kt}: {decided:.0f} decided/s, {queued:.0f} queued/s (load {load:.1f})", flush=True)
    first = median(rates[commands[0]])
    for kt in commands:
        print(f"{kt}: median {median(rates[kt]):.0f}/s, {median(rates[kt]) / first:.2f} times")


if __name__ == "__main__":
    main(sys.argv[1:])
