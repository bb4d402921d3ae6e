"""``kt.toml``: the settings of the processes of one directory.

The signed ``Config`` is not in this file, but in the queue. Relative paths are relative to the file. Every
value can be overridden on the command line or by its ``KT_*`` variable.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kt_es.client.trusted import Pinned
from kt_es.errors import ConfigError, MalformedError
from kt_es.eventstore.streams import MAX_APPEND, StreamNames
from kt_es.extras import require
from kt_es.formats.configs import check_directory, check_origin
from kt_es.formats.entries import PublicKey
from kt_es.ledger.cassandra_settings import CassandraSettings, parse_shared
from kt_es.ledger.stores import Sharing
from kt_es.node.limits import BOUNDS, NodeLimits
from kt_es.process.files import MAX_KEY_FILE, check_private, read_private
from kt_es.process.log_filters import hide, keep_secret, password_of, without_password
from kt_es.server.availability import MAX_BACKLOG
from kt_es.server.limits import DEFAULT_LIMITS, ClientLimits, networks_of

FILE_NAME = "kt.toml"

_T = TypeVar("_T")
_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]
_Rate = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


def _valid(make: Callable[[], _T]) -> _T:
    """Return what ``make`` returns. An error of kt-es becomes one that pydantic reports with the field."""
    try:
        return make()
    except (ConfigError, MalformedError) as error:
        raise ValueError(str(error)) from None


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Address(_Table):
    """``HOST:PORT``. Port 0 selects a free port."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]

    @classmethod
    def parse(cls, text: str) -> Address:
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080")
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NodeTable(_Table):
    """Settings of the embedded node. A limit that is None has its default (``node.limits``)."""

    data: Path = Path("node")
    listen: str = "127.0.0.1:2113"
    max_append: int | None = None
    max_message: int | None = None
    max_connections: int | None = None
    max_calls: int | None = None
    max_groups: int | None = None
    max_metadata: int | None = None
    keepalive: float | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by their names in ``node.limits``."""
        return {name: value for name in BOUNDS if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _limits_can_be(self) -> Self:
        limits = _valid(lambda: NodeLimits(**self.limits))  # type: ignore[arg-type]
        if limits.max_append < MAX_APPEND:
            raise ValueError(f"max-append {limits.max_append} is less than the {MAX_APPEND} that kt-es uses")
        return self


class SignerTable(_Table):
    data: Path = Path("signer")
    keys: Path = Path("keys/signer")
    batch_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    truncate_queue: bool = False
    metrics: str | None = None


class FrontendTable(_Table):
    data: Path = Path("frontend")
    listen: str = "127.0.0.1:8080"
    max_backlog: Annotated[int, Field(ge=1)] = MAX_BACKLOG
    vrf_key: Path = Path("keys/vrf.pem")
    tls_cert: Path | None = None
    tls_key: Path | None = None
    head_seconds: _Seconds = DEFAULT_LIMITS.head_seconds
    body_seconds: _Seconds = DEFAULT_LIMITS.body_seconds
    idle_seconds: _Seconds = DEFAULT_LIMITS.idle_seconds
    answer_seconds: _Seconds = DEFAULT_LIMITS.answer_seconds
    max_connections: _Count = DEFAULT_LIMITS.connections
    address_connections: _Count = DEFAULT_LIMITS.address_connections
    network_connections: _Count = DEFAULT_LIMITS.network_connections
    address_rate: _Rate = DEFAULT_LIMITS.address_rate
    network_rate: _Rate = DEFAULT_LIMITS.network_rate
    exempt: str = ",".join(map(str, DEFAULT_LIMITS.exempt))
    trusted_proxies: str = ""

    @field_validator("exempt", "trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        _valid(lambda: networks_of(value))
        return value

    @property
    def limits(self) -> ClientLimits:
        return ClientLimits(
            head_seconds=self.head_seconds,
            body_seconds=self.body_seconds,
            idle_seconds=self.idle_seconds,
            answer_seconds=self.answer_seconds,
            connections=self.max_connections,
            address_connections=self.address_connections,
            network_connections=self.network_connections,
            address_rate=self.address_rate,
            network_rate=self.network_rate,
            exempt=networks_of(self.exempt),
            proxies=networks_of(self.trusted_proxies),
        )


class StoreTable(_Table):
    """The shared store. Without ``shared``, each process keeps the map on its own disk.

    Attributes:
        shared: The address (``ledger.cassandra_settings``); the files below belong to it.
        cache: Bytes of rows that a process keeps in memory.
    """

    shared: str | None = None
    password_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    cache: Annotated[int, Field(ge=8 << 20)] = 128 << 20

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        files = ("password_file", "tls_ca", "tls_cert", "tls_key")
        if self.shared is None:
            for name in files:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is of a shared store, but shared is missing")
            return self
        address = _valid(lambda: parse_shared(str(self.shared)))
        if (self.password_file is None) != (not address.user):
            raise ValueError(
                "a user in shared and a password_file belong together: give both or neither, such as "
                "cassandra://USER@HOST/KEYSPACE"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or neither")
        if self.tls_cert is not None and self.tls_ca is None:
            raise ValueError("tls_cert needs tls_ca, with which TLS is used")
        return self


class MonitorTable(_Table):
    data: Path = Path("monitor")
    read_queue: bool = False
    exit_on_silence: bool = False
    metrics: str | None = None


class Settings(_Table):
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
    base: Path = Field(default=Path(), exclude=True)

    @field_validator("directory")
    @classmethod
    def _directory(cls, value: str) -> str:
        return _valid(lambda: check_directory(value))

    @field_validator("origin")
    @classmethod
    def _origin(cls, value: str) -> str:
        return _valid(lambda: check_origin(value))

    @model_validator(mode="after")
    def _key_is_of_the_origin(self) -> Self:
        pinned = _valid(lambda: Pinned.parse(self.key))
        if pinned.origin != self.origin:
            raise ValueError(f"the key is of {pinned.origin}, not of {self.origin}")
        return self

    @property
    def names(self) -> StreamNames:
        return StreamNames(self.directory)

    @property
    def pinned(self) -> PublicKey:
        """The key by which the directory is recognized: the signer key of any of its configs."""
        return Pinned.parse(self.key).key

    @property
    def shared(self) -> CassandraSettings | None:
        """The shared store, with its password; None if each process keeps the map on its own disk.

        Raises:
            ConfigError: The password file cannot be used, or the driver is not installed.
        """
        store = self.store
        if store.shared is None:
            return None
        require("shared", "a shared store ([store] shared)")
        return replace(
            parse_shared(store.shared),
            password="" if store.password_file is None else _password(self.path(store.password_file)),
            tls_ca=None if store.tls_ca is None else self.path(store.tls_ca),
            tls_cert=None if store.tls_cert is None else self.path(store.tls_cert),
            tls_key=None if store.tls_key is None else self.path(store.tls_key),
        )

    @property
    def sharing(self) -> Sharing | None:
        """What a signer or front end needs to use the shared store. Raises what ``shared`` raises."""
        shared = self.shared
        return None if shared is None else Sharing(shared, self.origin, self.store.cache)

    def path(self, relative: Path) -> Path:
        return self.base / relative


def _password(path: Path) -> str:
    """Read the password of the shared store, the first line of a file that nobody else may read."""
    data = read_private(path, "the password of the shared store", MAX_KEY_FILE)
    try:
        password, _, rest = data.decode().partition("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"the password of the shared store {path} is not UTF-8: write it again") from None
    if not password or rest:
        raise ConfigError(f"the password of the shared store {path} must be the one line of that file")
    hide(password)
    return password


def load_settings(path: Path) -> Settings:
    """Read the settings in ``path``.

    Raises:
        ConfigError: the file is missing or invalid. The error names the file, the field and the problem.
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
    lines = [
        "# kt-es: one directory and the processes that serve it. Relative paths are relative to this file.",
        f'directory = "{settings.directory}"',
        f'origin = "{settings.origin}"',
        "# The directory's key: give it to everybody who is to trust this directory.",
        f'key = "{settings.key}"',
        "# The event log: the embedded node, or an EventStoreDB cluster.",
        f'log = "{settings.log}"',
        "",
        "[node]",
        f'data = "{settings.node.data}"',
        f'listen = "{settings.node.listen}"',
        "",
        "[signer]",
        f'data = "{settings.signer.data}"',
        f'keys = "{settings.signer.keys}"',
        f"batch_limit = {settings.signer.batch_limit}",
        f"truncate_queue = {str(settings.signer.truncate_queue).lower()}",
        "",
        "[frontend]",
        f'data = "{settings.frontend.data}"',
        f'listen = "{settings.frontend.listen}"',
        f'vrf_key = "{settings.frontend.vrf_key}"',
        "",
        "[monitor]",
        f'data = "{settings.monitor.data}"',
        f"read_queue = {str(settings.monitor.read_queue).lower()}",
        "",
    ]
    return "\n".join(lines)
