"""The environment of one lie: its own directory, the operator's front ends and logs, users and processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from kt_es.client.states import KeyStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME, Settings, dump_settings
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.process.clock import wall_clock
from tools.lies import people
from tools.lies.commands import PATIENCE, Process, Ran, StageError
from tools.lies.frontend import FrontEnd
from tools.lies.nodes import Line, Log
from tools.lies.people import ORIGIN, SIGNER
from tools.lies.tiles import Site
from tools.lies.universe import Universe

VKEY = Pinned(ORIGIN, people.public(SIGNER)).vkey
NEW_VKEY = Pinned(ORIGIN, people.public(people.SUCCESSOR)).vkey


class StageUser:
    """A user with a separate home, who knows of the directory what ``environment`` contains."""

    def __init__(self, stage: Stage, name: str, server: str, vkey: str | None) -> None:
        self._stage = stage
        self.home = stage.base / name
        self.home.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_DATA_HOME": str(self.home / "data"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "KT_SERVER": server,
        }
        if vkey is not None:
            self.environment["KT_VKEY"] = vkey

    def start(self, *arguments: str | Path, limit: Callable[[], None] | None = None) -> Process:
        return self._stage.start(*arguments, environment=self.environment, home=self.home, limit=limit)

    def kt(self, *arguments: str | Path, limit: Callable[[], None] | None = None) -> Ran:
        """Run ``kt`` to its end."""
        return self.start(*arguments, limit=limit).end()

    def ok(self, *arguments: str | Path, code: int = 0) -> Ran:
        """Run ``kt`` as a step before the lie. It has to end with ``code``."""
        ran = self.kt(*arguments)
        if ran.code != code:
            raise StageError(f"kt {' '.join(map(str, arguments))} ended with {ran.code}: {ran.err}{ran.out}")
        return ran

    def holds(self, *names: str) -> Self:
        """Give this user the private keys with these names."""
        for name in names:
            KeyStore(self.home / "data" / "kt-es" / "keys").add(name, people.key(name))
        return self

    @property
    def evidence(self) -> list[Path]:
        """The saved evidence, oldest first."""
        found = (self.home / "state").rglob("evidence/*")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)


class Stage:
    """The environment of one lie. Leaving its context closes everything that was opened."""

    def __init__(self, base: Path, name: str, logs: tuple[Log, Log]) -> None:
        """Make the stage. ``name`` is the name of the directory, whose streams no other lie uses."""
        base.mkdir(parents=True)
        self.base = base
        self.name = name
        self.one, self.other = logs
        self._stack = ExitStack()
        self._line: Line | None = None
        self._site: Site | None = None
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        self._stack.callback(self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _stop(self) -> None:
        for process in self._processes:
            process.end(0)

    def _heard(self) -> str:
        """Return the end of the output of every process."""
        return "\n".join(process.spoken[-2000:] for process in self._processes)

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for a condition that another thread or process makes true."""
        end = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > end:
                raise StageError(f"waited in vain until {what}:\n{self._heard()}")
            threading.Event().wait(0.02)

    # Over HTTP

    def universe(self, **options: Any) -> Universe:
        """Return a new directory. It has a config, and no epoch yet."""
        return Universe(wall_clock(), **options)

    def front_end(self, universe: Universe) -> FrontEnd:
        return self._stack.enter_context(FrontEnd(universe))

    def user(self, server: FrontEnd | str, name: str = "somebody", vkey: str | None = VKEY) -> StageUser:
        return StageUser(self, name, server if isinstance(server, str) else server.url, vkey)

    # Over gRPC

    @property
    def line(self) -> Line:
        """The address of the log. It leads to the first node until it is turned."""
        if self._line is None:
            self._line = Line(self.one.target)
            self._stack.callback(self._line.close)
        return self._line

    def show_tiles(self) -> None:
        """Let audits and monitors read tiles from a web server from now on, and not the log."""
        self._site = Site(self.base / "www")
        self._stack.callback(self._site.close)

    def write(self, universe: Universe, **instead: Any) -> None:
        """Append the new events of ``universe`` to the log that users reach; see ``Log.write``."""
        if self._site is not None:
            self._site.write(universe, **instead)
            return
        self.one.write(self.name, universe, **instead)

    def replace(self, universe: Universe, **instead: Any) -> None:
        """Replace the log by another one, with the streams of ``universe``."""
        if self._site is not None:
            self._site.write(universe, **instead)
            return
        self.other.write(self.name, universe, **instead)
        self.line.turn(self.other.target)

    def back(self) -> None:
        """Show the first log again."""
        if self._site is not None:
            self._site.back()
            return
        self.line.turn(self.one.target)

    def audit(self, *options: str | Path, vkey: str = VKEY) -> Ran:
        """Run ``kt audit`` as an outsider does."""
        if self._site is not None:
            return self.kt("audit", "--from", self._site.url, "--vkey", vkey, "--patience", "1", *options)
        return self.kt("audit", "--log", self.line.uri, "--vkey", vkey, "--directory", self.name, *options)

    def audited(self, *options: str | Path) -> None:
        """Run the same audit before the lie. It has to find everything correct."""
        ran = self.audit(*options)
        if ran.code != 0:
            raise StageError(f"the audit before the lie ended with {ran.code}: {ran.err}")

    @property
    def settings(self) -> Path:
        """The ``kt.toml`` of the directory, with all its keys."""
        path = self.base / FILE_NAME
        if not path.exists():
            for file, seed in (("signer/signer.pem", "signer"), ("vrf.pem", "vrf")):
                key = self.base / "keys" / file
                key.parent.mkdir(parents=True, exist_ok=True)
                key.parent.chmod(0o700)
                key.touch(0o600)
                key.write_bytes(PrivateKey.from_seed(ED25519, people.seed(seed)).to_pem())
            settings = Settings(directory=self.name, origin=ORIGIN, key=VKEY, log=self.line.uri)
            path.touch(0o600)
            path.write_text(dump_settings(settings))
        return path

    def process(self, *arguments: str | Path) -> Process:
        """Start a process of the directory: ``monitor``, ``frontend`` or ``signer``."""
        if self._site is not None:
            arguments = (*arguments, "--from", self._site.url, "--interval", "0.1")
        return self.start("-c", self.settings, *arguments)

    def kt(self, *arguments: str | Path) -> Ran:
        return self.start(*arguments).end()

    def start(
        self,
        *arguments: str | Path,
        environment: dict[str, str] | None = None,
        home: Path | None = None,
        limit: Callable[[], None] | None = None,
    ) -> Process:
        surroundings = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.base),
            "XDG_STATE_HOME": str(self.base / "state"),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
        }
        process = Process(list(map(str, arguments)), environment or surroundings, home or self.base, limit)
        self._processes.append(process)
        return process
