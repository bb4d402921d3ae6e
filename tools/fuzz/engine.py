"""Runs one target under atheris: ``python -m tools.fuzz.engine TARGET [libFuzzer options] CORPUS``.

Our packages are instrumented when they are imported, so they must not be imported before.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from random import Random


def main() -> None:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["kt_es", "projections", "signer"]):
        targets = importlib.import_module("tools.fuzz.targets")
    mutate = importlib.import_module("tools.fuzz.mutations").mutate
    name, *options = sys.argv[1:]
    chosen = targets.any_target if name == targets.ANY else targets.TARGETS[name]
    # The first byte of ``ANY`` is the number of a target. Mutations do not change it.
    kept = 1 if name == targets.ANY else 0

    def one_input(data: bytes) -> None:
        # libFuzzer gives a returned value a meaning of its own.
        chosen(data)

    def custom_mutator(data: bytes, max_size: int, seed: int) -> bytes:
        # libFuzzer makes half of the changes, because it knows the operands of comparisons in the code.
        if seed & 1:
            return bytes(atheris.Mutate(data, max_size))
        return data[:kept] + bytes(mutate(data[kept:], Random(seed), max_size - kept))

    warnings.simplefilter("error")
    atheris.Setup([sys.argv[0], *options], one_input, custom_mutator=custom_mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
