"""``kt bench shared``: a thin front end, over a shared store, beside a local one with a replica of its own.

Both serve the same directory (``both_kinds``). They run by turns as real processes, so that changes of the
machine meet both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

from kt_es.cli.trials.bench_report import Row
from kt_es.cli.trials.both_kinds import LOCAL, THIN, BothKinds, Turn

SAMPLE = 3_000
"""Labels that are looked up."""
ABSENT = 20_000
"""Absent labels that are looked up at the end: with 1,000,000 entries their pages fill the cache."""
TURNS = 2
SECONDS = 10.0
"""How long each front end answers repeated lookups in each turn."""
READY_LIMIT = 5.0  # seconds
MEMORY_LIMIT = 400  # MB
GENERATOR_LIMIT = 2
"""The load generator alone must reach this many times the requests/s of the faster front end."""


def bench_shared(
    directory: Path,
    entries: int,
    shared: str,
    *,
    sample: int = SAMPLE,
    absent: int = ABSENT,
    seconds: float = SECONDS,
    note: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure lookups by both kinds of front end, with ``entries`` in the map.

    Args:
        directory: Where the directory and its local front end have their data; it is empty.
        shared: Address of a shared store with a keyspace that does not exist yet.
        sample: Labels that are looked up, each for the first time and then again for ``seconds``.
        absent: Labels without an entry that are looked up once, in the last turn.
        note: Gets a line for people after each step.
    """
    with closing(BothKinds(directory, shared)) as bench:
        filling, costs = bench.fill(entries, min(sample, entries), note)
        turns: dict[str, list[Turn]] = {LOCAL: [], THIN: []}
        for number in range(TURNS):
            for kind in (LOCAL, THIN):
                turns[kind].append(bench.turn(kind, seconds, absent if number == TURNS - 1 else 0))
                shown = turns[kind][-1].again.rate
                note(f"turn {number + 1} of {TURNS}, {kind}: {shown:,.0f} repeated lookups/s")
        alone = bench.generator_alone(min(seconds, 3.0))
    local = median(turn.again.rate for turn in turns[LOCAL])
    fastest = max(turn.again.rate for kind in turns.values() for turn in kind)
    return [
        *_turn_rows(LOCAL, turns[LOCAL], None),
        *_turn_rows(THIN, turns[THIN], local / 2),
        *costs,
        Row.of("load generator alone", "requests/s", [alone.rate], GENERATOR_LIMIT * fastest),
        Row.of("filling", "entries/s", [filling]),
        Row.of("entries", "entries", [float(entries)]),
    ]


def _turn_rows(kind: str, turns: Sequence[Turn], least: float | None) -> list[Row]:
    """Return the rows of one kind. A thin one has limits: ``least`` repeated lookups/s, among others."""
    ready, memory = (None, None) if least is None else (READY_LIMIT, MEMORY_LIMIT)
    rows = [
        Row.of(f"{kind}: from start to ready", "s", [turn.ready for turn in turns], ready),
        Row.of(f"{kind}: memory after the start", "MB", [turn.started for turn in turns]),
        Row.of(f"{kind}: memory after the lookups", "MB", [turn.ended for turn in turns]),
        Row.of(f"{kind}: peak memory", "MB", [max(turn.peak for turn in turns)], memory),
        Row.of(f"{kind}: first lookups", "lookups/s", [turn.first.rate for turn in turns]),
        Row.of(f"{kind}: first lookup, p50", "ms", [turn.first.half for turn in turns]),
        Row.of(f"{kind}: first lookup, p99", "ms", [turn.first.most for turn in turns]),
        Row.of(f"{kind}: repeated lookups", "lookups/s", [turn.again.rate for turn in turns], least),
        Row.of(f"{kind}: repeated lookup, p50", "ms", [turn.again.half for turn in turns]),
        Row.of(f"{kind}: repeated lookup, p99", "ms", [turn.again.most for turn in turns]),
    ]
    absent = [turn.absent.rate for turn in turns if turn.absent is not None]
    rows += [Row.of(f"{kind}: lookups of absent labels", "lookups/s", absent)] if absent else []
    used = [turn.processor * 1e6 for turn in turns if turn.processor is not None]
    rows += [Row.of(f"{kind}: processor time of a repeated lookup", "µs", used)] if used else []
    return rows
