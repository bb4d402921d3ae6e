"""Run Cassandra nodes on loopback until SIGINT or SIGTERM, or while a command runs."""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from kt_es.process.signals import stop_event
from tools.cassandra.cluster import HEAP, Cluster
from tools.cassandra.errors import CassandraError
from tools.cassandra.settings import CommitlogSync

ADDRESSES = "ADDRESSES"


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes] | None]:
    """Run ``command``, if there is one, and interrupt it if it still runs at the end."""
    if not command:
        yield None
        return
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)


def main() -> int:
    """Start the nodes and print their addresses in one line; then run the command, or until a signal.

    Return the exit code of the command. If a node ends by itself, everything ends.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.cassandra", description=__doc__)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    parser.add_argument("--heap", type=int, default=HEAP, help="MiB for each node (default %(default)s)")
    parser.add_argument("--optimizing", action="store_true", help="faster code, slower start: to measure")
    parser.add_argument("--commitlog-sync", choices=get_args(CommitlogSync), default="batch")
    parser.add_argument("--data", type=Path, help="directory of the nodes, kept; default a temporary one")
    parser.add_argument("--until-end-of", type=int, metavar="PID", help="stop when this process ends")
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        help=f"run this command and stop then; {ADDRESSES} stands for HOST:PORT of each node, with commas",
    )
    arguments = parser.parse_args()
    watched = [] if arguments.until_end_of is None else [os.pidfd_open(arguments.until_end_of)]
    stop = stop_event()
    with tempfile.TemporaryDirectory(prefix="kt-cassandra-") as temporary:
        try:
            with Cluster(
                arguments.data or Path(temporary),
                arguments.nodes,
                arguments.heap,
                optimizing=arguments.optimizing,
                commitlog_sync=arguments.commitlog_sync,
            ) as cluster:
                places = [f"{address}:{cluster.port}" for address in cluster.addresses]
                print(" ".join(places), flush=True)
                command = [word.replace(ADDRESSES, ",".join(places)) for word in arguments.command]
                with _running(command) as process:
                    while not stop.wait(0.5) and not select.select(watched, [], [], 0)[0]:
                        for node in cluster.nodes:
                            node.check()
                        if process is not None and process.poll() is not None:
                            return process.returncode
        except CassandraError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
