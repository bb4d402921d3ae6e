"""Answers that would harm the reader: the terminal, the disk or the memory, or an endless wait."""

from __future__ import annotations

import json
import resource
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

from kt_es.formats.entries import ProfileKey, encode_profile
from kt_es.formats.evidence import armored, unarmored
from tools.lies import answers, people
from tools.lies.commands import Ran
from tools.lies.frontend import RefusalError
from tools.lies.people import label
from tools.lies.registry import BY_FRONT_END, BY_SIGNER, LATER, Lie, lie, scene
from tools.lies.stage import Stage

ALICE = label("alice")

PATIENCE = 30.0
"""Seconds that a call with ``--timeout 2`` may take, with the start of the command on a busy machine."""

MEMORY = 400
"""MiB that a lookup or a history may take, whatever the server answers."""


def _drips(name: str) -> Lie:
    return lie(name, BY_FRONT_END, "kt get --timeout", 7, "timed out", case=name)


@scene(
    _drips("headers-that-never-end"),
    _drips("informational-answers-that-never-end"),
    _drips("body-that-never-ends"),
    _drips("chunk-extensions-that-never-end"),
    _drips("trailers-that-never-end"),
    also="tests/client/test_deadlines.py",
)
def dripping(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    front_end = stage.front_end(universe)
    begins, drop = {
        "headers-that-never-end": (b"HTTP/1.1 200 OK\r\n", b"x-more: more\r\n"),
        "informational-answers-that-never-end": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        "body-that-never-ends": (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b" "),
        "chunk-extensions-that-never-end": (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;",
            b"more=more;",
        ),
        "trailers-that-never-end": (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
            b"x-more: more\r\n",
        ),
    }.get(case or "", (b"", b""))

    def drip(handler: BaseHTTPRequestHandler) -> None:
        end = time.monotonic() + 3 * PATIENCE
        with suppress(OSError):
            handler.wfile.write(begins)
            while time.monotonic() < end:
                handler.wfile.write(drop)
                time.sleep(0.1)
        handler.close_connection = True

    if case is not None:
        front_end.raw["/v1/lookup"] = drip
    ran = stage.user(front_end).kt("get", ALICE, "--timeout", "2")
    return _missed(ran, f"it took {ran.seconds:.0f} s") if ran.seconds > PATIENCE else ran


def _missed(ran: Ran, why: str) -> Ran:
    return replace(ran, code=-1, err=f"✗ {why}\n{ran.err}")


@scene(
    lie("history-of-60-megabytes", BY_FRONT_END, "kt history", 1, "answer to /v1/history", case="history"),
    lie("lookup-of-60-megabytes", BY_FRONT_END, "kt get", 1, "is larger than", case="lookup"),
    lie("deep-json", BY_FRONT_END, "kt get", 1, "answer to /v1/lookup", case="deep"),
    also="tests/client/test_json.py",
)
def large(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    front_end = stage.front_end(universe)
    version = answers.history(universe, {"label": ALICE})["versions"][0]
    entry = json.dumps({**version, "profile": 4_000 * "A"}).encode() + b","
    body = {
        "history": b'{"versions":[' + (60_000_000 // len(entry)) * entry + b'0],"more":true}',
        "lookup": b'{"answer":"' + 60_000_000 * b"A" + b'"}',
        "deep": 500_000 * b"[",
    }.get(case or "", b"")

    def send(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            handler.wfile.write(body)

    if case is not None:
        front_end.raw["/v1/history" if case == "history" else "/v1/lookup"] = send
    ran = stage.user(front_end).kt("history" if case == "history" else "get", ALICE)
    return _missed(ran, f"it took {ran.memory} MiB") if ran.memory > MEMORY else ran


@scene(
    lie("escapes-in-a-key-name", "another user", "kt get", 0, r"\x1b", case="name"),
    lie("escapes-in-a-comment", "another user", "kt get", 0, r"\x1b", case="comment"),
    lie("escapes-in-a-refusal", BY_FRONT_END, "kt get", 1, "?", case="refusal"),
    also="tests/cli/test_output.py",
)
def terminal(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    escape = "\x1b]0;owned\x07\n✓ verified"
    name = f"laptop{escape}" if case == "name" else "laptop"
    data = f"ssh-ed25519 AAAA comment{escape if case == 'comment' else ''}".encode()
    universe.put("alice", data=encode_profile([ProfileKey(name, "ssh", data)]))
    universe.epoch()
    front_end = stage.front_end(universe)
    if case == "refusal":

        def refused(*_: object) -> dict[str, object]:
            raise RefusalError(404, "unknown-epoch", f"no{escape}")

        front_end.rewrite["/v1/lookup"] = refused
    ran = stage.user(front_end).kt("get", ALICE)
    message = ran.out + ran.err
    harmful = "\x1b" in message or "\x07" in message or "\n✓ verified" in message
    return _missed(ran, "the terminal was written to") if harmful else ran


@scene(
    lie("full-disk-while-a-lie-is-proven", BY_SIGNER, "kt get", 5, "BEGIN KT-ES EVIDENCE", LATER, "disk"),
    lie(
        "printed-evidence", BY_SIGNER, "kt verify", 5, "the directory signed two different", LATER, "printed"
    ),
    also="tests/client/test_evidence.py",
)
def no_room(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    other = universe.fork()
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(front_end)
    user.ok("get", ALICE)
    if case is None:
        return user.kt("get", ALICE)
    other.put("bob")
    other.epoch()
    front_end.universe = other
    ran = user.kt("get", ALICE, limit=_no_file_grows)
    if case == "disk":
        return ran
    text = ran.err[ran.err.find("-----BEGIN") :]
    (user.home / "evidence").write_text(armored(unarmored(text)))
    return stage.user(front_end, "anybody").kt("verify", user.home / "evidence")


def _no_file_grows() -> None:
    """Simulate a full disk: no file can grow."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@scene(
    lie("password-in-an-address", "whoever reads along", "kt get", 7, "does not answer", case="outage"),
    lie("password-in-evidence", "whoever reads along", "kt get", 5, "evidence is in", LATER, "fork"),
    also="tests/process/test_files.py",
)
def passwords(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    other = universe.fork()
    universe.epoch()
    front_end = stage.front_end(universe)
    user = stage.user(f"http://somebody:pass-word@{front_end.address}", vkey=None)
    user.ok("get", ALICE)
    if case == "fork":
        other.put("bob")
        other.epoch()
        front_end.universe = other
    if case == "outage":
        user.environment["KT_SERVER"] = "http://somebody:pass-word@127.0.0.1:9"
    ran = user.kt("get", ALICE, "--timeout", "1")
    files = [path for path in user.home.rglob("*") if path.is_file()]
    places = [ran.out, ran.err, *map(str, files), *(path.read_bytes().decode("latin-1") for path in files)]
    shown = any("pass-word" in place for place in places)
    return _missed(ran, "the password was shown or kept") if shown else ran


@scene(
    lie(
        "link-planted-where-a-key-is-saved", "another user", "kt get --save", 2, "did not write", case="link"
    ),
    also="tests/cli/test_output.py",
)
def saving(stage: Stage, case: str | None) -> Ran:
    universe = stage.universe()
    universe.put("alice", data=people.profile("alice", 1))
    universe.epoch()
    user = stage.user(stage.front_end(universe))
    victim = user.home / "victim"
    victim.write_text("mine")
    saved = user.home / "saved"
    if case == "link":
        saved.mkdir()
        for name in ("0.raw", "0.raw.new", ".0.raw.new"):
            (saved / name).symlink_to(victim)
    ran = user.kt("get", ALICE, "--save", saved)
    return ran if victim.read_text() == "mine" else _missed(ran, "the link was followed")
