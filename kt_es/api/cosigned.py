"""Cosigned checkpoints of both logs. FORMATS, "Cosignatures"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from kt_es.api.models import AtMost, Text
from kt_es.formats.cosignatures import MAX_COSIGNED_NOTE

MAX_COSIGNED: Final = 16
"""Cosigned checkpoints of each log in one answer."""
# Of tlog-cosignature.
_EXAMPLE: Final = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGz"
    "Gku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin"
    "1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
MAX_COSIGNATURES_REQUEST: Final = 64 * 1024
"""Bytes of a request with such a note, whose characters may be escaped in JSON."""

MAX_WATCHERS: Final = 128
"""Watchers that a directory names: as many as two policy files have."""


@dataclass(frozen=True, slots=True)
class CosignedBody:
    """The newest checkpoint of each log that each known cosigner has cosigned, the largest first.

    Each is a C2SP signed note: the checkpoint, the directory's signature, and the cosignatures over it.
    """

    heads: Annotated[tuple[str, ...], AtMost(MAX_COSIGNED)]
    mutations: Annotated[tuple[str, ...], AtMost(MAX_COSIGNED)]


@dataclass(frozen=True, slots=True)
class CosignaturesRequest:
    """``note`` is a signed checkpoint of this directory, with the cosignature of a known monitor."""

    note: Annotated[str, Text(MAX_COSIGNED_NOTE, _EXAMPLE)]


@dataclass(frozen=True, slots=True)
class CosignaturesBody:
    """``new`` says whether a cosignature of the note was newer than those that were here."""

    new: bool


@dataclass(frozen=True, slots=True)
class WatcherBody:
    """Somebody who watches the directory: a ``witness`` or a ``monitor``, with its key for cosignatures.

    ``url`` is where its latest checkpoint of the directory can be read; null if that is not known.
    """

    kind: str
    name: str
    vkey: str
    url: str | None


@dataclass(frozen=True, slots=True)
class WatchersBody:
    """``vkey`` is a signer key of the directory.

    Nothing here is signed: it says where to look, and not whom to trust.
    """

    origin: str
    vkey: str
    watchers: Annotated[tuple[WatcherBody, ...], AtMost(MAX_WATCHERS)]
