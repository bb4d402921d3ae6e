"""RFC 6962 logs against known answers: Certificate Transparency's own, and 196 public proof cases.

The cases come from transparency-dev/merkle (testdata) and are read from beside the checkout.
"""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from kt_es.crypto.hashes import EMPTY_LOG_ROOT, log_leaf_hash
from kt_es.errors import MalformedError, VerificationError
from kt_es.merkle.log import LogState
from kt_es.merkle.verify import log_root_from_consistency, log_root_from_inclusion, require_root

VECTORS = Path(__file__).parents[2] / ".." / "shared" / "vectors"

# The leaves and roots that the Certificate Transparency implementations test with.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def cases(name: str) -> list[Any]:
    path = VECTORS / f"merkle-{name}.json"
    if not path.exists():
        skip = pytest.mark.skip(reason=f"{path.name} is not beside the checkout")
        return [pytest.param({}, id="absent", marks=skip)]
    return [pytest.param(case, id=case["name"]) for case in json.loads(path.read_text())]


@pytest.mark.parametrize("size", range(9))
def test_root_of_the_known_leaves(size: int) -> None:
    leaves = [log_leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES[:size]]
    state, _ = LogState().append(leaves)
    assert state.root().hex() == ROOTS[size]
    assert EMPTY_LOG_ROOT.hex() == ROOTS[0]


@pytest.mark.parametrize("case", cases("inclusion"))
def test_inclusion_case(case: dict[str, Any]) -> None:
    def verify() -> None:
        root = log_root_from_inclusion(
            case["leafIdx"],
            case["treeSize"],
            b64decode(case["leafHash"] or ""),
            [b64decode(value) for value in case["proof"] or []],
        )
        require_root("inclusion", root, b64decode(case["root"] or ""))

    if case["wantErr"]:
        with pytest.raises((MalformedError, VerificationError), match="inclusion"):
            verify()
    else:
        verify()


@pytest.mark.parametrize("case", cases("consistency"))
def test_consistency_case(case: dict[str, Any]) -> None:
    def verify() -> None:
        root = log_root_from_consistency(
            case["size1"],
            case["size2"],
            b64decode(case["root1"] or ""),
            [b64decode(value) for value in case["proof"] or []],
        )
        require_root("consistency", root, b64decode(case["root2"] or ""))

    if case["wantErr"]:
        with pytest.raises((MalformedError, VerificationError), match="consistency"):
            verify()
    else:
        verify()
