"""``--also`` of ``kt audit``: what others show, beside what was verified."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

from kt_es.cli.output import Output
from kt_es.client.elsewhere import place_at
from kt_es.errors import counted
from kt_es.ledger.ledger import Ledger
from kt_es.process.clock import wall_clock
from projections.gossip import compare_once


def compared_with(output: Output, urls: Sequence[str], origin: str, ledger: Ledger) -> list[dict[str, Any]]:
    """Compare with the checkpoints at ``urls``, print the results, and return them for ``--json``.

    Raises ``EquivocationError`` if one of them contradicts what was verified, and ``ConfigError`` for an
    address that cannot be used.
    """
    with ExitStack() as stack:
        places = [stack.enter_context(closing(place_at(url, origin))) for url in dict.fromkeys(urls)]
        found = compare_once(places, ledger, wall_clock)
    for one in found:
        if one.problem:
            output.note(f"  not compared with {one.url}: {one.problem}")
        elif one.agreed is None:
            heads = counted(one.ahead, "heads")
            output.note(f"  not compared with {one.url} yet: it shows {heads} more than were verified here")
        else:
            output.ok(f"{one.url} shows the same log, of {counted(one.heads, 'heads')}")
    return [
        {"url": one.url, "heads": one.heads, "agrees": one.agreed is not None, "problem": one.problem}
        for one in found
    ]
