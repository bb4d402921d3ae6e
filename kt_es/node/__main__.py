"""``python -m kt_es.node --data DIR [--listen HOST:PORT]``: prints the address once it listens."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import structlog

from kt_es.errors import KtError
from kt_es.node.server import NodeConfig, run, with_port


def main() -> int:
    """Run a node; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kt_es.node", description="the embedded log")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--listen", default="127.0.0.1:2113", metavar="HOST:PORT")
    options = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        config = with_port(NodeConfig(data=options.data), options.listen)
        run(config, lambda address: print(address, flush=True))
    except KtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
