"""Imports run downward only: read from the source, so lazy imports inside functions count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("kt_es", "projections", "signer")

# From the bottom up. What stands in one line does not import each other.
LAYERS = [
    ["kt_es"],
    ["kt_es.errors", "kt_es.wording"],
    ["kt_es.extras"],
    ["kt_es.crypto"],
    ["kt_es.merkle"],
    ["kt_es.formats"],
    ["kt_es.epochs", "kt_es.evidence"],
    ["kt_es.process"],
    ["kt_es.eventstore"],
    ["kt_es.client", "kt_es.node", "kt_es.importers"],
    ["kt_es.ledger"],
    ["kt_es.server"],
    ["projections"],
    ["signer"],
    ["kt_es.config"],
    ["kt_es.cli"],
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# The same within the node.
NODE = [["counts", "store"], ["refusals"], ["access", "groups"], ["rpc", "ops"], ["server"], ["__main__"]]
NODE_LEVEL = {name: level for level, names in enumerate(NODE) for name in names}

CORE = ("kt_es.crypto", "kt_es.merkle", "kt_es.formats", "kt_es.epochs", "kt_es.evidence")
EFFECTS = {
    "asyncio", "concurrent", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random",
    "secrets", "shutil", "signal", "socket", "sqlite3", "structlog", "subprocess", "sys", "tempfile",
    "threading", "time", "urllib", "uuid",
}  # fmt: skip
# What a client verifies is as pure as the core; what it fetches and stores is not.
PURE_CLIENT = tuple(
    f"kt_es.client.{name}" for name in ("trust", "trusted", "continuity", "heads", "openings", "memory")
)

ONLY_IN = {
    "esdbclient": ("kt_es/eventstore/driver.py",),
    "kurrentdbclient": ("kt_es/eventstore/driver.py",),
    "rocksdict": ("kt_es/ledger/rocks.py", "kt_es/ledger/rocks_database.py", "kt_es/node/"),
    "grpc": ("kt_es/eventstore/", "kt_es/node/"),
    "cbor2": ("kt_es/formats/codec.py",),
    "cryptography": (
        "kt_es/crypto/p256.py",
        "kt_es/crypto/pem.py",
        "kt_es/process/tls.py",
        "kt_es/importers/",
    ),
    "pydantic": ("kt_es/config.py", "kt_es/server/"),
    "nacl": ("kt_es/crypto/",),
}


def sources() -> list[Path]:
    return sorted(path for top in OURS for path in (ROOT / top).rglob("*.py"))


def part_of(module: str) -> str:
    """The part that a module belongs to: a package of ``kt_es``, or one of the others."""
    names = module.split(".")
    if names[0] != "kt_es":
        return names[0]
    package = ".".join(names[:2])
    is_package = len(names) > 1 and (ROOT / "kt_es" / names[1]).is_dir()
    return package if is_package or package in LEVEL else "kt_es"


def module_of(path: Path) -> str:
    names = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it; each imported name as if it were a module, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield node.module
            if node.module.split(".")[0] in OURS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


IMPORTS = {
    path.relative_to(ROOT).as_posix(): (module_of(path), sorted(set(imported(path)))) for path in sources()
}


def found(allowed: tuple[str, ...], file: str) -> bool:
    return any(file == place or (place.endswith("/") and file.startswith(place)) for place in allowed)


def test_there_is_something_to_check() -> None:
    assert len(IMPORTS) > 30


def test_every_part_has_its_layer() -> None:
    assert {part_of(module) for module, _ in IMPORTS.values()} <= LEVEL.keys()


@pytest.mark.parametrize("part", LEVEL)
def test_imports_run_downward_only(part: str) -> None:
    upward = [
        f"{file} imports {name}"
        for file, (module, names) in IMPORTS.items()
        if part_of(module) == part
        for name in names
        if name.split(".")[0] in OURS and part_of(name) != part and LEVEL[part_of(name)] >= LEVEL[part]
    ]
    assert not upward


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_stay_behind_their_module(library: str) -> None:
    strays = [
        file
        for file, (_, names) in IMPORTS.items()
        if any(name.split(".")[0] == library for name in names) and not found(ONLY_IN[library], file)
    ]
    assert not strays


def test_the_node_stands_apart() -> None:
    beside = {
        name
        for module, names in IMPORTS.values()
        if part_of(module) == "kt_es.node"
        for name in names
        if name.split(".")[0] in OURS
        if name.split(".")[0] in OURS
        and part_of(name) not in ("kt_es", "kt_es.node", "kt_es.errors", "kt_es.process")
        # The protocol's messages and servicers, from whichever client library is installed, and what servers
        # make of metadata.
        and not name.startswith(("kt_es.eventstore.driver", "kt_es.eventstore.metadata"))
    }
    assert not beside


def within_node(module: str) -> str | None:
    """The part of the node that a module belongs to, if it does."""
    names = module.split(".")
    return names[2] if names[:2] == ["kt_es", "node"] and len(names) > 2 else None


def test_imports_run_downward_within_the_node() -> None:
    seen, upward = set(), []
    for file, (module, names) in IMPORTS.items():
        part = within_node(module)
        if part is None:
            continue
        seen.add(part)
        below = [other for other in map(within_node, names) if other not in (None, part)]
        upward += [f"{file} imports {other}" for other in below if NODE_LEVEL[other] >= NODE_LEVEL[part]]
    assert seen == NODE_LEVEL.keys()
    assert not upward


def test_the_client_needs_no_log_and_no_database() -> None:
    # What the client imports, and what that imports in turn, down to the bottom.
    reached: set[str] = set()
    waiting = [module for module, _ in IMPORTS.values() if part_of(module) == "kt_es.client"]
    by_module = dict(IMPORTS.values())
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += by_module.get(module, [])
    assert reached
    tops = {module.split(".")[0] for module in reached}
    assert tops.isdisjoint({"esdbclient", "kurrentdbclient", "rocksdict", "grpc", "projections", "signer"})
    assert not {module for module in reached if module.startswith("kt_es.eventstore")}


def test_the_core_is_pure() -> None:
    assert {module for module, _ in IMPORTS.values()}.issuperset(PURE_CLIENT)
    effects = [
        f"{file} imports {name}"
        for file, (module, names) in IMPORTS.items()
        if part_of(module) in CORE or module in PURE_CLIENT
        for name in names
        if name.split(".")[0] in EFFECTS
    ]
    assert not effects
