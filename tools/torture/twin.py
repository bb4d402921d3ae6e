"""Runs ``kt`` with a separate group for its signer, so that no lock, only the fence, is between signers."""

from __future__ import annotations

from kt_es.cli.main import main
from signer import runner

GROUP = "kt-twin"

if __name__ == "__main__":
    runner.GROUP = GROUP
    main()
