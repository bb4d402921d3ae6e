"""``--also`` of ``kt audit``: what others show, beside what was verified."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kt_es.cli.output import Output
from kt_es.client.elsewhere import Place, SavedCheckpoint, place_at
from kt_es.errors import ConfigError, counted
from kt_es.ledger.ledger import Ledger
from kt_es.process.clock import wall_clock
from projections.gossip import Neighbour, compare_once
from projections.unproven import kept_unproven


@dataclass(frozen=True, slots=True)
class Others:
    """What was found at each place."""

    found: tuple[Neighbour, ...]

    @property
    def documents(self) -> list[dict[str, Any]]:
        """For ``--json``."""
        return [
            {"url": one.url, "heads": one.heads, "agrees": one.agreed is not None, "problem": _problem(one)}
            for one in self.found
        ]

    @property
    def not_compared(self) -> str:
        """The end of a sentence that names the places that were not compared with; empty if all were."""
        names = [one.url for one in self.found if one.agreed is None]
        return f"; not compared with {', '.join(names)}" if names else ""

    @property
    def complaint(self) -> str:
        """Why a place that shows a longer log cannot be compared with; empty if there is none."""
        ahead = [f"{one.url}: {_problem(one)}" for one in self.found if one.agreed is None and one.ahead]
        return "; ".join(ahead)


def _problem(one: Neighbour) -> str:
    if one.agreed is not None or not one.ahead:
        return one.problem
    heads = counted(one.ahead, "heads")
    why = f" ({one.problem})" if one.problem else ""
    return (
        f"it shows {heads} more than were verified here, and no tiles to compare them by{why}; audit again "
        "when the log has as many, with --data"
    )


def compared_with(
    output: Output,
    urls: Sequence[str],
    origin: str,
    ledger: Ledger,
    *,
    own: Place | None = None,
    data: Path | None = None,
) -> Others:
    """Compare with the checkpoints at ``urls``, and those kept below ``data``, and print the results.

    ``own`` is the server whose tiles were replayed, None for the event log.

    Raises ``EquivocationError`` and ``DivergenceError`` if one of them contradicts what was verified, and
    ``ConfigError`` for an address that cannot be used.
    """
    with ExitStack() as stack:
        places = [stack.enter_context(closing(place_at(url, origin))) for url in dict.fromkeys(urls)]
        sources = [*kept_unproven(data, origin), *places]
        found = compare_once(sources, ledger, wall_clock, own=own, data=data)
    for source, one in zip(sources, found, strict=True):
        if isinstance(source, SavedCheckpoint) and one.agreed is None and not one.ahead and one.problem:
            raise ConfigError(f"{one.url} cannot be compared with ({one.problem}): name another file")
    for one in found:
        if one.agreed is None:
            output.warn(f"  not compared with {one.url}: {_problem(one)}")
        else:
            output.ok(f"{one.url} shows the same log, of {counted(one.heads, 'heads')}")
    return Others(found)
