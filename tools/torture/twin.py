"""``kt``, but its signer joins a group of its own: the lock between signers is gone, the fence is left."""

from __future__ import annotations

from kt_es.cli.main import main
from signer import runner

GROUP = "kt-twin"

if __name__ == "__main__":
    runner.GROUP = GROUP
    main()
