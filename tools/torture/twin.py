"""Runs ``kt`` with a separate group for its signer, so that no lock, only the fence, is between signers."""

from __future__ import annotations

from kt_es.cli.main import main
from signer import service

GROUP = "kt-twin"

if __name__ == "__main__":
    service.GROUP = GROUP
    main()
