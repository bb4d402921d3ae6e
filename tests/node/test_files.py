"""Connections never take the files that the data need."""

from __future__ import annotations

import resource

import pytest

from kt_es.node.limits import FILES, room_for

NO_LIMIT = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to", "connections"),
    [
        (20_000, 20_000, None, 4000),
        (NO_LIMIT, NO_LIMIT, None, 4000),
        (4000 + FILES, 10_000, None, 4000),
        (1024, 10_000, 4000 + FILES, 4000),
        (1024, NO_LIMIT, 4000 + FILES, 4000),
        (1024, 4096, 4096, 4096 - FILES),
        (256, 1024, 1024, 512),
        (2, 2, 2, 1),
    ],
)
def test_the_system_is_asked_for_files_and_connections_are_fewer_without(
    soft: int, hard: int, raised_to: int | None, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert room_for(4000) == connections
    assert asked == ([] if raised_to is None else [(raised_to, hard)])


def test_a_system_that_refuses_is_taken_at_what_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_kind: int, _limits: tuple[int, int]) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, NO_LIMIT))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert room_for(4000) == 128
