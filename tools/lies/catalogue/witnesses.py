"""Lies about cosignatures: by writers of their stream, by witnesses, and by directories with two pasts."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from kt_es.crypto.signatures import PrivateKey
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.cosignatures import CosignerKey, cosign
from kt_es.formats.heads import Checkpoint, HeadEvent, heads_origin, mutations_origin, sign_checkpoint
from kt_es.formats.notes import NoteSignature, parse_note, verifier_key
from kt_es.formats.witnessing import SIZE_MEDIA, AddCheckpoint
from kt_es.merkle.log import plan_consistency
from kt_es.server.cosigning import COSIGNED
from tools.lies import people
from tools.lies.catalogue.followers import ALICE, Logs, answered, ready, serving
from tools.lies.commands import Ran
from tools.lies.people import ORIGIN, SIGNER, STRANGER
from tools.lies.registry import BY_LOG, BY_SIGNER, BY_WITNESS, LIVE, RESTART, lie, scene
from tools.lies.stage import Stage
from tools.lies.universe import Universe

WITNESS = people.key("witness")
KEY = CosignerKey("witness.lies.example", WITNESS.public)
HEADS, MUTATIONS = heads_origin(ORIGIN), mutations_origin(ORIGIN)

_FALSE = f"the cosignature by {KEY.name} does not verify"
_TWO = "the directory signed"


def _line(note: str) -> str:
    return cosign(parse_note(note).text, KEY.name, WITNESS, int(time.time()))


def _signed_by(key: PrivateKey, note: str) -> str:
    """A line in the name of the witness, which ``key`` has signed."""
    at = int(time.time())
    signature = key.sign(f"cosignature/v1\ntime {at}\n{parse_note(note).text}".encode())
    return NoteSignature(KEY.name, KEY.key_hash, at.to_bytes(8) + signature).line()


def _knows_the_witness(stage: Stage, url: str = "http://127.0.0.1:9") -> None:
    (stage.base / "policy").write_text(f"witness w {KEY.vkey} {url}\nquorum w\n")
    with stage.settings.open("a") as file:
        file.write('\n[cosign]\npolicy = "policy"\ninterval = 0.2\n')


def _universe(stage: Stage) -> Universe:
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    universe.epoch()
    stage.write(universe)
    return universe


def _false_line(case: str, event: HeadEvent, before: HeadEvent) -> str:
    """A line that is no cosignature of the checkpoint of the log of heads in ``event``."""
    match case:
        case "forged":
            return NoteSignature(KEY.name, KEY.key_hash, int(time.time()).to_bytes(8) + bytes(64)).line()
        case "replayed":
            return _line(before.heads_checkpoint)
        case "cross-log":
            return _line(event.mutations_checkpoint)
    return _signed_by(STRANGER, event.heads_checkpoint)


@scene(
    lie("cosignature-forged-in-the-stream", BY_LOG, "kt frontend", 200, _FALSE, LIVE, "forged"),
    lie("cosignature-of-an-older-checkpoint", BY_LOG, "kt frontend", 200, _FALSE, LIVE, "replayed"),
    lie("cosignature-of-the-other-log", BY_LOG, "kt frontend", 200, _FALSE, LIVE, "cross-log"),
    lie("cosignature-by-another-key", BY_LOG, "kt frontend", 200, _FALSE, LIVE, "another-key"),
    lie(
        "cosigned-checkpoint-by-a-stranger",
        BY_LOG,
        "kt frontend",
        200,
        "no signature is by a known key",
        LIVE,
        "stranger",
    ),
    lie("cosigned-fork", BY_SIGNER, "kt frontend", 503, _TWO, LIVE, "fork"),
    control=200,
    also="tests/server/test_cosigned.py",
)
def cosignatures(stage: Stage, case: str | None) -> Ran:
    """What a front end answers with has to be true, whatever stands in the stream."""
    universe = _universe(stage)
    _knows_the_witness(stage)
    process, url = serving(stage)
    stage.until(lambda: ready(url) == "", "the front end is ready")
    event, before = universe.epochs[1].event, universe.epochs[0].event
    note = event.heads_checkpoint
    if case in ("stranger", "fork"):
        other = Checkpoint(HEADS, 2, bytes(32))
        note = sign_checkpoint(other, HEADS, STRANGER if case == "stranger" else SIGNER)
        cosigned = note + _line(note)
    else:
        cosigned = note + (_line(note) if case is None else _false_line(case, event, before))
    stage.one.append(StreamNames(stage.name).cosignatures, COSIGNED, [cosigned.encode()])
    if case == "fork":
        stage.until(lambda: _TWO in ready(url), "it says why it is not ready")
        return answered(url)
    if case is None:
        stage.until(lambda: KEY.name in _answers(url), "it is answered")
        return answered(url)
    said = process.wait_for_line("a cosigned checkpoint is not answered")
    status = httpx.post(f"{url}/v1/lookup", json={"label": ALICE}, timeout=10, trust_env=False).status_code
    return Ran(0 if KEY.name in _answers(url) else status, "", said)


def _answers(url: str) -> str:
    return httpx.get(f"{url}/v1/cosigned", timeout=10, trust_env=False).text


@contextmanager
def _witness(answer: Callable[[AddCheckpoint], tuple[int, str, str]]) -> Iterator[str]:
    """A witness that answers as it likes: status, media type and body; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = AddCheckpoint.parse(self.rfile.read(int(self.headers["content-length"])))
            status, media, body = answer(sent)
            data = body.encode()
            self.send_response(status)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@scene(
    lie("witness-forges", BY_WITNESS, "kt cosign", 0, _FALSE, LIVE, "forged"),
    lie("witness-replays", BY_WITNESS, "kt cosign", 0, _FALSE, LIVE, "replayed"),
    lie("witness-cosigns-the-other-log", BY_WITNESS, "kt cosign", 0, _FALSE, LIVE, "cross-log"),
    lie("witness-lends-its-name", BY_WITNESS, "kt cosign", 0, _FALSE, LIVE, "another-key"),
    lie("witness-claims-a-longer-log", BY_WITNESS, "kt cosign", 0, "or the witness lies", LIVE, "ahead"),
    lie(
        "witness-answers-without-end",
        BY_WITNESS,
        "kt cosign",
        0,
        "it answered with more than",
        LIVE,
        "endless",
    ),
    also="tests/projections/test_cosigning.py",
)
def witness(stage: Stage, case: str | None) -> Ran:
    """Nothing of a lying witness is published."""
    universe = _universe(stage)
    event, before = universe.epochs[1].event, universe.epochs[0].event

    def answer(sent: AddCheckpoint) -> tuple[int, str, str]:
        if case is None or not sent.note.startswith(HEADS):
            return 200, "text/plain", _line(sent.note)
        if case == "ahead":
            return 409, SIZE_MEDIA, "99\n"
        if case == "endless":
            return 200, "text/plain", "x" * (1 << 20)
        return 200, "text/plain", _false_line(case, event, before)

    with _witness(answer) as url:
        _knows_the_witness(stage, url)
        process = stage.process("cosign")
        published = StreamNames(stage.name).cosignatures
        # The log of mutations is cosigned in any case.
        stage.until(lambda: stage.one.count(published) >= 2, "something is published")
        ran = process.stop()
    notes = [event.data.decode() for event in stage.one.read(published)]
    is_published = any(note.startswith(HEADS) for note in notes)
    return ran if is_published == (case is None) else Ran(99, ran.out, ran.err)


@scene(
    lie(
        "fork-to-a-witness",
        BY_SIGNER,
        "kt witness",
        409,
        "this size was cosigned with another root",
        LIVE,
        "fork",
    ),
    lie("longer-fork-to-a-witness", BY_SIGNER, "kt witness", 422, "the proof does not", LIVE, "longer-fork"),
    lie("rollback-to-a-witness", BY_SIGNER, "kt witness", 409, "text/x.tlog.size 3", LIVE, "rollback"),
    lie("fork-to-a-witness-restarted", BY_SIGNER, "kt witness", 409, "with another root", RESTART, "restart"),
    lie(
        "stranger-to-a-witness", BY_LOG, "kt witness", 403, "no signature is by a known key", LIVE, "stranger"
    ),
    control=200,
    also="tests/witness/test_judging.py",
)
def own_witness(stage: Stage, case: str | None) -> Ran:
    """``kt witness`` has cosigned three heads, and is asked for more. The code is that of its answer."""
    logs = Logs.make(stage, "longer-fork")
    fork = logs.lie
    assert fork is not None
    words = ("--log", verifier_key(HEADS, SIGNER.public).encode(), "--name", KEY.name, "--data", "witness")
    process = stage.start("witness", *words, "--listen", "127.0.0.1:0")
    url = _url(process.wait_for_line('"serving"'))
    first = _ask(url, 0, logs.true.epochs[2].event.heads_checkpoint, ())
    assert first.status_code == 200, first.text
    if case == "restart":
        process.stop()
        process = stage.start("witness", *words, "--listen", "127.0.0.1:0")
        url = _url(process.wait_for_line('"serving"'))
    told = logs.true if case in (None, "rollback", "stranger") else fork
    if case is None:
        logs.true.epoch()
    epoch = {None: 4, "longer-fork": 5, "rollback": 2, "stranger": 3}.get(case, 3)
    note = told.epochs[epoch - 1].event.heads_checkpoint
    if case == "stranger":
        note = sign_checkpoint(Checkpoint.parse(parse_note(note).text), HEADS, STRANGER)
    old = 2 if case == "rollback" else 3
    proof = () if epoch <= old else told.proof(plan_consistency(old, epoch), told.head_nodes)
    answer = _ask(url, old, note, proof)
    said = f"{answer.headers['content-type']} {answer.text}"
    return Ran(answer.status_code, said, process.stop().err)


def _url(line: str) -> str:
    return line.partition('"url": "')[2].partition('"')[0]


def _ask(url: str, old: int, note: str, proof: tuple[bytes, ...]) -> httpx.Response:
    content = AddCheckpoint(old, tuple(proof), note).encode()
    return httpx.post(f"{url}/add-checkpoint", content=content, timeout=10, trust_env=False)


@scene(
    lie("another-history-to-a-cosigner", BY_SIGNER, "kt monitor --cosigner", 5, _TWO, RESTART),
    also="tests/projections/test_monitor_cosigning.py",
)
def cosigning_monitor(stage: Stage, case: str | None) -> Ran:
    """The monitor has lost its data, and replays another history than it has cosigned."""
    logs = Logs.make(stage, None if case is None else "longer-fork")
    words = ("monitor", "--cosigner", stage.base / "cosigner", "--cosigner-name", "monitor.lies.example")
    process = stage.process(*words, "--cosigner-interval", "0.1")
    folder = stage.base / "cosigner" / "logs"
    stage.until(lambda: folder.exists() and _sizes(folder) == {HEADS: 3, MUTATIONS: 6}, "it has cosigned")
    process.stop()
    shutil.rmtree(stage.base / "monitor")
    if case is not None:
        logs.tell(stage)
    process = stage.process(*words, "--cosigner-interval", "0.1")
    if case is None:
        process.wait_for_line('"epoch": 3')
        return process.stop()
    return process.end()


def _sizes(folder: Any) -> dict[str, int]:
    found = [parse_note(path.read_bytes()) for path in folder.iterdir() if not path.name.startswith(".")]
    checkpoints = [Checkpoint.parse(note.text) for note in found]
    return {checkpoint.origin: checkpoint.size for checkpoint in checkpoints}
