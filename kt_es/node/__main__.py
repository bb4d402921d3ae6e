"""``python -m kt_es.node --data DIR`` and options: prints the address once it listens."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import structlog

from kt_es.errors import KtError
from kt_es.node.server import NodeConfig, run, with_port
from kt_es.process.hangups import listen
from kt_es.process.logs import configure
from kt_es.process.sayings import forgive_full_disk

_LOG = structlog.get_logger("kt_es.node")


def main() -> int:
    """Run a node; returns the exit code."""
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
            data=options.data,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            anonymous=options.anonymous,
        )
        if options.http is not None:
            ops = with_port(config, options.http)
            config = replace(config, http=(ops.host, ops.port))
        config = with_port(config, options.listen)
        run(config, lambda address: print(address, flush=True))
    except KtError as error:
        _LOG.error(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
