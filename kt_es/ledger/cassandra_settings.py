"""Where a shared store is, and as whom a process connects to it.

    cassandra://[USER@]HOST[:PORT][,HOST...]/KEYSPACE[?datacenter=NAME]

The address has no password, since it stands in ``kt.toml`` and in messages; the password has a file of its
own. This module does not need the driver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from kt_es.errors import ConfigError

SCHEME = "cassandra"
PORT = 9042
EXAMPLE = "cassandra://db1.example.org,db2.example.org/kt_people"

# Names that CQL takes without quotes, so that no name is read as something else in a statement.
_KEYSPACE = re.compile(r"[a-z][a-z0-9_]{0,47}")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_DATACENTER = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class CassandraSettings:
    """A keyspace of a Cassandra cluster, which holds one directory, and how to connect to the cluster.

    Attributes:
        hosts: The contact points: names or addresses. The driver asks them for the other nodes.
        port: The port of all nodes.
        datacenter: The datacenter whose nodes are used; None for the one of the contact points.
        user: The user (role) in Cassandra, with ``password``; empty if the cluster does not ask for one.
        tls_ca: File with the certificates (PEM) that issue those of the nodes. TLS is used if it is given.
        tls_cert: File with the certificate of this client, if the nodes ask for one; ``tls_key`` has its key.
    """

    hosts: tuple[str, ...]
    keyspace: str
    port: int = PORT
    datacenter: str | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def place(self) -> str:
        """The cluster for messages: the contact points and their port."""
        return ", ".join(
            f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}" for host in self.hosts
        )


def parse_shared(uri: str) -> CassandraSettings:
    """Parse the address of a shared store; the password and the TLS files are not part of it.

    Raises:
        ConfigError: The address cannot be used. The message names the part and does not repeat a password.
    """
    if not uri:
        raise _wrong("it is empty")
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise _wrong("it is not an address") from None
    if parts.scheme != SCHEME:
        raise _wrong(f"it begins with {parts.scheme + '://' if parts.scheme else 'no scheme'}")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    if ":" in userinfo:
        raise ConfigError(
            "the address of the shared store has a password: write the password into a file of its own, name "
            "the file in password_file, and leave only the user in the address"
        )
    keyspace = parts.path.removeprefix("/")
    if not _KEYSPACE.fullmatch(keyspace):
        problem = f"the keyspace {keyspace!r} is not a-z, 0-9 and _ (48 characters at most, a letter first)"
        raise _wrong(problem if keyspace else "no keyspace follows the hosts")
    if keyspace == "system" or keyspace.startswith("system_"):
        raise _wrong(f"the keyspace {keyspace!r} belongs to Cassandra itself")
    if parts.fragment:
        raise _wrong(f"nothing may follow a #, but {parts.fragment!r} does")
    names, ports = zip(*(_host(text) for text in hosts.split(",")), strict=True)
    if len(set(ports)) > 1:
        raise _wrong(f"the hosts have different ports ({', '.join(map(str, sorted(set(ports))))})")
    if len(set(names)) < len(names):
        raise _wrong("a host is named twice")
    return CassandraSettings(
        names, keyspace, ports[0], datacenter=_datacenter(parts.query), user=unquote(userinfo)
    )


def _host(text: str) -> tuple[str, int]:
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, str(PORT)
    if not _HOST.fullmatch(name):
        raise _wrong(f"{text!r} is not HOST or HOST:PORT" if text else "a host is empty")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise _wrong(f"{port!r} is not a port from 1 to 65535")
    return name.removeprefix("[").removesuffix("]"), int(port)


def _datacenter(query: str) -> str | None:
    given = parse_qsl(query, keep_blank_values=True)
    for name, _ in given:
        if name != "datacenter":
            raise _wrong(f"{name!r} is not a parameter; the only one is datacenter")
    if len(given) > 1:
        raise _wrong("datacenter is given twice")
    if given and not _DATACENTER.fullmatch(given[0][1]):
        raise _wrong(f"the datacenter {given[0][1]!r} is not a name")
    return given[0][1] if given else None


def _wrong(problem: str) -> ConfigError:
    return ConfigError(f"the address of the shared store cannot be used: {problem}; an example is {EXAMPLE}")
