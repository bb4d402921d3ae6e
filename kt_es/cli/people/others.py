"""``--also``: what others were shown, beside what this client verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kt_es.cli.output import Output
from kt_es.client.client import Client
from kt_es.client.comparing import STEP
from kt_es.errors import EquivocationError, UnavailableError, VerificationError, counted


def compare_with(output: Output, client: Client, also: Sequence[str]) -> dict[str, Any]:
    """Compare with each place in ``also``, print the results, and return a member for ``--json``, if any.

    A place that does not answer, or shows what the directory has not signed, proves nothing about the
    directory. It is reported, and the command goes on.

    Raises:
        EquivocationError: The directory signed two logs that cannot both be true.
        VerificationError: It signed another log, and the proof is withheld.
    """
    found = []
    for where in dict.fromkeys(also):
        document = _compared(client, where)
        found.append(document)
        _tell(output, document)
    return {"compared": found} if found else {}


class Others:
    """Compares again and again. What stays the same is printed once."""

    def __init__(self, output: Output, client: Client, also: Sequence[str]) -> None:
        self._output = output
        self._client = client
        self._also = tuple(dict.fromkeys(also))
        self._told: dict[str, object] = {}

    def look(self) -> Iterator[tuple[str, VerificationError]]:
        """Compare with each place, and yield those that contradict what this client trusts, and why."""
        for where in self._also:
            try:
                document = _compared(self._client, where)
            except VerificationError as error:
                yield where, error
                continue
            if self._told.get(where) != document.get("problem", ""):
                self._told[where] = document.get("problem", "")
                _tell(self._output, document)


def _compared(client: Client, where: str) -> dict[str, Any]:
    try:
        compared = client.comparing.compare(where)
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
