"""Pauses between attempts: they double up to a bound, and a success brings back the shortest."""

from __future__ import annotations

from kt_es.process.outage import Backoff


def test_pauses_double_up_to_the_bound() -> None:
    backoff = Backoff(0.25, 1.5)
    assert [backoff.pause() for _ in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]


def test_a_success_brings_back_the_shortest_pause() -> None:
    backoff = Backoff(0.25, 1.5)
    backoff.pause()
    backoff.pause()
    backoff.reset()
    assert [backoff.pause(), backoff.pause()] == [0.25, 0.5]
