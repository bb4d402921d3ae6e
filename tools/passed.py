"""Program that lists the modules that a submission passes, from the client to its verified lookup.

  python -m tools.passed [TREE]

Runs ``kt up`` from the sources in ``TREE`` (default: this repository), publishes one key with ``kt put``,
looks it up with ``kt get``, and prints for each process the modules of which a function ran in this time.
Functions that run during imports do not count. The node and the monitor do not count either: an
EventStoreDB may stand in for the node, and a submission does not wait for a monitor. The dependencies are
those of the interpreter that runs this program, so that commits can be compared.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

ROLES = {"put": "client", "get": "client", "frontend": "front end", "signer": "signer"}
PACKAGES = ("kt_es", "projections", "signer")
KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode()  # is published
PATIENCE = 120.0  # seconds for each step

_T = TypeVar("_T")

# Python runs this code in each process before the program. It records the files whose functions run. When
# the file ``begin`` appears, a process that was running before clears its record. When ``end`` appears, or at
# the end of a process, the record is written.
RECORDER = """
import atexit, json, os, sys, threading, time

TREE, OUT = os.environ["KT_PASSED_TREE"] + "/", os.environ["KT_PASSED_OUT"]
OURS = tuple(TREE + package + "/" for package in ("kt_es", "projections", "signer"))
ran = set()

def importing(frame):
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            return True
        frame = frame.f_back
    return False

def note(frame, event, _):
    if event == "call":
        name = frame.f_code.co_filename
        if name not in ran and name.startswith(OURS) and not importing(frame):
            ran.add(name)

def write():
    target = f"{OUT}/{os.getpid()}.json"
    if not os.path.exists(target):
        with open(target + ".part", "w") as file:
            json.dump({"words": sys.argv[1:], "files": sorted(name[len(TREE):] for name in ran)}, file)
        os.rename(target + ".part", target)

def wait():
    while not os.path.exists(OUT + "/begin"):
        time.sleep(0.02)
    ran.clear()
    while not os.path.exists(OUT + "/end"):
        time.sleep(0.02)
    write()

atexit.register(write)
if not os.path.exists(OUT + "/begin"):
    threading.Thread(target=wait, daemon=True).start()
threading.setprofile(note)
sys.setprofile(note)
"""


def passed(tree: Path, home: Path) -> dict[str, set[str]]:
    """Trace one submission and its lookup.

    Args:
        tree: The folder of the sources.
        home: An empty folder for the data of the directory and for the records.

    Returns:
        for each role, the files of ``tree`` whose functions ran.
    """
    (home / "sitecustomize.py").write_text(RECORDER)
    (home / "key").write_text(f"ssh-ed25519 {KEY} laptop\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",  # leaves the tree as it is
        "PYTHONPATH": f"{home}{os.pathsep}{tree}",
        "KT_PASSED_TREE": str(tree),
        "KT_PASSED_OUT": str(home),
    }
    kt = [sys.executable, "-m", "kt_es.cli.main"]

    def run(*words: str) -> None:
        subprocess.run([*kt, *words], cwd=home, env=environment, check=True, timeout=PATIENCE)

    anywhere = ["--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0", "--min-interval", "0.2"]
    up = subprocess.Popen([*kt, "-q", "up", "--data", "data", *anywhere], cwd=home, env=environment)
    try:
        served = _wait(lambda: _served(home / "data/up.json"), "kt up serves the directory")
        environment |= {"KT_SERVER": served["url"], "KT_VKEY": served["key"]}
        run("-q", "keys", "generate")
        (home / "begin").touch()
        run("-q", "put", "alice@example.org", "--key", "key")
        run("-q", "get", "alice@example.org")
        (home / "end").touch()
        return _wait(lambda: _recorded(home), "every process records its modules")
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(PATIENCE)


def _wait(look: Callable[[], _T | None], what: str) -> _T:
    """Return the first value of ``look`` that is not None. Ends the program if none comes in time."""
    end = time.monotonic() + PATIENCE
    while (found := look()) is None:
        if time.monotonic() > end:
            raise SystemExit(f"not within {PATIENCE:g} s: {what}")
        time.sleep(0.1)
    return found


def _served(state: Path) -> dict[str, str] | None:
    """Return what ``kt up`` wrote into ``state`` once its front end is ready; None before."""
    try:
        served: dict[str, str] = json.loads(state.read_text())
        with urlopen(f"{served['url']}/readyz", timeout=5):
            return served
    except (OSError, ValueError, KeyError):
        return None


def _recorded(home: Path) -> dict[str, set[str]] | None:
    """Return the files of each role once every role has written its record; None before."""
    found: dict[str, set[str]] = {}
    for path in home.glob("*.json"):
        recorded = json.loads(path.read_text())
        role = next((ROLES[word] for word in recorded["words"] if word in ROLES), None)
        if role is not None:
            found.setdefault(role, set()).update(recorded["files"])
    return found if set(found) == set(ROLES.values()) else None


def main() -> None:
    tree = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    modules = [path for package in PACKAGES for path in (tree / package).rglob("*.py")]
    with tempfile.TemporaryDirectory() as home:
        found = passed(tree, Path(home).resolve())
    for role, files in sorted(found.items()):
        print(f"{role}: {len(files)} modules")
        print("".join(f"  {name}\n" for name in sorted(files)), end="")
    union = set().union(*found.values())
    commands = sum(name.startswith("kt_es/cli/") for name in union)
    print(f"together {len(union)} of {len(modules)} modules; {len(union) - commands} without kt_es/cli")


if __name__ == "__main__":
    main()
