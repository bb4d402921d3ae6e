"""Look an address up, verify the answer, and print the keys.

  python examples/look_up.py SERVER VKEY LABEL --state FOLDER [--save FILE]

The folder keeps what this client trusts. Use one folder for each directory, and keep it: a client without a
memory cannot notice that a directory went back. The program ends with the exit codes of `kt`: 0 for keys, 3
for proven absence.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kt_es.client import Client, FileStateStore, Pinned
from kt_es.errors import KtError

USAGE, ABSENT = 2, 3  # exit codes, as those of kt


def look_up(client: Client, label: str, save: Path | None) -> int:
    """Print the keys of `label`, and save the proof where `save` is given.

    Returns:
        The exit code.
    """
    found = client.lookup(label)
    if save is not None:
        save.write_bytes(found.proof.encode())
    if found.absent:
        print(f"{label}: proven absent in epoch {found.epoch}")
        return ABSENT
    if found.erased:
        print(f"{label}: the profile was erased, which is proven")
        return 0
    for key in found.profile or ():
        print(f"{key.type} {key.name} ({len(key.data)} bytes)")
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Look an address up and verify the answer.")
    parser.add_argument("server", help="address of a front end, for example https://kt.example.org")
    parser.add_argument("vkey", help="the directory's key, from somewhere else than the server")
    parser.add_argument("label", help="whom to look up, for example alice@example.org")
    parser.add_argument("--state", type=Path, required=True, help="folder of what this client trusts")
    parser.add_argument("--save", type=Path, help="file for the proof, for verify_offline.py or kt verify")
    options = parser.parse_args(arguments)
    try:
        pinned = Pinned.parse(options.vkey)
        with Client(options.server, FileStateStore(options.state), pinned=pinned) as client:
            return look_up(client, options.label, options.save)
    except KtError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(error, file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
