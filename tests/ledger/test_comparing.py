"""Checkpoints that others were shown, compared with the logs that were verified here."""

from __future__ import annotations

import pytest

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import EquivocationError, MalformedError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.cosignatures import cosign
from kt_es.formats.evidence import Evidence, EvidenceKind
from kt_es.formats.heads import (
    LOG_NAMES,
    Checkpoint,
    HeadEvent,
    LogName,
    heads_origin,
    mutations_origin,
    sign_checkpoint,
)
from kt_es.formats.notes import parse_note
from kt_es.ledger.comparing import Compared, compare_checkpoint
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.replay import Replay
from kt_es.ledger.tables import FAMILIES
from tests import builders as b
from tests.reference.forks import rotate, story
from tests.reference.signed_streams import SignedStreams

USERS = ("alice", "bob", "carol", "dave", "erin")


def verified(streams: SignedStreams, epochs: int | None = None) -> Ledger:
    """A ledger that has replayed the first ``epochs``, or all of them."""
    ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.SIGNER_KEY)
    for number, _ in enumerate(Replay(streams.log, streams.names, ledger, lambda _: None).catch_up(), 1):
        if number == epochs:
            break
    return ledger


def published(streams: SignedStreams, epoch: int, log: LogName) -> bytes:
    """The checkpoint of the log that the head event of ``epoch`` has."""
    event = HeadEvent.decode(next(iter(streams.log.read(streams.names.heads, epoch - 1))).data)
    return (event.heads_checkpoint if log == "heads" else event.mutations_checkpoint).encode()


OURS = story(*USERS)
THEIRS = story(*USERS[:2], "mallory", "trent", "victor")


@pytest.mark.parametrize("log", LOG_NAMES)
@pytest.mark.parametrize("replayed", range(1, 6))
def test_every_pair_of_states_of_one_log_agrees(log: LogName, replayed: int) -> None:
    ledger = verified(OURS, replayed)
    ours = ledger.committed.heads if log == "heads" else ledger.committed.log
    for epoch in range(1, 6):
        compared = compare_checkpoint(ledger, log, published(OURS, epoch, log))
        assert compared.ahead == max(0, compared.size - ours.size)
        assert (compared.ahead == 0) == (epoch <= replayed)


@pytest.mark.parametrize("log", LOG_NAMES)
@pytest.mark.parametrize("replayed", range(1, 6))
def test_every_pair_of_states_of_a_split_view_is_found_once_both_are_known(
    log: LogName, replayed: int
) -> None:
    ledger = verified(OURS, replayed)
    for epoch in range(1, 6):
        other = published(THEIRS, epoch, log)
        if epoch <= 2 or epoch > replayed:
            compare_checkpoint(ledger, log, other)
            continue
        with pytest.raises(EquivocationError) as caught:
            compare_checkpoint(ledger, log, other)
        assert caught.value.evidence is not None
        evidence = Evidence.decode(caught.value.evidence)
        kind = EvidenceKind.CHECKPOINTS if log == "heads" else EvidenceKind.HEAD_CHECKPOINT
        assert evidence.kind is kind
        assert convict(evidence) in str(caught.value)


def test_cosignatures_do_not_change_the_result() -> None:
    ledger = verified(OURS)
    witness = b.private_key("witness")
    for streams in (OURS, THEIRS):
        text = published(streams, 3, "heads").decode()
        text += cosign(parse_note(text).text, "witness.example/w1", witness, 1_700_000_000)
        if streams is OURS:
            assert compare_checkpoint(ledger, "heads", text.encode()) == Compared("heads", 3, 0)
        else:
            with pytest.raises(EquivocationError, match="two different logs of 3 leaves"):
                compare_checkpoint(ledger, "heads", text.encode())


def test_a_statement_of_another_key_or_log_is_refused() -> None:
    ledger = verified(OURS)
    root = bytes(32)
    mallory = b.private_key("mallory")

    def signed(origin: str, key: PrivateKey, size: int = 3) -> bytes:
        return sign_checkpoint(Checkpoint(origin, size, root), origin, key).encode()

    with pytest.raises(VerificationError, match="no signature is by a known key"):
        compare_checkpoint(ledger, "heads", signed(heads_origin(b.ORIGIN), mallory))
    with pytest.raises(VerificationError):
        compare_checkpoint(ledger, "heads", signed(mutations_origin(b.ORIGIN), b.SIGNER))
    with pytest.raises(MalformedError):
        compare_checkpoint(ledger, "heads", b"<html>")


def test_a_size_that_no_head_has_is_no_evidence_but_an_error() -> None:
    streams = SignedStreams()
    for name in ("alice", "bob", "carol"):
        streams.put_user(name)
    streams.epoch()
    origin = mutations_origin(b.ORIGIN)
    other = sign_checkpoint(Checkpoint(origin, 2, bytes(32)), origin, b.SIGNER).encode()
    with pytest.raises(VerificationError, match="no signed statement of that size") as caught:
        compare_checkpoint(verified(streams), "mutations", other)
    assert not isinstance(caught.value, EquivocationError)


def test_nothing_verified_and_an_empty_log() -> None:
    ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.SIGNER_KEY)
    assert compare_checkpoint(ledger, "heads", published(OURS, 2, "heads")) == Compared("heads", 2, 2)
    origin = heads_origin(b.ORIGIN)
    empty = sign_checkpoint(Checkpoint(origin, 0, bytes(32)), origin, b.SIGNER).encode()
    assert compare_checkpoint(verified(OURS), "heads", empty) == Compared("heads", 0, 0)


def test_checkpoints_of_before_and_after_a_rotation() -> None:
    streams = story("alice")
    rotate(streams, b.signed_config(), "signer", "successor")
    streams.epoch()
    ledger = verified(streams)
    for epoch in (1, 2, 3):
        assert compare_checkpoint(ledger, "heads", published(streams, epoch, "heads")).ahead == 0
    # The replaced key signs another log of an earlier size.
    origin = heads_origin(b.ORIGIN)
    other = sign_checkpoint(Checkpoint(origin, 3, bytes(32)), origin, b.SIGNER).encode()
    with pytest.raises(EquivocationError):
        compare_checkpoint(ledger, "heads", other)
