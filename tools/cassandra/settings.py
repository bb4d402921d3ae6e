"""The configuration of a small node: ``cassandra.yaml``, the log, and the options of Java."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.cassandra.jars import Java

MAX_TOKEN = 1 << 63
_FIRST_HEAP = 96  # MiB

CommitlogSync = Literal["batch", "periodic"]
"""When a row is acknowledged: once it is on the disk, or up to 10 s before, which is Cassandra's default.

A node that is killed loses the rows that "periodic" acknowledged early, even if the machine goes on.
"""

# Cassandra reaches into these packages of the JDK; its own jvm17-server.options has about the same lists.
_EXPORTS = (
    *("java.base/jdk.internal.misc", "java.base/jdk.internal.ref", "java.base/sun.nio.ch"),
    *("java.management.rmi/com.sun.jmx.remote.internal.rmi", "java.rmi/sun.rmi.registry"),
    *("java.rmi/sun.rmi.server", "java.sql/java.sql", "java.base/java.lang.ref", "jdk.unsupported/sun.misc"),
)
_OPENS = (
    *("java.base/java.io", "java.base/java.lang", "java.base/java.lang.module"),
    *("java.base/java.lang.reflect", "java.base/java.net", "java.base/java.nio", "java.base/java.util"),
    *("java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic"),
    *("java.base/jdk.internal.loader", "java.base/jdk.internal.math", "java.base/jdk.internal.module"),
    *("java.base/jdk.internal.ref", "java.base/jdk.internal.reflect", "java.base/jdk.internal.util.jar"),
    *("java.base/sun.nio.ch", "jdk.management/com.sun.management.internal"),
)

_LOGBACK = """<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{ISO8601} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the nodes of a cluster listen. All use the same ports, each on its own loopback address.

    Args:
        addresses: One IPv4 address per node.
        native_port: The port for clients.
        storage_port: The port for the other nodes.
    """

    addresses: tuple[str, ...]
    native_port: int
    storage_port: int


def write_settings(
    directory: Path, place: Place, index: int, commitlog_sync: CommitlogSync, certificate: Path | None = None
) -> None:
    """Write the configuration of the node ``index`` of the cluster at ``place`` into ``directory``.

    With ``certificate``, a file with its key and certificates, the node asks clients for TLS and a password.
    """
    directory.mkdir(parents=True, exist_ok=True)
    settings = _yaml(directory, place, index, commitlog_sync)
    if certificate is not None:
        settings |= _secured(certificate)
    # JSON is YAML, too.
    (directory / "cassandra.yaml").write_text(json.dumps(settings, indent=2))
    (directory / "logback.xml").write_text(_LOGBACK)


def _yaml(directory: Path, place: Place, index: int, commitlog_sync: CommitlogSync) -> dict[str, object]:
    address, count = place.addresses[index], len(place.addresses)
    return {
        "cluster_name": "kt",
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        # Tokens that are known from the beginning, and seeds alone: all nodes may start at once.
        "num_tokens": 1,
        "initial_token": str(-MAX_TOKEN + index * (2 * MAX_TOKEN // count)),
        "auto_bootstrap": False,
        "seed_provider": [
            {
                "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                "parameters": [{"seeds": ",".join(place.addresses)}],
            }
        ],
        "endpoint_snitch": "SimpleSnitch",
        "listen_address": address,
        "rpc_address": address,
        "storage_port": place.storage_port,
        "native_transport_port": place.native_port,
        "start_native_transport": True,
        "data_file_directories": [str(directory / "data")],
        **{
            f"{what}_directory": str(directory / what)
            for what in ("commitlog", "saved_caches", "hints", "cdc_raw")
        },
        "commitlog_sync": commitlog_sync,
        **({"commitlog_sync_period": "10000ms"} if commitlog_sync == "periodic" else {}),
        "commitlog_segment_size": "16MiB",
        "commitlog_total_space": "256MiB",
        "memtable_heap_space": "96MiB",
        "memtable_offheap_space": "96MiB",
        "memtable_allocation_type": "offheap_objects",
        "file_cache_size": "64MiB",
        "networking_cache_size": "32MiB",
        "key_cache_size": "32MiB",
        "concurrent_reads": 16,
        "concurrent_writes": 16,
        "concurrent_compactors": 1,
        "disk_failure_policy": "stop",
        # A table that a test drops leaves nothing.
        "auto_snapshot": False,
        # A cold cluster on a busy machine is slow, which is no failure.
        "read_request_timeout": "20000ms",
        "range_request_timeout": "20000ms",
        "write_request_timeout": "20000ms",
        "truncate_request_timeout": "60000ms",
        "request_timeout": "20000ms",
    }


def _secured(certificate: Path) -> dict[str, object]:
    return {
        "authenticator": "PasswordAuthenticator",
        "authorizer": "CassandraAuthorizer",
        "client_encryption_options": {
            "enabled": True,
            "optional": False,
            "keystore": str(certificate),
            "ssl_context_factory": {"class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory"},
        },
    }


def command(java: Java, jars: Path, directory: Path, heap: int, *, optimizing: bool) -> list[str]:
    """Return the command that runs the node in ``directory``.

    Args:
        java: What runs it.
        jars: The directory with the jars of Cassandra.
        directory: The one that ``write_settings`` was given.
        heap: The most MiB of its heap.
        optimizing: Compile often used code to fast code. A start takes twice the CPU then.
    """
    return [
        str(java.path),
        # Cassandra locks the memory that it has at the start, so the heap begins small.
        f"-Xms{min(heap, _FIRST_HEAP)}M",
        f"-Xmx{heap}M",
        *([] if optimizing else ["-XX:TieredStopAtLevel=1"]),
        "-Xss512k",
        "-XX:MaxDirectMemorySize=256M",
        "-XX:+UseSerialGC",
        # A full heap ends the node instead of slowing it down forever.
        "-XX:+ExitOnOutOfMemoryError",
        *(word for name in _EXPORTS for word in ("--add-exports", f"{name}=ALL-UNNAMED")),
        *(word for name in _OPENS for word in ("--add-opens", f"{name}=ALL-UNNAMED")),
        "-Djdk.attach.allowAttachSelf=true",
        *(["-Djava.security.manager=allow"] if java.version >= 17 else []),
        "-Djava.net.preferIPv4Stack=true",
        f"-Dcassandra.config=file://{directory}/cassandra.yaml",
        f"-Dlogback.configurationFile=file://{directory}/logback.xml",
        f"-Dcassandra.storagedir={directory}",
        "-Dcassandra-foreground=yes",
        # Cassandra would measure this for seconds at each start.
        "-Dcassandra.memtable.row_overhead_size=125",
        # Nobody else is on these addresses: nothing to wait for.
        "-Dcassandra.ring_delay_ms=2000",
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.superuser_setup_delay_ms=0",
        "-Dcassandra.consistent.rangemovement=false",
        "-cp",
        f"{jars}/*",
        "org.apache.cassandra.service.CassandraDaemon",
    ]
