"""What clients may ask of the node, and what they are told when it is too much."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from kt_es.node.groups.settings import (
    MAX_PART,
    MAX_PREFIX,
    MAX_PREFIXES,
    MAX_REGEX,
    PATIENCE,
    USUAL,
    Search,
    make_filter,
    predicate,
)
from kt_es.node.protocol import streams_pb2
from kt_es.node.refusals import Refusal
from kt_es.node.rpc.append_messages import append_answer, appended, in_time, seconds_left
from kt_es.node.rpc.registration import VERSION, supported_methods
from kt_es.node.store.log import Appended
from kt_es.node.store.records import Proposed, encoder

Options = streams_pb2.BatchAppendReq.Options
NOW = 1_700_000_000.0


def test_deadlines_are_durations_or_times() -> None:
    assert seconds_left(Options(), NOW) is None
    assert seconds_left(Options(deadline=Duration(seconds=2, nanos=500_000_000)), NOW) == 2.5
    assert seconds_left(Options(deadline=Duration()), NOW) == 0
    assert seconds_left(Options(deadline=Duration(seconds=315_576_000_000)), NOW) is None
    assert seconds_left(Options(deadline_21_10_0=Timestamp(seconds=int(NOW) + 3)), NOW) == 3
    assert seconds_left(Options(deadline_21_10_0=Timestamp(seconds=1)), NOW) == 1 - NOW


def test_what_is_late_is_finished_and_what_comes_too_late_not_begun() -> None:
    async def scenario() -> list[str]:
        told: list[str] = []
        go = asyncio.Event()

        async def work(name: str) -> Appended:
            told.append(f"{name} begins")
            await go.wait()
            told.append(f"{name} ends")
            return Appended(7, 9)

        for name, seconds in (("late", 0.001), ("never", 0.0), ("never", -5.0)):
            with pytest.raises(TimeoutError):
                await in_time(work(name), seconds)
        go.set()
        for enough in (None, 60.0):
            assert await in_time(work("done"), enough) == Appended(7, 9)
        return told

    told = asyncio.run(scenario())
    assert told[0] == "late begins"
    assert "late ends" in told
    assert told.count("done ends") == 2
    assert not [one for one in told if one.startswith("never")]


@pytest.mark.parametrize(
    ("regex", "prefixes"),
    [
        ("x|" * (MAX_REGEX // 2) + "x", ()),
        ("(" * 1000 + ")" * 1000, ()),
        ("(", ()),
        ("a{99999999999}", ()),
        ("s" * (MAX_PART + 1), ()),
        ("a|" + r"s\|" * MAX_PART, ()),
        ("[|]" * MAX_PART, ()),
        ("", ("p",) * (MAX_PREFIXES + 1)),
        ("", ("p" * (MAX_PREFIX + 1),)),
    ],
)
def test_filters_that_are_too_much_are_refused(regex: str, prefixes: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match="filter"):
        predicate(make_filter(False, regex, prefixes, 1, 1))


def of_type(name: str) -> bytes:
    return encoder(b"s", 1)(Proposed(str(UUID(int=1)), name, "text/plain", b"", b""), 0, 0)


def test_long_filters_within_limits_are_used() -> None:
    longest = [letter * MAX_PART for letter in "vwxyz"]
    many = [chr(0x100 + number) for number in range(MAX_REGEX // 2)]
    prefixes = tuple(chr(0x100 + number) * MAX_PREFIX for number in range(MAX_PREFIXES))
    for made, passes in (
        (make_filter(False, "|".join(longest), (), 1, 1), longest),
        (make_filter(False, "|".join(many), (), 1, 1), many),
        (make_filter(False, "", prefixes, 1, 1), prefixes),
    ):
        passed = predicate(made)
        assert passed(of_type(passes[0]))
        assert passed(of_type(passes[-1]))
        assert not passed(of_type("another"))


EXPONENTIAL = (r"(a+)+$", r"(a|aa)+$", r"^(?!(\$.+$))(x?a*)*$", "(?:a?){30}a{30}!!")


@pytest.mark.parametrize("expression", EXPONENTIAL)
def test_a_search_without_end_is_given_up(expression: str) -> None:
    with pytest.raises(Refusal, match="regular expression takes too long"):
        Search(expression)("a" * 4000 + "!")


class Clock:
    """Each search takes the next of ``seconds``."""

    def __init__(self, *seconds: float) -> None:
        self._now = 0.0
        self._steps = [step for second in seconds for step in (0.0, second)]

    def __call__(self) -> float:
        self._now += self._steps.pop(0)
        return self._now


def test_many_slow_searches_are_given_up() -> None:
    found = Search("a", Clock(*[PATIENCE / 2] * 100))
    with pytest.raises(Refusal, match="regular expression takes too long"):
        [found("xa") for _ in range(100)]


@pytest.mark.parametrize(
    "seconds", [[USUAL / 2] * 10_000, ([PATIENCE / 2] + [0.0] * 200) * 20, [3600.0, *[0.0] * 300] * 5]
)
def test_what_is_slow_for_once_is_borne(seconds: list[float]) -> None:
    """A process may have to wait for others, or be stopped for an hour, in the middle of a search."""
    found = Search("a", Clock(*seconds))
    assert all(found("xa") for _ in seconds)


@pytest.mark.parametrize(
    ("worked", "given_up"), [([0.0] * 50, False), ([PATIENCE / 4] * 3, False), ([PATIENCE / 2] * 2, True)]
)
def test_a_search_that_had_to_wait_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, worked: list[float], given_up: bool
) -> None:
    """The engine ends each try after so much time, of which the search had so much of the processor."""

    class Engine:
        tries = list(worked)
        now = 0.0

        def search(self, _text: str, timeout: float) -> object:
            assert timeout == PATIENCE
            if not self.tries:
                return self
            self.now += self.tries.pop()
            raise TimeoutError

    engine = Engine()
    monkeypatch.setattr("regex.compile", lambda *_args, **_more: engine)
    found = Search("a", lambda: engine.now)
    if given_up:
        with pytest.raises(Refusal, match="takes too long"):
            found("a")
    else:
        assert found("a")


def test_a_busy_machine_refuses_no_filter() -> None:
    """Searches that wait for a processor most of the time, as they do where many processes want one."""

    class Slow:
        def __init__(self, search: Callable[..., object]) -> None:
            self.search = search

        def __call__(self, text: str, timeout: float) -> object:
            threading.Event().wait(timeout)
            return self.search(text)

    found = Search("a")
    found._search = Slow(found._search)  # type: ignore[assignment]
    assert all(found("xa") for _ in range(15))


def test_what_official_clients_send_is_searched_for() -> None:
    system = Search(r"^(?!((\$.+)|(PersistentConfig\d+))$)")
    assert [system(text) for text in ("Order", "$metadata", "PersistentConfig1", "$")] == [
        True,
        False,
        False,
        True,
    ]
    named = Search(r"(?<kind>Order)\p{Lu}\w*$")
    assert [named(text) for text in ("OrderPlaced", "Orderplaced", "anOrderÄ")] == [True, False, True]


def test_features_are_sent_in_the_protocol_s_own_encoding() -> None:
    told = supported_methods([streams_pb2.DESCRIPTOR.services_by_name["Streams"]])
    # Field 1 {1: "read", 2: service}, and so on; field 2 is the version.
    service = b"event_store.client.streams.Streams"
    assert b"\n\x04read\x12%c%b" % (len(service), service) in told
    assert b"\x1a\x11deadline_duration" in told
    assert told.endswith(b"\x12\x07" + VERSION.encode())


@pytest.mark.parametrize(("revision", "position"), [(0, 1), (127, 128), (2**63 - 2, 2**40), (5, 0), (-1, 0)])
def test_an_append_is_answered_in_the_protocol_s_own_encoding(revision: int, position: int) -> None:
    told = append_answer(Appended(revision, position), revision)
    answer = streams_pb2.AppendResp()
    appended(answer.success, Appended(revision, position))
    assert (told if isinstance(told, bytes) else told.SerializeToString()) == answer.SerializeToString()
