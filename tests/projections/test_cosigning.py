"""``kt cosign`` with honest, broken and hostile witnesses: what it publishes, remembers and says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from kt_es.errors import RefusedError, UnavailableError
from kt_es.formats.cosignatures import read_cosigned
from kt_es.formats.heads import Checkpoint
from kt_es.formats.notes import sign_note, verifier_key
from kt_es.formats.witnessing import MAX_ANSWER, SIZE_MEDIA, AddCheckpoint
from kt_es.witness.state import opened
from kt_es.witness.witness import Witness as Service
from projections.cosigning import asking, rounds
from projections.cosigning.asking import OtherSize, Refused, WitnessClient, WitnessSignature
from projections.cosigning.memory import FILE, Memory
from projections.cosigning.metrics import CosignMetrics
from projections.cosigning.rounds import Rounds, patient
from projections.cosigning.shown import Shown
from tests import builders as b
from tests.reference import naive_log
from tests.reference.cosigning import CosigningParty
from tests.witness.test_judging import leaves

ORIGIN = f"{b.ORIGIN}/heads"
PARTY = CosigningParty("alpha")
AT = 1_700_000_000
Answer = Callable[[httpx.Request], httpx.Response]


def note_of(size: int, fork: int = 0) -> str:
    text = Checkpoint(ORIGIN, size, naive_log.root(leaves(size, fork))).encode()
    return sign_note(text, ORIGIN, b.SIGNER)


def prove(_: str, old: int, size: int) -> tuple[bytes, ...]:
    return tuple(naive_log.consistency(old, leaves(size)))


def witness(answer: Answer, party: CosigningParty = PARTY) -> WitnessClient:
    return WitnessClient(party.name, party.key, "http://w.test/p", transport=httpx.MockTransport(answer))


def told(status: int, body: str | bytes = b"", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, content=body, headers=named)


def real(folder: Path, name: str) -> tuple[Service, WitnessClient]:
    """A witness of kt-es without its process, and a client that reaches it."""
    key = verifier_key(ORIGIN, b.SIGNER.public)
    with opened(folder, name) as identity:
        service = Service(identity, {ORIGIN: (key,)}, lambda: AT)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/p/add-checkpoint"
        reply = service.add_checkpoint(request.read())
        return httpx.Response(reply.status, content=reply.body, headers={"content-type": reply.media})

    url = "http://w.test/p"
    return service, WitnessClient(name, service.identity.public, url, transport=httpx.MockTransport(answer))


def ask(made: WitnessClient, size: int = 5) -> WitnessSignature | OtherSize | Refused:
    return made.ask(AddCheckpoint(0, (), note_of(size)))


class Asking:
    """Rounds over ``witnesses`` and a memory on disk."""

    def __init__(self, folder: Path, *witnesses: WitnessClient, proof: rounds.Prove = prove) -> None:
        self.metrics = CosignMetrics()
        self.stop = threading.Event()
        self.rounds = Rounds(witnesses, Memory(folder), proof, self.metrics)

    def names(self, size: int, keys: list[WitnessClient]) -> set[str]:
        found: set[str] = set()
        for note in self.rounds.ask("heads", note_of(size), self.stop):
            found |= set(read_cosigned(note, [each.key for each in keys]).names)
        return found

    def count(self, name: str, result: str) -> float:
        labels = {"witness": name, "log": "heads", "result": result}
        return self.metrics.registry.get_sample_value("kt_cosign_asked_total", labels) or 0.0


def test_real_witnesses_are_asked_from_where_they_stand(tmp_path: Path) -> None:
    one, first = real(tmp_path / "one", "one.example.org")
    other, second = real(tmp_path / "other", "other.example.org")
    both = [first, second]
    made = Asking(tmp_path, *both)
    assert made.names(3, both) == {"one.example.org", "other.example.org"}
    # Somebody else has asked the second one meanwhile: a 409 says where it stands.
    other.add_checkpoint(AddCheckpoint(3, prove("heads", 3, 6), note_of(6)).encode())
    assert made.names(9, both) == {"one.example.org", "other.example.org"}
    assert json.loads((tmp_path / FILE).read_text()) == {each.key.vkey: {ORIGIN: 9} for each in both}
    # What was remembered is lost, or is older than it should be: nobody is lost.
    (tmp_path / FILE).unlink()
    assert Asking(tmp_path, *both).names(12, both) == {"one.example.org", "other.example.org"}
    assert one.monitored("0" * 64).status == 404


def test_the_same_checkpoint_is_cosigned_again_at_another_time(tmp_path: Path) -> None:
    _, made = real(tmp_path / "w", "one.example.org")
    asked = Asking(tmp_path, made)
    for _ in range(2):
        assert asked.names(3, [made]) == {"one.example.org"}


LIES: dict[str, tuple[Answer, str]] = {
    "no cosignature": (told(200, ""), "false cosignature"),
    "junk": (told(200, "junk"), "false cosignature"),
    "of somebody else": (told(200, CosigningParty("beta").line(note_of(5), AT)), "none of its lines is by"),
    "of another checkpoint": (told(200, PARTY.line(note_of(6), AT)), "does not verify"),
    "of a fork": (told(200, PARTY.line(note_of(5, 1), AT)), "does not verify"),
    "another note": (told(200, "\n" + note_of(5) + PARTY.line(note_of(5), AT)), "more than signature"),
    "too long": (told(200, "x" * (MAX_ANSWER + 1)), "more than"),
    "compressed": (told(200, b"x", content_encoding="br"), "compressed"),
    "a size that is none": (told(409, "many\n", content_type=SIZE_MEDIA), "not a size"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_no_lie_is_published(tmp_path: Path, lie: tuple[Answer, str]) -> None:
    answer, sentence = lie
    made = witness(answer)
    found = ask(made)
    assert isinstance(found, Refused)
    assert (found.result, sentence in found.problem) == ("lie", True), found
    asked = Asking(tmp_path, made)
    with capture_logs() as said:
        assert asked.names(5, [made]) == set()
        assert asked.names(5, [made]) == set()
    # It is said once, and loudly.
    assert [line["log_level"] for line in said] == ["error"]
    assert asked.count(PARTY.name, "lie") == 2
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, "does not understand"),
        (403, "trusts none of the keys"),
        (404, "does not know the log"),
        (409, "another root of the same size"),
        (422, "consistency proof does not verify"),
        (429, "asked too often"),
        (301, "change the URL in the policy if it is right: http://elsewhere.test/"),
        (204, "it is no witness at this address"),
        (500, "it is broken"),
    ],
)
def test_every_status_has_its_sentence(status: int, sentence: str) -> None:
    found = ask(witness(told(status, "\x1b[2J" + "y" * 999, location="http://elsewhere.test/")))
    assert isinstance(found, Refused)
    assert (found.result, sentence in found.problem) == (str(status), True)
    assert len(found.problem) < 500


def test_a_witness_may_ask_to_be_left_alone(tmp_path: Path) -> None:
    calls: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(len(request.read()))
        return httpx.Response(429, headers={"retry-after": "9999999"})

    made = witness(answer)
    asked = Asking(tmp_path, made)
    for _ in range(3):
        assert asked.names(5, [made]) == set()
    assert len(calls) == 1
    found = ask(made)
    assert isinstance(found, Refused)
    assert found.wait == asking.LONGEST_WAIT
    dated = ask(witness(told(503, retry_after="Thu, 01 Jan 2099 00:00:00 GMT")))
    assert isinstance(dated, Refused)
    assert dated.wait == asking.LONGEST_WAIT
    for value in ("-1", "soon", "1" * 30, "Thu, 01 Jan 1998 00:00:00 GMT", "Thu, 99 Jan 1998 00:00:00 GMT"):
        refused = ask(witness(told(503, retry_after=value)))
        assert isinstance(refused, Refused)
        assert refused.wait == 0


def test_sizes_that_are_not_true(tmp_path: Path) -> None:
    cases: dict[str, Answer] = {
        "ahead": told(409, "6\n", content_type=SIZE_MEDIA),
        "lie": told(409, "0\n", content_type=SIZE_MEDIA),
        "conflict": _moving(),
    }
    for number, (result, answer) in enumerate(cases.items()):
        made = witness(answer)
        asked = Asking(tmp_path / str(number), made)
        assert asked.names(5, [made]) == set()
        assert asked.count(PARTY.name, result) == 1


def _moving() -> Answer:
    sizes = iter(range(1, 100))
    return lambda _: httpx.Response(409, content=f"{next(sizes)}\n", headers={"content-type": SIZE_MEDIA})


def test_one_bad_witness_does_not_keep_the_others_away(tmp_path: Path) -> None:
    _, good = real(tmp_path / "w", "one.example.org")
    bad = witness(told(200, "junk"))
    asked = Asking(tmp_path, bad, good)
    assert asked.names(5, [bad, good]) == {"one.example.org"}


def test_a_witness_that_recovers_is_said_once(tmp_path: Path) -> None:
    good = [False]

    def answer(request: httpx.Request) -> httpx.Response:
        note = AddCheckpoint.parse(request.read()).note
        return httpx.Response(200, content=PARTY.line(note, AT)) if good[0] else httpx.Response(404)

    made = witness(answer)
    asked = Asking(tmp_path, made)
    with capture_logs() as said:
        for good[0] in (False, False, True, True):
            asked.names(5, [made])
    assert [line["event"] for line in said] == ["a witness does not cosign", "a witness cosigns again"]


def test_the_first_cosignature_of_each_witness_and_log_is_said(tmp_path: Path) -> None:
    _, made = real(tmp_path / "w", "one.example.org")
    asked = Asking(tmp_path, made)
    with capture_logs() as said:
        for size in (5, 5, 7):
            asked.names(size, [made])
    assert [(line["event"], line["witness"], line["log"]) for line in said] == [
        ("a witness cosigns", "one.example.org", "heads")
    ]


def test_a_front_end_that_does_not_show_what_was_published_is_reported_once() -> None:
    note = note_of(5)
    other = CosigningParty("other")
    notes: list[str] = []
    shown = Shown(lambda: notes, {PARTY.key: "first", other.key: "second"})
    with capture_logs() as said:
        shown.look()
        shown.published((note + PARTY.line(note, AT) + other.line(note, AT)).encode())
        for notes[:] in ([], [], [note + PARTY.line(note, AT)], [note + other.line(note, AT)]):
            shown.look()
        notes[:] = [note + PARTY.line(note, AT), note + other.line(note, AT)]
        shown.look()
        shown.look()
    assert [(line["event"], line.get("witnesses")) for line in said] == [
        ("the front end does not show what was published", ["first", "second"]),
        ("the front end does not show what was published", ["first"]),
        ("the front end shows what was published", None),
    ]


def test_a_front_end_that_does_not_prove_is_named(tmp_path: Path) -> None:
    _, made = real(tmp_path / "w", "one.example.org")

    def refuses(*_: object) -> tuple[bytes, ...]:
        raise RefusedError("unknown-epoch", "the log of heads is not that large", "to")

    Asking(tmp_path, made).names(5, [made])
    with capture_logs() as said:
        assert Asking(tmp_path, made, proof=refuses).names(9, [made]) == set()
    assert "the front end does not prove" in said[0]["problem"]


def test_a_front_end_that_is_behind_is_waited_for() -> None:
    left = [3]

    def behind(*_: object) -> tuple[bytes, ...]:
        left[0] -= 1
        if left[0]:
            raise UnavailableError("not yet")
        return (bytes(32),)

    assert patient(behind, 60.0, threading.Event())("heads", 1, 2) == (bytes(32),)
    left[0] = 99
    with pytest.raises(UnavailableError, match="not yet"):
        patient(behind, 0.0, threading.Event())("heads", 1, 2)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(UnavailableError, match="stopping"):
        patient(behind, 60.0, stopped)("heads", 1, 2)


@contextmanager
def endless(first: bytes, part: bytes) -> Iterator[str]:
    """A server that answers without an end, a part each time that the client reads."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(first)
            try:
                while not ended.wait(0.01):
                    connection.sendall(part)
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("first", "part", "result"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n", b"x" * 4096, "lie"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b"x", "away"),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", "away"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", "away"),
    ],
    ids=["a long body", "a slow body", "a slow head", "a slow beginning"],
)
def test_answers_without_an_end(
    monkeypatch: pytest.MonkeyPatch, first: bytes, part: bytes, result: str
) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.5)
    with endless(first, part) as url:
        made = WitnessClient(PARTY.name, PARTY.key, url)
        found = ask(made)
        made.close()
    assert isinstance(found, Refused)
    assert found.result == result, found


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    made = WitnessClient(PARTY.name, PARTY.key, f"http://127.0.0.1:{port}")
    found = ask(made)
    made.close()
    assert isinstance(found, Refused)
    assert found.result == "away"
