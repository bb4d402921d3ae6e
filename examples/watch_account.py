"""Check one's own account once: every epoch since the last check.

  python examples/watch_account.py SERVER VKEY LABEL KEY.pem --state FOLDER

KEY.pem is a signing key of the account, as `kt keys generate` makes it. Run the program every ten minutes, by
cron for instance. The progress is in the folder. A version that this key did not sign is printed, and the
program ends with 6, the exit code of `kt watch`. A foreign version that still stands is reported by each run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kt_es.client import Change, Client, FileStateStore, Mine, Pinned, Watcher
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import KtError, WatchAlarmError
from kt_es.formats.entries import PublicKey

USAGE = 2  # the exit code of kt for an unusable file


def foreign_changes(client: Client, label: str, key: PrivateKey) -> tuple[int, list[Change]]:
    """Check every epoch since the last call.

    Returns:
        The epoch up to which everything was checked, and the versions that `key` did not make.
    """
    foreign: list[Change] = []

    def collect(change: Change) -> None:
        if not change.mine:
            foreign.append(change)

    watcher = Watcher(client, Mine(frozenset({PublicKey(key.algorithm, key.public)})), collect)
    turn = watcher.look(label)
    while turn.behind:
        turn = watcher.look(label)
    return turn.epoch, foreign


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Check one's own account in every epoch.")
    parser.add_argument("server", help="address of a front end, for example https://kt.example.org")
    parser.add_argument("vkey", help="the directory's key, from somewhere else than the server")
    parser.add_argument("label", help="one's own account, for example alice@example.org")
    parser.add_argument("key", type=Path, help="PEM file of a signing key of the account")
    parser.add_argument("--state", type=Path, required=True, help="folder of what this client trusts")
    options = parser.parse_args(arguments)
    try:
        key = PrivateKey.from_pem(options.key.read_bytes())
        pinned = Pinned.parse(options.vkey)
        with Client(options.server, FileStateStore(options.state), pinned=pinned) as client:
            epoch, foreign = foreign_changes(client, options.label, key)
    except KtError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(error, file=sys.stderr)
        return USAGE
    for change in foreign:
        print(f"ALARM: version {change.entry.version} of {change.label} in epoch {change.epoch} is not yours")
    if foreign:
        return WatchAlarmError.exit_code
    print(f"{options.label}: nothing foreign up to epoch {epoch}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
