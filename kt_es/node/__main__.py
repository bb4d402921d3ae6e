"""``python -m kt_es.node --data DIR``: a node without ``kt`` and ``kt.toml``, for tests and tools.

It prints its address once it listens.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import structlog

from kt_es.errors import ConfigError, KtError
from kt_es.node.server import NodeConfig, serve
from kt_es.process.logs import configure
from kt_es.process.signals import listen, stop_event
from kt_es.process.space import forgive_full_disk

_LOG = structlog.get_logger("kt_es.node")


def main() -> int:
    """Run a node; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kt_es.node", description="the embedded log")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--listen", default="127.0.0.1:2113", metavar="HOST:PORT")
    parser.add_argument("--tls-cert", type=Path, metavar="PEM")
    parser.add_argument("--tls-key", type=Path, metavar="PEM")
    parser.add_argument("--anonymous", action="store_true")
    parser.add_argument("--http", metavar="HOST:PORT")
    options = parser.parse_args()
    listen()
    forgive_full_disk()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    configure("node", sys.stderr, [structlog.processors.JSONRenderer()], with_words=True)
    try:
        config = NodeConfig(
            options.data,
            *_host_and_port(options.listen),
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            anonymous=options.anonymous,
            http=None if options.http is None else _host_and_port(options.http),
        )
        serve(config, stop_event(), on_ready=lambda address: print(address, flush=True))
    except KtError as error:
        _LOG.error(str(error))
        return error.exit_code
    return 0


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{address!r} is not HOST:PORT")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
