"""Processes verify ahead; without them, or with one that was killed, the same is decided."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import pytest
import structlog.testing

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import ANY, Event, content_event
from kt_es.formats.entries import Mutation, PublicKey
from kt_es.formats.facts import FACT_SIZE, facts_about
from kt_es.formats.queue import EPOCH_MARKER, MUTATIONS, RECORDS, encode_mutations, encode_records
from kt_es.ledger import verifiers as tested
from kt_es.ledger.ahead import AHEAD, MORE
from kt_es.ledger.replay import Replay
from kt_es.ledger.verifier import ANSWER, QUEUE_EVENT, RECORDS_EVENT, REQUEST, answer, facts_in
from kt_es.ledger.verifiers import Verifiers
from kt_es.ledger.verifying import VerifierProcess
from signer.keys import KeyRing
from signer.loop import Signer
from tests import builders as b
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import (
    LIMITS,
    NAMES,
    data_of,
    effects,
    new_ledger,
    new_log,
    new_signer,
    submit,
    wait_until,
)

GOOD = b.mutation("alice")
FORGED = b.mutation("bob", signed_by=[b.private_key("mallory")])
CONTENTS = [GOOD.encode(), b"no mutation", FORGED.encode(), b.mutation("carol").encode()]
FACTS = {*facts_about(GOOD, b.ORIGIN), *facts_about(b.mutation("carol"), b.ORIGIN)}


def event(revision: int, contents: Sequence[bytes] = CONTENTS, kind: str = MUTATIONS) -> Event:
    if kind == MUTATIONS:
        data = encode_mutations(contents)
    else:
        items = b.event_items(0, MUTATIONS, encode_mutations(contents))
        data = encode_records(0, [b.record(at, item).encode() for at, item in enumerate(items)])
    return Event("stream", revision, kind, data, uuid.uuid4())


def started(processes: int = 1) -> Verifiers:
    """Verifiers whose processes are ready."""
    made = Verifiers(b.ORIGIN, processes, least=0)
    made.offer(event(0))
    wait_until(lambda: len(made.pids) == processes, "the processes are ready")
    made.begin()
    return made


@pytest.fixture
def verifiers() -> Iterator[Verifiers]:
    with started() as made:
        yield made


def is_gone(pid: int) -> bool:
    """Whether a process has ended, also if nobody has waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("kind", [MUTATIONS, RECORDS])
def test_facts_come_for_the_valid_signatures_of_an_event(verifiers: Verifiers, kind: str) -> None:
    verifiers.offer(event(1, kind=kind))
    assert verifiers.verified(1) == FACTS


def test_facts_of_many_events_belong_to_their_events(verifiers: Verifiers) -> None:
    made = [b.mutation(f"user {number}") for number in range(20)]
    for number, one in enumerate(made):
        verifiers.offer(event(1 + number, [one.encode()]))
    for number in range(0, 20, 2):
        assert verifiers.verified(1 + number) == set(facts_about(made[number], b.ORIGIN))


def test_what_was_not_offered_or_came_too_late_has_no_facts(verifiers: Verifiers) -> None:
    assert not verifiers.verified(5)
    verifiers.offer(event(4))
    assert not verifiers.verified(4)
    verifiers.begin()
    verifiers.offer(event(4))
    assert verifiers.verified(4) == FACTS


def test_what_was_offered_before_a_process_was_ready_is_verified_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Verifiers(b.ORIGIN, 1, least=0) as made:
        with monkeypatch.context() as starting:
            # Nobody learns that it is ready.
            starting.setattr(VerifierProcess, "exchange", lambda _: None)
            made.offer(event(0))
            made.offer(event(1))
            # The decision does not wait for the start.
            assert not made.verified(0)
        wait_until(lambda: len(made.pids) == 1, "the process is ready")
        made.keep_busy()
        (process,) = made._processes
        assert list(process.asked) == [made._asked[1]]
        assert made.verified(1) == FACTS


@pytest.mark.parametrize("kind", ["EpochMarker", "Config", "anything"])
def test_other_events_are_not_offered(verifiers: Verifiers, kind: str) -> None:
    verifiers.offer(Event("stream", 1, kind, encode_mutations(CONTENTS), uuid.uuid4()))
    assert not verifiers.verified(1)


def test_no_process_is_started_before_enough_waits() -> None:
    with Verifiers(b.ORIGIN, 1) as few, structlog.testing.capture_logs() as lines:
        for number in range(3):
            few.offer(event(number))
        assert few.pids == [] == lines
        assert not few.verified(0)


def test_a_killed_process_costs_facts_and_nothing_else(verifiers: Verifiers) -> None:
    with structlog.testing.capture_logs() as lines:
        os.kill(verifiers.pids[0], signal.SIGKILL)
        for number in range(1, 5):
            verifiers.offer(event(number))
        # An answer may have come before the end.
        assert all(verifiers.verified(number) in (frozenset(), FACTS) for number in range(1, 5))
        wait_until(lambda: verifiers.pids == [], "the end is noticed")
        verifiers.offer(event(6))
        assert not verifiers.verified(6)
    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert line["exit_code"] == -signal.SIGKILL
    assert "one after the other" in line["event"]


def test_a_process_that_was_killed_is_started_again_later(
    verifiers: Verifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "RESTART", 0.0)
    (before,) = verifiers.pids
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: verifiers.pids == [], "the end is noticed")
    verifiers.offer(event(1))
    wait_until(lambda: len(verifiers.pids) == 1, "another process is ready")
    verifiers.offer(event(2))
    assert verifiers.verified(2) == FACTS
    assert verifiers.pids != [before]


def test_a_process_that_does_not_answer_is_ended(
    verifiers: Verifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "PATIENCE", 0.0)
    (pid,) = verifiers.pids
    os.kill(pid, signal.SIGSTOP)
    with structlog.testing.capture_logs() as lines:
        verifiers.offer(event(1))
        assert not verifiers.verified(1)
    assert "no answer" in str(lines[-1]["problem"])
    assert is_gone(pid)


def test_a_process_that_cannot_be_started_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Verifiers(b.ORIGIN, 2, least=0) as none, structlog.testing.capture_logs() as lines:
        for number in range(3):
            none.offer(event(number))
            assert not none.verified(number)
    (line,) = lines
    assert "/nowhere/python" in str(line["problem"])


def test_closing_ends_the_processes() -> None:
    with started(2) as made:
        pids = made.pids
        made.offer(event(1))
    assert all(is_gone(pid) for pid in pids)
    made.offer(event(2))
    assert made.pids == []
    assert not made.verified(2)


def test_the_processes_end_when_their_parent_is_killed() -> None:
    program = (
        "import sys; from tests.ledger.test_verifiers import started; made = started();"
        "print('pid', made.pids[0], flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pid = next(int(line.split()[1]) for line in parent.stdout if line.startswith(b"pid"))
        assert not is_gone(pid)
        parent.kill()
    wait_until(lambda: is_gone(pid), "the process has ended")


def test_what_waits_is_bounded_by_bytes(verifiers: Verifiers) -> None:
    os.kill(verifiers.pids[0], signal.SIGSTOP)
    large = encode_mutations([bytes(16_000)] * 16)
    for number in range(2 * AHEAD // len(large)):
        verifiers.offer(Event("stream", 1 + number, MUTATIONS, large, uuid.uuid4()))
    assert verifiers._held <= AHEAD
    assert sum(
        len(one) for process in verifiers._processes for one in process.sending
    ) <= tested.BACKLOG + len(large)


def test_what_was_decided_does_not_wait_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Verifiers(b.ORIGIN, 1, least=0) as none:
        none.offer(event(5_000))
        for number in range(1_000):
            none.offer(event(number))
            assert not none.verified(number)
        assert len(none._unsent) <= 3


def test_events_come_in_order_and_an_error_after_them(verifiers: Verifiers) -> None:
    def events() -> Iterator[Event]:
        yield from (event(number) for number in range(1, 8))
        raise UnavailableError("the log went away")

    came = verifiers.ahead(events())
    for number in range(1, 8):
        assert next(came).revision == number
        assert verifiers.verified(number) == FACTS
    with pytest.raises(UnavailableError, match="went away"):
        next(came)


def test_a_decision_that_takes_long_keeps_the_processes_busy(verifiers: Verifiers) -> None:
    events = [event(1 + number, [b.mutation(f"user {number}").encode()] * 200) for number in range(80)]
    came = verifiers.ahead(iter(events))
    assert next(came).revision == 1
    before = len(verifiers._asked)
    verifiers.keep_busy()
    assert len(verifiers._asked) - before >= MORE // len(events[0].data)
    verifiers.begin()
    verifiers.keep_busy()
    assert not verifiers._asked


def test_offers_come_from_another_thread(verifiers: Verifiers) -> None:
    made = [event(number) for number in range(1, 200)]

    def offer() -> None:
        for one in made:
            verifiers.offer(one)

    thread = threading.Thread(target=offer)
    thread.start()
    found = [verifiers.verified(one.revision) for one in made]
    thread.join()
    assert {frozenset(one) for one in found if one} <= {frozenset(FACTS)}  # type: ignore[call-overload]


def test_a_program_answers_whatever_it_is_sent() -> None:
    requests = BytesIO()
    for kind, data in [
        (QUEUE_EVENT, event(0).data),
        (RECORDS_EVENT, b"\xff"),
        (9, b""),
        (QUEUE_EVENT, b"\x80"),
    ]:
        requests.write(REQUEST.pack(kind, len(data)) + data)
    requests.write(REQUEST.pack(QUEUE_EVENT, 100) + b"cut short")
    requests.seek(0)
    answers = BytesIO()
    answer(requests, answers, b.ORIGIN)
    counts, data = [], answers.getvalue()
    while data:
        (count,) = ANSWER.unpack_from(data)
        counts.append(count)
        data = data[ANSWER.size + count * FACT_SIZE :]
    assert counts == [0, 2, 0, 0, 0]
    assert set(facts_in(QUEUE_EVENT, event(0).data, b.ORIGIN)) == FACTS


def queue_of(log: MemoryLog) -> MemoryLog:
    """A log with good and bad mutations of every kind, and markers."""
    before: dict[str, Mutation] = {}
    for number in range(12):
        users = [f"user {at}" for at in range(number % 5 + 1)]
        made = [b.next_mutation(user, before[user]) if user in before else b.mutation(user) for user in users]
        submit(log, [*made, FORGED, b"no mutation", b.mutation("user 0", origin=b.OTHER_ORIGIN)])
        submit(log, [made[-1], b.next_mutation(users[0], made[0], signed_by=[b.private_key("mallory")])])
        before.update(zip(users, made, strict=True))
        marker = b.marker(b.START + number).encode()
        log.append(NAMES.queue, ANY, [content_event(NAMES.queue, EPOCH_MARKER, marker)])
    return log


def test_signer_and_replica_publish_and_accept_the_same_with_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inline: list[bool] = []  # results for signatures of mutations that this process verifies
    verifies = PublicKey.verifies

    def counted(key: PublicKey, message: bytes, signature: bytes) -> bool:
        result = verifies(key, message, signature)
        if message.startswith(b"kt-es/v1 entry"):
            inline.append(result)
        return result

    monkeypatch.setattr(PublicKey, "verifies", counted)
    plain, ahead = queue_of(new_log()), queue_of(new_log())
    alone = new_signer(plain, new_ledger())
    for one in list(plain.read(NAMES.queue)):
        alone._process(one)
    assert inline.count(True) >= 36
    inline.clear()
    with started(2) as verifiers:
        signer = Signer(
            ahead,
            NAMES,
            new_ledger(),
            KeyRing([b.SIGNER]),
            effects=effects(lambda: ahead),
            limits=lambda: LIMITS,
            verifiers=verifiers,
        )
        while signer._read(64):
            pass
        assert True not in inline
        ledger = new_ledger()
        list(Replay(ahead, NAMES, ledger, verifiers=verifiers).catch_up())
        assert True not in inline
    for stream in (NAMES.mutations, NAMES.heads):
        assert data_of(ahead, stream) == data_of(plain, stream)
    assert ledger.committed == alone._ledger.committed


def test_signer_and_replica_give_the_processes_more_while_they_make_the_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    keep_busy = Verifiers.keep_busy

    def counted(verifiers: Verifiers) -> None:
        nonlocal calls
        calls += 1
        keep_busy(verifiers)

    monkeypatch.setattr(Verifiers, "keep_busy", counted)
    log = queue_of(new_log())
    signer = new_signer(log, new_ledger())
    while signer._read(64):
        pass
    assert calls >= 12
    calls = 0
    epochs = list(Replay(log, NAMES, new_ledger()).catch_up())
    assert calls >= len(epochs) == 12
