"""``[cosign]`` of ``kt.toml``: who cosigns this directory, and how ``kt cosign`` asks them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from kt_es.api.cosigned import WatcherBody
from kt_es.client.vouching import read_policy
from kt_es.config.tables import Table
from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.cosignatures import CosignerKey
from kt_es.formats.policies import Cosigner
from kt_es.server.cosigning import Cosigners


class CosignTable(Table):
    """Settings about witnesses and monitors.

    Attributes:
        policy: A C2SP tlog-policy file with the witnesses, their keys and URLs.
        monitors: A C2SP tlog-policy file with the monitors, their keys, and URLs for people.
        interval: Seconds between two rounds of ``kt cosign``.
        data: The directory of ``kt cosign``.
        contact: Whom operators of witnesses may write to; ``kt cosign --describe`` prints it.
        server: URL of the front end from which ``kt cosign`` takes proofs; by default that of ``[frontend]``.
        ca: The certificate of an authority, in PEM, that ``kt cosign`` trusts beside the usual ones.
    """

    policy: Path | None = None
    monitors: Path | None = None
    interval: Annotated[float, Field(ge=0.1, le=86_400, allow_inf_nan=False)] = 60.0
    data: Path = Path("cosign")
    contact: str = ""
    server: str | None = None
    ca: Path | None = None
    metrics: str | None = None

    @field_validator("contact")
    @classmethod
    def _contact(cls, value: str) -> str:
        if not value.isprintable() or len(value) > 200:
            raise ValueError("must be one line of at most 200 characters")
        return value

    def known(self, base: Path) -> Cosigners:
        """Return the keys of witnesses and monitors, from files below ``base``. Raises ``ConfigError``."""
        witnesses = cosigners_of(self.policy and base / self.policy)
        monitors = cosigners_of(self.monitors and base / self.monitors)
        watchers = [
            WatcherBody(kind, cosigner.name, key.vkey, cosigner.url)
            for kind, known in (("witness", witnesses), ("monitor", monitors))
            for cosigner, key in known
        ]
        return Cosigners(
            tuple(key for _, key in witnesses), tuple(key for _, key in monitors), tuple(watchers)
        )


def cosigners_of(path: Path | None) -> list[tuple[Cosigner, CosignerKey]]:
    """Return the cosigners in a policy file, none without a file.

    Raises ``ConfigError`` if the file cannot be read or is not a policy, or has a key that is
    of no use here.
    """
    if path is None:
        return []
    try:
        return [(one, CosignerKey.parse(one.vkey)) for one in read_policy(path).cosigners]
    except MalformedError as error:
        raise ConfigError(f"policy {path}: {error.problem}; leave the key out") from None
