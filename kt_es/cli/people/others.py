"""``--also``: what others were shown, beside what this client verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from kt_es.cli.options import also_option, options
from kt_es.cli.output import Output
from kt_es.client.checkpoints import STEP
from kt_es.client.client import Client
from kt_es.client.comparing import Comparison
from kt_es.errors import (
    CannotTellError,
    ConfigError,
    EquivocationError,
    MalformedError,
    UnavailableError,
    VerificationError,
    counted,
)

NOBODY = "the directory names nobody who watches it, so it was compared with none of them"

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
        CannotTellError: What others have shown before could not be compared for too long.
    """
    late = _late(output, client)
    named = client.comparing.watchers() if watchers else ()
    if watchers and not named:
        output.warn(f"  {NOBODY}")
    found = []
    for where, compare in _places(client, also, named):
        document = _compared(where, compare)
        found.append(document)
        _tell(output, document)
    if late is not None:
        raise late
    if not also and not watchers:
        return {}
    return {"compared": found, **({"watchers": len(named)} if watchers else {})}


class Others:
    """Compares again and again. What stays the same is printed once.

    Attributes:
        late: A checkpoint waits for too long to be compared; None if none does.
    """

    def __init__(self, output: Output, client: Client, also: Sequence[str], watchers: bool) -> None:
        self.late: CannotTellError | None = None
        self._output = output
        self._client = client
        self._also = also
        self._watchers = watchers
        self._told: dict[str, object] = {}

    def look(self) -> Iterator[tuple[str, VerificationError]]:
        """Compare with each place, and yield those that contradict what this client trusts, and why."""
        try:
            before, self.late = self.late, _late(self._output, self._client)
        except VerificationError as error:
            yield "what others have shown before", error
            return
        if self.late is not None and before is None:
            self._output.warn(f"  {self.late}")
        try:
            named = self._client.comparing.watchers() if self._watchers else ()
        except (UnavailableError, MalformedError, VerificationError):
            # Each check of a label reports the failure again.
            named = ()
        else:
            self._tell_once("", "" if named or not self._watchers else NOBODY)
        for where, compare in _places(self._client, self._also, named):
            try:
                document = _compared(where, compare)
            except VerificationError as error:
                yield where, error
                continue
            except ConfigError as error:
                if where not in self._told:
                    raise
                # The file could be read before, and a watch is unattended.
                document = {"where": where, "compared": False, "problem": str(error)}
            if self._told.get(where) != document.get("problem", ""):
                self._told[where] = document.get("problem", "")
                _tell(self._output, document)

    def _tell_once(self, where: str, problem: str) -> None:
        if self._told.get(where, "") != problem:
            self._told[where] = problem
            if problem:
                self._output.warn(f"  {problem}")


def _late(output: Output, client: Client) -> CannotTellError | None:
    """Compare the checkpoints that waited, and return an error if one waits for too long.

    Raises ``EquivocationError``, and ``VerificationError`` for another log whose proof is withheld.
    """
    try:
        for one in client.comparing.settle():
            if one.log == "heads":
                heads = counted(one.size, "heads")
                output.ok(f"{one.where} has shown the same log before, of {heads}")
    except CannotTellError as error:
        return error
    except UnavailableError as error:
        output.warn(f"  what others have shown before is not compared yet: {error}")
    return None


Compare = Callable[[str], tuple[Comparison, ...]]


def _places(client: Client, also: Sequence[str], watchers: Sequence[str]) -> list[tuple[str, Compare]]:
    # What a user has named may be anywhere, also if the directory names it as well.
    places: dict[str, Compare] = dict.fromkeys(also, client.comparing.compare)
    for url in watchers:
        places.setdefault(url, client.comparing.compare_with_watcher)
    return list(places.items())


def _compared(where: str, compare: Compare) -> dict[str, Any]:
    try:
        compared = compare(where)
    except EquivocationError:
        raise
    except (CannotTellError, UnavailableError, VerificationError) as error:
        if isinstance(error, VerificationError) and error.step == STEP:
            raise
        return {"where": where, "compared": False, "problem": str(error)}
    heads = next((one.size for one in compared if one.log == "heads"), None)
    return {"where": compared[0].where, "compared": True, "heads": heads}


def _tell(output: Output, document: dict[str, Any]) -> None:
    where, heads = document["where"], document.get("heads")
    if not document["compared"]:
        output.warn(f"  not compared with {where}: {document['problem']}")
    else:
        size = "" if heads is None else f", of {counted(heads, 'heads')}"
        output.ok(f"{where} shows the same log{size}")
