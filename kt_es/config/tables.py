"""The tables of ``kt.toml``: the settings of each process, and what each value may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kt_es.errors import ConfigError, MalformedError
from kt_es.eventstore.streams import MAX_APPEND
from kt_es.extras import require
from kt_es.ledger.cassandra_settings import CassandraSettings, parse_shared
from kt_es.node.limits import BOUNDS, NodeLimits
from kt_es.process.files import MAX_KEY_FILE, read_private
from kt_es.process.log_filters import hide
from kt_es.server.availability import MAX_BACKLOG
from kt_es.server.limits import DEFAULT_LIMITS, ClientLimits, networks_of

_T = TypeVar("_T")
_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]
_Rate = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


def valid(make: Callable[[], _T]) -> _T:
    """Return what ``make`` returns. An error of kt-es becomes one that pydantic reports with the field."""
    try:
        return make()
    except (ConfigError, MalformedError) as error:
        raise ValueError(str(error)) from None


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Address(Table):
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


class NodeTable(Table):
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
        limits = valid(lambda: NodeLimits(**self.limits))  # type: ignore[arg-type]
        if limits.max_append < MAX_APPEND:
            raise ValueError(f"max-append {limits.max_append} is less than the {MAX_APPEND} that kt-es uses")
        return self


class SignerTable(Table):
    data: Path = Path("signer")
    keys: Path = Path("keys/signer")
    batch_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    truncate_queue: bool = False
    metrics: str | None = None


class FrontendTable(Table):
    data: Path = Path("frontend")
    listen: str = "127.0.0.1:8080"
    max_backlog: Annotated[int, Field(ge=1)] = MAX_BACKLOG
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    vrf_key: Path = Path("keys/vrf.pem")
    tls_cert: Path | None = None
    tls_key: Path | None = None
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = None
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
        valid(lambda: networks_of(value))
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


class StoreTable(Table):
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
        address = valid(lambda: parse_shared(str(self.shared)))
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

    def settings(self, base: Path) -> CassandraSettings | None:
        """Return the shared store, with its password; None if each process keeps the map on its own disk.

        Args:
            base: The directory to which the files are relative.

        Raises:
            ConfigError: The password file cannot be used, or the driver is not installed.
        """
        if self.shared is None:
            return None
        require("shared", "a shared store ([store] shared)")
        return replace(
            parse_shared(self.shared),
            password=""
            if self.password_file is None
            else secret_line(base / self.password_file, "the password of the shared store"),
            tls_ca=None if self.tls_ca is None else base / self.tls_ca,
            tls_cert=None if self.tls_cert is None else base / self.tls_cert,
            tls_key=None if self.tls_key is None else base / self.tls_key,
        )


def secret_line(path: Path, what: str) -> str:
    """Read a secret that is the one line of a file that nobody else may read, and keep it out of the log."""
    data = read_private(path, what, MAX_KEY_FILE)
    try:
        secret, _, rest = data.decode().partition("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{what} {path} is not UTF-8: write it again") from None
    if not secret or rest:
        raise ConfigError(f"{what} {path} must be the one line of that file")
    hide(secret)
    return secret


class MonitorTable(Table):
    data: Path = Path("monitor")
    read_queue: bool = False
    exit_on_silence: bool = False
    metrics: str | None = None
    also: tuple[str, ...] = ()
    also_interval: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 60.0
    webhooks: tuple[str, ...] = ()
    cosigner: Path | None = None
    cosigner_name: str | None = None
    cosigner_interval: Annotated[float, Field(ge=0.1, le=86_400, allow_inf_nan=False)] = 60.0
    publish: tuple[str, ...] = ()
