"""Reading streams and $all: directions, places, limits, filters."""

from __future__ import annotations

from typing import Any

import pytest

from kt_es.eventstore.driver import EventStoreDBClient, NewEvent, NotFound, StreamState
from tests.contracts.nodes import append, event, events, numbers, positions

NO_STREAM = StreamState.NO_STREAM

READS = [
    ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ({"backwards": True}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ({"stream_position": 4}, [4, 5, 6, 7, 8, 9]),
    ({"stream_position": 4, "backwards": True}, [4, 3, 2, 1, 0]),
    ({"stream_position": 0, "backwards": True}, [0]),
    ({"limit": 3}, [0, 1, 2]),
    ({"limit": 3, "backwards": True}, [9, 8, 7]),
    ({"stream_position": 8, "limit": 5}, [8, 9]),
    ({"stream_position": 10}, []),
    ({"stream_position": 99}, []),
    ({"stream_position": 99, "backwards": True, "limit": 2}, [9, 8]),
]


@pytest.mark.parametrize(("how", "expected"), READS)
def test_a_stream_is_read_from_anywhere_in_both_directions(
    esdb: EventStoreDBClient, name: str, how: dict[str, Any], expected: list[int]
) -> None:
    append(esdb, name, 10)
    assert positions(esdb.get_stream(name, **how)) == expected


@pytest.mark.parametrize("backwards", [False, True])
def test_a_long_stream_is_read_whole(esdb: EventStoreDBClient, name: str, backwards: bool) -> None:
    append(esdb, name, 700)
    got = positions(esdb.get_stream(name, backwards=backwards))
    assert got == (list(range(699, -1, -1)) if backwards else list(range(700)))


@pytest.mark.parametrize("backwards", [False, True])
def test_a_missing_stream_is_not_found(esdb: EventStoreDBClient, name: str, backwards: bool) -> None:
    with pytest.raises(NotFound):
        esdb.get_stream(name, backwards=backwards)
    assert esdb.get_current_version(name) is NO_STREAM


def test_all_keeps_the_order_of_appends(esdb: EventStoreDBClient, name: str) -> None:
    start = esdb.get_commit_position()
    for number in range(6):
        stream = f"{name}-{number % 2}"
        esdb.append_to_stream(stream, current_version=StreamState.ANY, events=events(2, 10 * number))
    got = [one for one in esdb.read_all(commit_position=start) if one.stream_name.startswith(name)]
    assert numbers(got) == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51]
    commits = [one.commit_position or 0 for one in got]
    assert commits == sorted(set(commits))


def test_all_forwards_includes_its_start_and_backwards_does_not(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 300)
    commits = [one.commit_position for one in esdb.get_stream(name)]
    forwards = [
        one.stream_position for one in esdb.read_all(commit_position=commits[150]) if one.stream_name == name
    ]
    assert forwards == list(range(150, 300))
    backwards = esdb.read_all(commit_position=commits[150], backwards=True, limit=150)
    assert positions(one for one in backwards if one.stream_name == name) == list(range(149, -1, -1))


def test_the_commit_position_is_that_of_the_last_append(esdb: EventStoreDBClient, name: str) -> None:
    written = esdb.append_to_stream(name, current_version=NO_STREAM, events=events(3))
    assert esdb.get_stream(name)[-1].commit_position == written
    assert esdb.get_commit_position() >= written


FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({"filter_include": ("{n}A",)}, [0, 2]),
    ({"filter_include": ("{n}A", "{n}C")}, [0, 2, 3]),
    ({"filter_include": ("{n}[AB]",)}, [0, 1, 2]),
    ({"filter_include": ("{n}-b",), "filter_by_stream_name": True}, [2, 3]),
    ({"filter_include": ("{n}-.*",), "filter_by_stream_name": True}, [0, 1, 2, 3]),
    ({"filter_include": ("{n}B", "nothing else")}, [1]),
]


@pytest.mark.parametrize(("how", "expected"), FILTERS)
def test_all_is_filtered_by_type_and_by_stream(
    esdb: EventStoreDBClient, name: str, how: dict[str, Any], expected: list[int]
) -> None:
    start = esdb.get_commit_position()
    for stream, batch in (("-a", "AB"), ("-b", "AC")):
        first = 0 if stream == "-a" else 2
        esdb.append_to_stream(
            name + stream,
            current_version=NO_STREAM,
            events=[event(first + at, name + letter) for at, letter in enumerate(batch)],
        )
    how = how | {"filter_include": tuple(part.format(n=name) for part in how["filter_include"])}
    assert numbers(esdb.read_all(commit_position=start, **how)) == expected


def test_what_is_excluded_does_not_come(esdb: EventStoreDBClient, name: str) -> None:
    start = esdb.append_to_stream(name, current_version=NO_STREAM, events=event(0, "Wanted"))
    esdb.append_to_stream(name, current_version=0, events=[event(1, "Unwanted"), event(2, "Wanted")])
    got = esdb.read_all(commit_position=start, filter_exclude=(r"\$.+", "Unwanted"))
    assert numbers(one for one in got if one.stream_name == name) == [0, 2]


def test_links_are_resolved_when_asked_for(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    link = NewEvent(type="$>", data=f"1@{name}".encode(), content_type="application/octet-stream")
    esdb.append_to_stream(name + "-links", current_version=NO_STREAM, events=link)
    (plain,) = esdb.get_stream(name + "-links")
    (resolved,) = esdb.get_stream(name + "-links", resolve_links=True)
    assert (plain.type, plain.id) == ("$>", link.id)
    assert (resolved.stream_name, resolved.stream_position, resolved.data) == (name, 1, b"1")
    assert resolved.link is not None
    assert resolved.link.id == link.id


BACKWARDS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [5, 4, 3, 2, 1, 0]),
    ({"limit": 2}, [5, 4]),
    ({"filter_include": ("{n}Even",), "filter_by_stream_name": False}, [4, 2, 0]),
    ({"filter_include": ("{n}Even",), "filter_by_stream_name": False, "limit": 2}, [4, 2]),
    ({"filter_include": (), "filter_exclude": ("(?!{n}).*", "{n}Even")}, [5, 3, 1]),
]


@pytest.mark.parametrize(("how", "expected"), BACKWARDS)
def test_all_is_filtered_backwards_too(
    esdb: EventStoreDBClient, name: str, how: dict[str, Any], expected: list[int]
) -> None:
    batch = [event(at, name + ("Odd" if at % 2 else "Even")) for at in range(6)]
    esdb.append_to_stream(name, current_version=NO_STREAM, events=batch)
    asked: dict[str, Any] = {"filter_include": (name,), "filter_by_stream_name": True, **how}
    for part in ("filter_include", "filter_exclude"):
        if part in asked:
            asked[part] = tuple(text.replace("{n}", name) for text in asked[part])
    if "filter_exclude" in asked:
        asked["filter_by_stream_name"] = False
    assert numbers(esdb.read_all(backwards=True, **asked)) == expected


def test_the_commit_position_is_that_of_the_last_that_passes(esdb: EventStoreDBClient, name: str) -> None:
    first = esdb.append_to_stream(name, current_version=NO_STREAM, events=event(0, name + "A"))
    second = esdb.append_to_stream(name, current_version=0, events=event(1, name + "B"))
    assert esdb.get_commit_position(filter_include=(name + "A",)) == first
    assert esdb.get_commit_position(filter_include=(name + ".*",)) == second
    assert esdb.get_commit_position(filter_include=(name,), filter_by_stream_name=True) == second


def test_links_to_what_is_gone_are_passed_over(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    made = [
        NewEvent(type="$>", data=data.encode(), content_type="application/octet-stream")
        for data in (f"0@{name}", f"9@{name}", f"0@{name}-none", f"2@{name}")
    ]
    esdb.append_to_stream(name + "-links", current_version=NO_STREAM, events=made)
    assert numbers(esdb.get_stream(name + "-links", resolve_links=True)) == [0, 2]
    down = esdb.get_stream(name + "-links", resolve_links=True, backwards=True)
    assert numbers(down) == [2, 0]
    found = esdb.read_all(
        resolve_links=True, filter_include=(name + "-links",), filter_exclude=(), filter_by_stream_name=True
    )
    assert numbers(found) == [0, 2]
