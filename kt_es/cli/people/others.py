"""``--also``: what others were shown, beside what this client verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from kt_es.cli.options import also_option, options
from kt_es.cli.output import Output
from kt_es.client.client import Client
from kt_es.client.comparing import STEP, Comparison
from kt_es.errors import EquivocationError, MalformedError, UnavailableError, VerificationError, counted

others_options = options(
    also_option,
    click.option(
        "--watchers", is_flag=True, help="Compare with the witnesses and monitors that the directory names."
    ),
)


def compare_with(output: Output, client: Client, also: Sequence[str], watchers: bool) -> dict[str, Any]:
    """Compare with each place in ``also`` and, with ``watchers``, with those that the directory names.

    Print the results, and return a member for ``--json``, if there is any.

    A place that does not answer, or shows what the directory has not signed, proves nothing about the
    directory. It is reported, and the command goes on.

    Raises:
        EquivocationError: The directory signed two logs that cannot both be true.
        VerificationError: It signed another log, and the proof is withheld.
    """
    found = []
    for where, compare in _places(client, also, watchers):
        document = _compared(where, compare)
        found.append(document)
        _tell(output, document)
    return {"compared": found} if found else {}


class Others:
    """Compares again and again. What stays the same is printed once."""

    def __init__(self, output: Output, client: Client, also: Sequence[str], watchers: bool) -> None:
        self._output = output
        self._client = client
        self._also = also
        self._watchers = watchers
        self._told: dict[str, object] = {}

    def look(self) -> Iterator[tuple[str, VerificationError]]:
        """Compare with each place, and yield those that contradict what this client trusts, and why."""
        try:
            places = _places(self._client, self._also, self._watchers)
        except (UnavailableError, MalformedError, VerificationError):
            # Each check of a label reports the failure again.
            places = _places(self._client, self._also, watchers=False)
        for where, compare in places:
            try:
                document = _compared(where, compare)
            except VerificationError as error:
                yield where, error
                continue
            if self._told.get(where) != document.get("problem", ""):
                self._told[where] = document.get("problem", "")
                _tell(self._output, document)


Compare = Callable[[str], tuple[Comparison, ...]]


def _places(client: Client, also: Sequence[str], watchers: bool) -> list[tuple[str, Compare]]:
    places: dict[str, Compare] = dict.fromkeys(also, client.comparing.compare)
    for url in client.comparing.watchers() if watchers else ():
        places.setdefault(url, client.comparing.compare_with_watcher)
    return list(places.items())


def _compared(where: str, compare: Compare) -> dict[str, Any]:
    try:
        compared = compare(where)
    except EquivocationError:
        raise
    except (UnavailableError, VerificationError) as error:
        if isinstance(error, VerificationError) and error.step == STEP:
            raise
        return {"where": where, "compared": False, "problem": str(error)}
    heads = next((one.size for one in compared if one.log == "heads"), None)
    return {"where": compared[0].where, "compared": True, "heads": heads}


def _tell(output: Output, document: dict[str, Any]) -> None:
    where, heads = document["where"], document.get("heads")
    if not document["compared"]:
        output.note(f"  not compared with {where}: {document['problem']}")
    else:
        size = "" if heads is None else f", of {counted(heads, 'heads')}"
        output.ok(f"{where} shows the same log{size}")
