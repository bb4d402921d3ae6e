"""Orders to a node (backup, scavenge), the socket of a running node that carries them, and its upkeep.

A request is one line of JSON, ``{"do": name, ...arguments}``; so is its answer, ``{"done": {...}}`` or
``{"failed": sentence, "usage": whether the order was unusable}``. Only the owner of the data may open the
socket (0600).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import generate_latest

from kt_es.errors import ConfigError, KtError
from kt_es.node.counts import Counts
from kt_es.node.groups.registry import Groups
from kt_es.node.ops.backup import backup
from kt_es.node.ops.http import HttpOps, MetricsPage
from kt_es.node.ops.scavenge import scavenge
from kt_es.node.store.log import NodeLog
from kt_es.node.store.rocks import RocksStorage, open_existing

_LOG = structlog.get_logger("kt_es.node")
NAME = "control"
LINE = 1 << 16
_LONGEST = 100  # bytes; every system accepts such a path for a socket
Order = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Control:
    """Listens in ``data`` and carries out ``orders``, one at a time."""

    def __init__(self, data: Path, orders: Mapping[str, Order]) -> None:
        self._data = data
        self._orders = orders
        self._turn = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen. On a system without such sockets the node goes on without one."""
        path = self._data / NAME
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Only this node has the data. So an existing socket was left by a node that was killed.
            path.unlink(missing_ok=True)
            with _short(path) as name:
                listener.bind(name)
                Path(name).chmod(0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE)
        except OSError as error:
            listener.close()
            _LOG.warning("no control socket: backup and scavenge only while stopped", reason=str(error))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)
        try:
            line = await reader.readline()
            answer = await self._obey(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError):  # the client is gone, or sends no end of a line
            pass
        except asyncio.CancelledError:
            _LOG.warning("given up: the node stops")
        finally:
            writer.close()

    async def _obey(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            name = asked["do"]
            order = self._orders[name]
        except (ValueError, TypeError, KeyError):
            return {"failed": "the node does not know this order; is it of another version?"}
        try:
            async with self._turn:
                _LOG.info("began", order=name)
                done = await order(asked)
        except KtError as error:
            _LOG.warning("failed", order=name, reason=str(error))
            return {"failed": str(error), "usage": isinstance(error, ConfigError)}
        _LOG.info("done", order=name, **done)
        return {"done": done}

    async def close(self) -> None:
        """Accept no more orders and give up the one under way; return when none is left."""
        if self._server is None:
            return
        self._server.close()
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        (self._data / NAME).unlink(missing_ok=True)


def ask(data: Path, do: str, **arguments: object) -> dict[str, Any] | None:
    """Give an order to the node that runs on ``data`` and wait; ``None`` if no node runs there.

    Raises:
        ConfigError: The arguments of the order are wrong.
        KtError: The node could not carry it out, or ended meanwhile.
    """
    path = data / NAME
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            with _short(path) as name:
                connection.connect(name)
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline(LINE)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise KtError(f"the node on {data} cannot be reached through {path}: {error.strerror}") from None
    if not line.endswith(b"\n"):
        raise KtError(f"the node on {data} ended meanwhile: start it, and repeat the command")
    answer: dict[str, Any] = json.loads(line)
    if "done" not in answer:
        raise (ConfigError if answer.get("usage") else KtError)(str(answer.get("failed")))
    done: dict[str, Any] = answer["done"]
    return done


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a name of ``path`` that is short enough for the address of a socket."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class Upkeep:
    """The work of a running node beside serving its clients: orders, metrics, health. On its event loop."""

    def __init__(self, storage: RocksStorage, log: NodeLog, groups: Groups, counts: Counts) -> None:
        self._control = Control(
            storage.path,
            {
                "backup": lambda asked: _backup(storage, Path(str(asked.get("target")))),
                "scavenge": lambda _asked: _scavenge(storage, log),
            },
        )
        counts.registry.register(MetricsPage(counts, log, groups, storage.size))
        # A node whose disk has failed ends. One whose disk is full goes on, for reads only.
        self._http = HttpOps(
            asyncio.get_running_loop(),
            lambda: generate_latest(counts.registry),
            lambda: "the disk is full: writes are refused, reads go on" if log.outage.is_on else "",
        )

    async def start(self, http: tuple[str, int] | None) -> None:
        """Accept orders; serve metrics and health at ``http``, if given. Raises as ``HttpOps.start``."""
        if http is not None:
            _LOG.info("serving metrics", address=self._http.start(*http))
        await self._control.start()

    async def close(self) -> None:
        await self._control.close()
        # Not on the loop: the threads of ``_http`` wait for answers of the loop.
        await asyncio.to_thread(self._http.close)


async def _backup(storage: RocksStorage, target: Path) -> dict[str, Any]:
    made = await asyncio.to_thread(backup, storage, target)
    return asdict(made)


async def _scavenge(storage: RocksStorage, log: NodeLog) -> dict[str, Any]:
    before = await asyncio.to_thread(storage.size)
    gone = await scavenge(log, storage.compact)
    after = await asyncio.to_thread(storage.size)
    return {
        "streams": gone.streams,
        "events": gone.events,
        "bytes": gone.bytes,
        "disk_before": before,
        "disk_after": after,
    }


def backup_of(data: Path, target: Path) -> dict[str, Any]:
    """Back ``data`` up to ``target``, whether a node runs on it or not.

    Raises:
        LockedError: The node that runs on it has no control socket.
        ConfigError, KtError: See ``backup.backup``.
    """
    done = ask(data, "backup", target=str(target.absolute()))
    if done is not None:
        return done
    with closing(open_existing(data)) as storage:
        return asdict(backup(storage, target))


def scavenge_of(data: Path) -> dict[str, Any]:
    """Scavenge ``data``, whether a node runs on it or not; return what was removed.

    Raises ``LockedError`` as ``backup_of``.
    """
    done = ask(data, "scavenge")
    return done if done is not None else asyncio.run(_scavenge_stopped(data))


async def _scavenge_stopped(data: Path) -> dict[str, Any]:
    storage = open_existing(data)
    # The failure is not needed: it is raised as well.
    log = NodeLog(storage, time.time, lambda _failure: None)
    try:
        return await _scavenge(storage, log)
    finally:
        await log.close()
