"""Cosigned checkpoints at a front end: what is answered, what is refused, and what monitors hand in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kt_es.api.cosigned import MAX_COSIGNED
from kt_es.client.trusted import Pinned
from kt_es.config.cosign import CosignTable
from kt_es.eventstore.streams import ANY, Event, EventLog, Subscription, content_event
from kt_es.evidence import convict
from kt_es.formats.cosignatures import MAX_COSIGNED_NOTE, CosignerKey, cosign, read_cosigned
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import HeadEvent, heads_origin, open_checkpoint
from kt_es.formats.notes import NoteSignature, parse_note
from kt_es.server.cosigning import COSIGNED, Cosigners
from tests import builders as b
from tests.reference.cosigning import CosigningParty, signed
from tests.reference.forks import story
from tests.reference.frontends import Front, front, until
from tests.reference.sharing import SharedStreams, store_of
from tests.reference.signed_streams import SignedStreams

ALPHA, BETA, GAMMA = (CosigningParty(name) for name in ("alpha", "beta", "gamma"))
STRANGER = CosigningParty("stranger")
KNOWN = Cosigners((ALPHA.key, BETA.key), (GAMMA.key,))
AT = 1_700_000_000
USERS = ("alice", "bob", "carol")


@pytest.fixture(params=["own", "shared"])
def running(request: pytest.FixtureRequest) -> Iterator[Front]:
    streams = SignedStreams() if request.param == "own" else SharedStreams()
    for user in USERS:
        streams.put_user(user)
        streams.epoch()
    store = store_of(streams.replicas) if isinstance(streams, SharedStreams) else None
    with front(streams, made=Front(streams, store, cosigners=KNOWN)) as made:
        yield made


def head_of(streams: SignedStreams, epoch: int) -> HeadEvent:
    (event,) = streams.log.read(streams.names.heads, epoch - 1, 1)
    return HeadEvent.decode(event.data)


def head(made: Front, epoch: int) -> HeadEvent:
    return head_of(made.streams, epoch)


def publish(made: Front, note: str) -> None:
    stream = made.streams.names.cosignatures
    made.streams.log.append(stream, ANY, [content_event(stream, COSIGNED, note.encode())])


def answered(made: Front, log: str = "heads") -> list[str]:
    answer = made.get("/v1/cosigned")
    assert answer.status_code == 200
    notes: list[str] = answer.json()[log]
    return notes


def who(made: Front, log: str = "heads") -> list[dict[str, int]]:
    """Names and times of known cosigners, for each note."""
    return [dict(read_cosigned(note, KNOWN.keys).names) for note in answered(made, log)]


def test_nothing_is_cosigned_at_first(running: Front) -> None:
    assert running.get("/v1/cosigned").json() == {"heads": [], "mutations": []}


def test_known_cosigners_are_answered_with_the_log_and_strangers_are_left_out(running: Front) -> None:
    for log, note in (
        ("heads", head(running, 3).heads_checkpoint),
        ("mutations", head(running, 3).mutations_checkpoint),
    ):
        publish(running, note + ALPHA.line(note, AT) + STRANGER.line(note, AT) + BETA.line(note, AT + 1))
        until(partial(answered, running, log))
        (found,) = answered(running, log)
        assert found == note + BETA.line(note, AT + 1) + ALPHA.line(note, AT)
    note = answered(running)[0]
    assert open_checkpoint(note, heads_origin(b.ORIGIN), [b.SIGNER.public]).size == 3


def test_each_cosigner_has_its_latest_and_the_largest_comes_first(running: Front) -> None:
    first, second, third = (head(running, epoch).heads_checkpoint for epoch in (1, 2, 3))
    # A larger log is newer, whatever the clock of the cosigner says.
    publish(running, second + ALPHA.line(second, AT + 50) + BETA.line(second, AT))
    publish(running, third + ALPHA.line(third, AT))
    publish(running, first + BETA.line(first, AT + 99))
    publish(running, second + BETA.line(second, AT + 7))
    publish(running, second + GAMMA.line(second, AT + 8))
    until(lambda: len(who(running)) == 2 and len(who(running)[1]) == 2)
    assert who(running) == [{ALPHA.name: AT}, {GAMMA.name: AT + 8, BETA.name: AT + 7}]


def lies(made: Front) -> dict[str, tuple[str, str]]:
    event = head(made, 3)
    note, other = event.heads_checkpoint, event.mutations_checkpoint
    forged = NoteSignature(ALPHA.name, ALPHA.key.key_hash, AT.to_bytes(8) + bytes(64)).line()
    foreign = signed("heads", 3, bytes(32), b.private_key("mallory"))
    elsewhere = note.replace(b.ORIGIN, "other.example.org")
    return {
        "forged": (note + forged, "the cosignature by alpha.example.org does not verify"),
        "of another log": (note + ALPHA.line(other, AT), "does not verify"),
        "of an older checkpoint": (note + ALPHA.line(head(made, 2).heads_checkpoint, AT), "does not verify"),
        "by another key of that name": (
            note + STRANGER.line(note, AT).replace(STRANGER.name, ALPHA.name),
            "",
        ),
        "of a log of somebody else": (foreign + ALPHA.line(foreign, AT), "no signature is by a known key"),
        "of another origin": (elsewhere, "is of the log other.example.org"),
        "no note": ("junk", "note: "),
        "too long": (note + "x" * MAX_COSIGNED_NOTE, "at most"),
    }


def test_no_lie_in_the_stream_is_answered(running: Front) -> None:
    note = head(running, 3).heads_checkpoint
    with capture_logs() as said:
        for lie, _ in lies(running).values():
            publish(running, lie)
        publish(running, note + BETA.line(note, AT))
        until(lambda: bool(answered(running)))
    assert who(running) == [{BETA.name: AT}]
    problems = [str(line["problem"]) for line in said if line["event"].startswith("a cosigned checkpoint")]
    expected = [sentence for _, sentence in lies(running).values() if sentence]
    assert len(problems) == len(expected)
    assert all(sentence in problem for sentence, problem in zip(expected, problems, strict=True))
    assert not running.errors


def test_a_checkpoint_that_is_not_verified_here_yet_waits(running: Front) -> None:
    later = SignedStreams()
    for user in USERS:
        later.put_user(user)
        later.epoch()
    later.epoch()
    (event,) = later.log.read(later.names.heads, len(USERS), 1)
    ahead = HeadEvent.decode(event.data).heads_checkpoint
    publish(running, ahead + ALPHA.line(ahead, AT))
    note = head(running, 3).heads_checkpoint
    publish(running, note + BETA.line(note, AT))
    until(lambda: bool(answered(running)))
    assert who(running) == [{BETA.name: AT}]
    running.streams.epoch()
    until(running.caught_up)
    until(lambda: len(answered(running)) == 2)
    assert who(running) == [{ALPHA.name: AT}, {BETA.name: AT}]


@pytest.mark.parametrize("how", ["stream", "handed in", "ahead"])
@pytest.mark.parametrize("log", ["heads", "mutations"])
def test_another_log_that_the_directory_signed_is_evidence(tmp_path: Path, how: str, log: str) -> None:
    streams = SignedStreams()
    for user in USERS:
        streams.put_user(user)
        streams.epoch()
    size = 3 if log == "heads" else int(head_of(streams, 3).mutations_checkpoint.split("\n")[1])
    with front(streams, made=Front(streams, cosigners=KNOWN, data=tmp_path)) as made:
        if how == "ahead":
            size += 1 if log == "heads" else 2
        fork = signed(log, size, bytes(32))
        if how == "handed in":
            assert offer(made, fork + GAMMA.line(fork, AT))[0] == 403
        else:
            publish(made, fork)
        if how == "ahead":
            streams.put_user("dave")
            streams.epoch()
        until(lambda: made.get("/v1/cosigned").status_code == 503)
        assert made.get("/v1/directory").status_code == 503
        (path,) = (tmp_path / "evidence").glob("*.evidence")
        assert convict(Evidence.decode(path.read_bytes()))


def offer(made: Front, note: str) -> tuple[int, object]:
    answer = made.post("/v1/cosignatures", {"note": note})
    return answer.status_code, answer.json()


def test_a_monitor_hands_in_what_it_has_cosigned(running: Front) -> None:
    note = head(running, 2).mutations_checkpoint
    cosigned = note + STRANGER.line(note, AT) + GAMMA.line(note, AT)
    assert offer(running, cosigned) == (200, {"new": True})
    until(lambda: bool(answered(running, "mutations")))
    assert answered(running, "mutations") == [note + GAMMA.line(note, AT)]
    # Nobody but the monitor can make the stream grow, however often its note is sent.
    stream = running.streams.names.cosignatures
    before = running.streams.log.last_revision(stream)
    for _ in range(3):
        assert offer(running, cosigned) == (200, {"new": False})
    assert running.streams.log.last_revision(stream) == before


def test_what_is_handed_in_is_verified(running: Front) -> None:
    note = head(running, 3).heads_checkpoint
    for lie, _ in lies(running).values():
        status, body = offer(running, lie.replace(ALPHA.name, GAMMA.name))
        assert status in (400, 403), body
    # Witnesses are asked; they hand in nothing.
    status, body = offer(running, note + ALPHA.line(note, AT))
    assert (status, body["reason"]) == (403, "unauthorized")  # type: ignore[index]
    assert "no cosignature by a key that this directory knows as a monitor's" in body["detail"]  # type: ignore[index]
    forged = NoteSignature(GAMMA.name, GAMMA.key.key_hash, AT.to_bytes(8) + bytes(64)).line()
    assert offer(running, note + forged)[0] == 403
    ahead = signed("heads", 9, bytes(32))
    assert offer(running, ahead + GAMMA.line(ahead, AT))[0] == 503
    assert running.streams.log.last_revision(running.streams.names.cosignatures) == -1


def test_a_front_end_that_knows_nobody_takes_nothing() -> None:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams) as made:
        note = head(made, 1).heads_checkpoint
        assert offer(made, note + GAMMA.line(note, AT))[0] == 403
        assert made.get("/v1/cosigned").json() == {"heads": [], "mutations": []}


def test_many_cosigners_of_one_checkpoint_need_several_notes() -> None:
    parties = [CosigningParty(f"w{number}") for number in range(100)]
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    cosigners = Cosigners(tuple(party.key for party in parties))
    with front(streams, made=Front(streams, cosigners=cosigners)) as made:
        note = head(made, 1).heads_checkpoint
        for at in range(0, len(parties), 40):
            publish(made, note + "".join(party.line(note, AT) for party in parties[at : at + 40]))
        until(lambda: len(answered(made)) == 3)
        found = [set(read_cosigned(each, cosigners.keys).names) for each in answered(made)]
    assert set().union(*found) == {party.name for party in parties}


def test_an_answer_has_few_notes() -> None:
    parties = [CosigningParty(f"w{number}") for number in range(MAX_COSIGNED + 3)]
    streams = SignedStreams()
    streams.put_user("alice")
    for _ in parties:
        streams.epoch()
    cosigners = Cosigners(tuple(party.key for party in parties))
    with front(streams, made=Front(streams, cosigners=cosigners)) as made:
        for number, party in enumerate(parties):
            note = head(made, number + 1).heads_checkpoint
            publish(made, note + party.line(note, AT))
        until(lambda: party.name in str(answered(made)))
        notes = answered(made)
    sizes = [open_checkpoint(note, heads_origin(b.ORIGIN), [b.SIGNER.public]).size for note in notes]
    assert sizes == list(range(len(parties), 3, -1))


def test_the_directory_says_who_watches_it(tmp_path: Path) -> None:
    (tmp_path / "w").write_text(f"witness alpha {ALPHA.key.vkey} https://alpha.example/w\nquorum none\n")
    (tmp_path / "m").write_text(f"witness gamma {GAMMA.key.vkey}\nquorum gamma\n")
    known = CosignTable(policy=Path("w"), monitors=Path("m")).known(tmp_path)
    streams = SignedStreams()
    streams.epoch()
    with front(streams, made=Front(streams, cosigners=known)) as made:
        answer = made.get("/.well-known/kt-es.json")
    assert answer.status_code == 200
    alpha = {
        "kind": "witness",
        "name": "alpha",
        "vkey": ALPHA.key.vkey,
        "url": "https://alpha.example/w",
    }
    assert answer.json() == {
        "origin": b.ORIGIN,
        "vkey": Pinned(b.ORIGIN, b.SIGNER_KEY).vkey,
        "watchers": [alpha, {"kind": "monitor", "name": "gamma", "vkey": GAMMA.key.vkey, "url": None}],
    }


def test_no_cosignature_is_answered_before_all_of_them_are_read() -> None:
    streams = story(*USERS)
    notes = [head_of(streams, epoch).heads_checkpoint for epoch in (1, 3)]
    stream = streams.names.cosignatures
    for note in notes:
        line = ALPHA.line(note, AT)
        streams.log.append(stream, ANY, [content_event(stream, COSIGNED, (note + line).encode())])
    slow = Slow(streams.log, stream)
    made = Front(streams, connect=lambda: slow, cosigners=KNOWN)  # type: ignore[arg-type, return-value]
    with front(streams, wait=False, made=made):
        until(lambda: made.caught_up() and slow.gave == 1)
        answer = made.get("/v1/cosigned")
        assert answer.status_code == 503
        assert "still reading the cosignatures" in answer.json()["detail"]
        slow.goes_on.set()
        until(lambda: made.get("/v1/cosigned").status_code == 200)
        assert who(made) == [{ALPHA.name: AT}]
        assert open_checkpoint(answered(made)[0], heads_origin(b.ORIGIN), [b.SIGNER.public]).size == 3


class Slow:
    """A log whose subscription to ``stream`` gives one event, and the rest when it ``goes_on``."""

    def __init__(self, log: EventLog, stream: str) -> None:
        self._log = log
        self._stream = stream
        self.gave = 0
        self.goes_on = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def subscribe(self, stream: str, after: int = -1) -> Subscription:
        found = self._log.subscribe(stream, after)
        return _Slowly(self, found) if stream == self._stream else found


class _Slowly:
    def __init__(self, log: Slow, found: Subscription) -> None:
        self._log = log
        self._found = found

    def __iter__(self) -> Iterator[Event]:
        for event in self._found:
            if self._log.gave:
                self._log.goes_on.wait()
            yield event
            self._log.gave += 1

    def stop(self) -> None:
        self._log.goes_on.set()
        self._found.stop()


def test_metrics_have_the_names_of_the_policy_files(tmp_path: Path) -> None:
    """Two witnesses may have one key name."""
    twin = CosignerKey(ALPHA.name, BETA.key.key)
    lines = f"witness near {ALPHA.key.vkey} https://a.example", f"witness far {twin.vkey} https://b.example"
    (tmp_path / "w").write_text("\n".join([*lines, "quorum none\n"]))
    known = CosignTable(policy=Path("w")).known(tmp_path)
    streams = story("alice")
    with front(streams, made=Front(streams, cosigners=known)) as made:
        note = head(made, 1).heads_checkpoint
        line = cosign(parse_note(note).text, twin.name, BETA.private, AT + 1)
        publish(made, note + ALPHA.line(note, AT) + line)

        def shown(name: str) -> float | None:
            figure = "kt_heads_cosigned_timestamp_seconds"
            return made.running.metrics.registry.get_sample_value(figure, {"cosigner": name})

        until(lambda: (shown("near"), shown("far")) == (AT, AT + 1))
