"""A static web server for measurements: ``python -m kt_es.cli.trials.static FOLDER HOST PORT``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class _Handler(SimpleHTTPRequestHandler):
    """Files over connections that stay open.

    Nagle's algorithm is off, as in every other web server. Otherwise each answer, which is written in two
    parts, would wait 40 ms for the client's kernel to acknowledge the first one.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True


def main(arguments: Sequence[str]) -> None:
    folder, host, port = arguments
    with ThreadingHTTPServer((host, int(port)), partial(_Handler, directory=folder)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
