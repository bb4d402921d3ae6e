"""Verify a saved proof without a network, for example one that was received by mail.

  python examples/verify_offline.py FILE VKEY

FILE comes from `look_up.py --save` or `kt get --out`. VKEY is the directory's key. It must not come from the
sender of the file: whoever chooses the key can prove anything.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from kt_es.client import Pinned
from kt_es.client.offline import verify_proof
from kt_es.errors import KtError
from kt_es.formats.proofs import ProofFile

USAGE = 2  # the exit code of kt for an unusable file


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Verify a saved proof without a network.")
    parser.add_argument("file", type=Path, help="the proof")
    parser.add_argument("vkey", help="the directory's key, from somewhere else than the file")
    options = parser.parse_args(arguments)
    try:
        proof = ProofFile.decode(options.file.read_bytes())
        found = verify_proof(proof, Pinned.parse(options.vkey), None, vouched=True)
    except KtError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(error, file=sys.stderr)
        return USAGE
    as_of = datetime.fromtimestamp(found.timestamp / 1000, UTC).isoformat()
    print(f"{found.label} as of {as_of}, epoch {found.epoch} of {found.head.origin}")
    if found.absent:
        print("proven absent")
    if found.erased:
        print("the profile was erased, which is proven")
    for key in found.profile or ():
        print(f"{key.type} {key.name} ({len(key.data)} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
