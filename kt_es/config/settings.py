"""``kt.toml``: the settings of the processes of one directory.

The signed ``Config`` is not in this file, but in the queue. Relative paths are relative to the file. Every
value can be overridden on the command line or by its ``KT_*`` variable.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, field_validator, model_validator

from kt_es.client.trusted import Pinned
from kt_es.config.cosign import CosignTable
from kt_es.config.registration import RegistrationTable
from kt_es.config.tables import (
    FrontendTable,
    MonitorTable,
    NodeTable,
    SignerTable,
    StoreTable,
    Table,
    valid,
)
from kt_es.errors import ConfigError
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.configs import check_directory, check_origin
from kt_es.formats.entries import PublicKey
from kt_es.ledger.stores import Sharing
from kt_es.process.files import check_private
from kt_es.process.log_filters import keep_secret, password_of, without_password

FILE_NAME = "kt.toml"


class Settings(Table):
    """One directory: its name, origin and pinned key, its event log, and the settings of each process."""

    directory: str
    origin: str
    key: str
    log: str = "esdb://127.0.0.1:2113?Tls=false"
    node: NodeTable = NodeTable()
    signer: SignerTable = SignerTable()
    frontend: FrontendTable = FrontendTable()
    monitor: MonitorTable = MonitorTable()
    store: StoreTable = StoreTable()
    registration: RegistrationTable = RegistrationTable()
    cosign: CosignTable = CosignTable()
    base: Path = Field(default=Path(), exclude=True)

    @field_validator("directory")
    @classmethod
    def _directory(cls, value: str) -> str:
        return valid(lambda: check_directory(value))

    @field_validator("origin")
    @classmethod
    def _origin(cls, value: str) -> str:
        return valid(lambda: check_origin(value))

    @model_validator(mode="after")
    def _key_is_of_the_origin(self) -> Self:
        pinned = valid(lambda: Pinned.parse(self.key))
        if pinned.origin != self.origin:
            raise ValueError(f"expected a key of {self.origin}, found one of {pinned.origin}")
        return self

    @property
    def names(self) -> StreamNames:
        return StreamNames(self.directory)

    @property
    def pinned(self) -> PublicKey:
        """The key by which the directory is recognized: the signer key of any of its configs."""
        return Pinned.parse(self.key).key

    @property
    def sharing(self) -> Sharing | None:
        """What a signer or front end needs to use the shared store.

        Raises what ``StoreTable.settings`` raises.
        """
        shared = self.store.settings(self.base)
        return None if shared is None else Sharing(shared, self.origin, self.store.cache)

    def path(self, relative: Path) -> Path:
        return self.base / relative


def load_settings(path: Path) -> Settings:
    """Read the settings in ``path``.

    Raises:
        ConfigError: The file is missing or invalid. The error names the file, the field and the problem.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; `kt init` makes one") from None
    except (ValueError, RecursionError) as error:
        # Not every error of the library is a TOMLDecodeError, for instance for deep nesting or 5,000 digits.
        raise ConfigError(f"{path}: not valid TOML: {error}; mend it there") from None
    try:
        settings = Settings(**{**table, "base": path.parent})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "key"
        problem = without_password(first["msg"].removeprefix("Value error, "))
        raise ConfigError(f"{path}: {field}: {problem}; change it in that file") from None
    if password_of(settings.log):
        keep_secret(settings.log)
        check_private(found, path, "the password in")
    return settings


def dump_settings(settings: Settings) -> str:
    """Return ``settings`` as ``kt init`` writes them: the identity and the paths of the directory."""

    def text(value: object) -> str:
        # A JSON string is a TOML string.
        return json.dumps(str(value))

    lines = [
        "# kt-es: one directory and the processes that serve it. Relative paths are relative to this file.",
        f"directory = {text(settings.directory)}",
        f"origin = {text(settings.origin)}",
        "# The directory's key: give it to everybody who is to trust this directory.",
        f"key = {text(settings.key)}",
        "# The event log: the embedded node, or an EventStoreDB cluster.",
        f"log = {text(settings.log)}",
        "",
        "[node]",
        f"data = {text(settings.node.data)}",
        f"listen = {text(settings.node.listen)}",
        "",
        "[signer]",
        f"data = {text(settings.signer.data)}",
        f"keys = {text(settings.signer.keys)}",
        f"batch_limit = {settings.signer.batch_limit}",
        f"truncate_queue = {str(settings.signer.truncate_queue).lower()}",
        "",
        "[frontend]",
        f"data = {text(settings.frontend.data)}",
        f"listen = {text(settings.frontend.listen)}",
        f"vrf_key = {text(settings.frontend.vrf_key)}",
        "",
        "[monitor]",
        f"data = {text(settings.monitor.data)}",
        f"read_queue = {str(settings.monitor.read_queue).lower()}",
        "",
        "[registration]",
        "# Who may register a label: anybody (open), or who has a token, a proof by mail or an ID token.",
        f"ways = {json.dumps(settings.registration.ways)}",
        "",
    ]
    return "\n".join(lines)
