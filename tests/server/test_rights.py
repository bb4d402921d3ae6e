"""What making a stream of openings private costs, and how it ends if answers are lost or others interfere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from kt_es.errors import AccessDeniedError, UnavailableError
from kt_es.eventstore.rights import DELETED, openings_acl
from kt_es.eventstore.streams import Metadata, NewEvent
from kt_es.formats.entries import OPENING_ERASED, decode_erased
from kt_es.server.privacy import KEPT, Denials, PrivateStreams
from tests.reference.memory_log import MemoryLog

STREAM = "kt_openings-people.x"
PREVIOUS = b"\x07" * 32


class CountedLog(MemoryLog):
    """Counts calls about metadata; of ``lost`` writes the answer does not arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.lost = 0

    def metadata(self, stream: str) -> Metadata:
        self.calls.append("read")
        return super().metadata(stream)

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        self.calls.append("write")
        if "$acl" in super().metadata(stream).values:
            # Whoever has set the ACL denies it to everybody else.
            raise AccessDeniedError("set the metadata", stream, "$mw")
        super().set_metadata(stream, values, expected)
        if self.lost:
            self.lost -= 1
            raise UnavailableError("the answer was lost")


def test_a_first_submission_costs_one_append_and_a_later_one_a_read() -> None:
    log = CountedLog()
    private = PrivateStreams(lambda: log)
    private.protect(STREAM, None)
    assert log.calls == ["write"]
    assert log.metadata(STREAM).values == {"$acl": openings_acl()}
    log.calls.clear()
    private.protect(STREAM, PREVIOUS)
    assert log.calls == ["read"]
    assert log.appends == 0


@pytest.mark.parametrize("previous", [None, PREVIOUS])
def test_a_lost_answer_is_no_denial(previous: bytes | None) -> None:
    log = CountedLog()
    log.lost = 1
    private = PrivateStreams(lambda: log)
    with pytest.raises(UnavailableError):
        private.protect(STREAM, previous)
    private.protect(STREAM, previous)
    assert log.metadata(STREAM) == Metadata({"$acl": openings_acl()}, 0)


def test_other_metadata_stay() -> None:
    log = CountedLog()
    log.set_metadata(STREAM, {"$maxAge": 5}, -1)
    PrivateStreams(lambda: log).protect(STREAM, None)
    assert log.metadata(STREAM).values == {"$maxAge": 5, "$acl": openings_acl()}


class ForgetfulLog(CountedLog):
    """The append after a deletion takes all other metadata away, as on real servers."""

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        super().append(stream, expected, events)
        held = MemoryLog.metadata(self, stream)
        if held.values.get("$tb") == DELETED:
            MemoryLog.set_metadata(self, stream, {"$tb": 1}, held.revision)


@pytest.mark.parametrize("kept", [{}, {"$acl": openings_acl()}], ids=["as on real servers", "ACL kept"])
@pytest.mark.parametrize("previous", [None, PREVIOUS])
def test_a_deleted_stream_is_brought_back_before_it_is_made_private(
    kept: Mapping[str, object], previous: bytes | None
) -> None:
    log = ForgetfulLog()
    log.set_metadata(STREAM, {"$tb": DELETED, **kept}, -1)
    PrivateStreams(lambda: log).protect(STREAM, previous)
    assert log.metadata(STREAM).values == {"$tb": 1, "$acl": openings_acl()}
    (event,) = log.read(STREAM)
    assert event.type == OPENING_ERASED
    assert decode_erased(event.data) == (previous or bytes(32))


def test_a_second_deletion_is_answered_by_another_event() -> None:
    log = ForgetfulLog()
    for _ in range(2):
        held = MemoryLog.metadata(log, STREAM)
        MemoryLog.set_metadata(log, STREAM, {"$tb": DELETED}, held.revision)
        PrivateStreams(lambda: log).protect(STREAM, PREVIOUS)
        assert "$acl" in log.metadata(STREAM).values
    assert log.appends == 2


def test_denied_rights_are_bounded() -> None:
    denials = Denials(MemoryLog, "queue")
    for number in range(KEPT + 3):
        denials.denied(AccessDeniedError(f"<{number}>", f"s{number}", "$w"))
    assert len(denials._denied) == KEPT
    assert (f"s{KEPT + 2}", "$w") in denials._denied
    assert denials.problem == "the right $w to a stream of the event log is missing"


def test_a_stream_of_a_former_version_is_private_and_is_left_alone() -> None:
    """By its ACL only administrators write the metadata, so it cannot be set again either."""
    log = CountedLog()
    former = {**openings_acl(), "$mw": ["$admins"]}
    log.set_metadata(STREAM, {"$acl": former}, -1)
    log.calls.clear()
    PrivateStreams(lambda: log).protect(STREAM, PREVIOUS)
    assert log.calls == ["read"]
    assert log.metadata(STREAM).values == {"$acl": former}
