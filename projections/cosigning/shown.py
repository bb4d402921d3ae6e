"""Whether the front end shows what ``kt cosign`` publishes: otherwise nobody gets it, and nothing fails."""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog

from kt_es.errors import MalformedError, UnavailableError, VerificationError
from kt_es.formats.cosignatures import CosignerKey, read_cosigned

_LOG = structlog.get_logger("cosign")


class Shown:
    """Compares what was published with the answers of a front end. One thread uses it.

    Args:
        fetch: Returns the cosigned checkpoints of both logs that the front end shows, as notes.
        names: The names of the witnesses, by their keys.
    """

    def __init__(self, fetch: Callable[[], Collection[str]], names: dict[CosignerKey, str]) -> None:
        self._fetch = fetch
        self._names = names
        self._published: set[CosignerKey] = set()
        self._missing: set[CosignerKey] = set()

    def published(self, note: bytes) -> None:
        """Remember who has cosigned ``note``, which is in the stream now."""
        self._published.update(read_cosigned(note, list(self._names)).cosigners)

    def look(self) -> None:
        """Warn about witnesses that were published, and of whom the front end shows no cosignature at all."""
        if not self._published:
            return
        try:
            shown: set[CosignerKey] = set()
            for note in self._fetch():
                shown.update(read_cosigned(note, list(self._names)).cosigners)
        except (UnavailableError, MalformedError, VerificationError) as error:
            # Proofs come from the same front end: whoever asks for one reports that it is away.
            _LOG.debug("the front end shows no cosignatures now", problem=str(error))
            return
        before, self._missing = self._missing, self._published - shown
        if self._missing - before:
            _LOG.warning(
                "the front end does not show what was published",
                witnesses=sorted(self._names[key] for key in self._missing),
                advice="name the policy file as `policy` of [cosign] in the kt.toml of the front ends, and "
                "restart them",
            )
        elif before and not self._missing:
            _LOG.info("the front end shows what was published")
