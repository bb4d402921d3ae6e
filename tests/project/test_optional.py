"""What works without which library: the verifier, the commands of a client, and what the others say then."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from kt_es import extras
from kt_es.cli.main import COMMANDS, cli, load
from kt_es.client.trusted import Pinned
from kt_es.errors import ConfigError
from kt_es.extras import MODULES, require
from tests import builders as b
from tests.reference.clients import client_of
from tests.reference.directory import Directory

CLIENT = sorted(name for name, entry in COMMANDS.items() if entry.extra is None)
SERVER = sorted(COMMANDS.keys() - CLIENT)

# Before anything else: everything but ``allowed`` is as if it were not installed.
FORBID = """
import importlib, json, sys

allowed = {*sys.stdlib_module_names, "kt_es", *json.loads(sys.argv[1])}

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{name} is forbidden here", name=name)

for name in [name for name in sys.modules if name.partition(".")[0] not in allowed | {"__main__"}]:
    del sys.modules[name]
sys.meta_path.insert(0, Forbidden())
"""

VERIFY = """
from pathlib import Path

for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
from kt_es.client.trust import verify_proof_file
from kt_es.client.trusted import Pinned
from kt_es.crypto import signatures
from kt_es.errors import VerificationError
from kt_es.formats.proofs import ProofFile

data = Path(sys.argv[3]).read_bytes()
lookup = verify_proof_file(ProofFile.decode(data), Pinned.parse(sys.argv[4]))
try:
    verify_proof_file(ProofFile.decode(data), Pinned.parse(sys.argv[5]))
    other = "verified"
except VerificationError as error:
    other = error.step
try:
    p256 = signatures.verify(signatures.ECDSA_P256, bytes(33), b"", bytes(64))
except ModuleNotFoundError as error:
    p256 = error.name
tops = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
print(json.dumps({
    "label": lookup.label, "keys": [key.name for key in lookup.profile], "other": other, "p256": p256,
    "tops": sorted(tops),
}))
"""

COMMANDS_OF_CLIENT = """
from kt_es.cli.main import load

for name in json.loads(sys.argv[2]):
    assert load(name).params or load(name).commands, name
import kt_es.client
for name in kt_es.client.__all__:
    getattr(kt_es.client, name)
import kt_es.importers.pem, kt_es.importers.ssh, kt_es.importers.accounts
print(json.dumps(sorted(name for name in sys.modules if name.startswith("kt_es."))))
"""


ROOT = Path(__file__).parents[2]


def pure_modules() -> list[str]:
    """The packages and modules that the project's import contracts call pure."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (pure,) = [contract for contract in settings["contracts"] if "is pure" in contract["name"]]
    return list(pure["source_modules"])


def modules_of(name: str) -> list[str]:
    """The modules of a package, or the module itself."""
    folder = ROOT / name.replace(".", "/")
    return sorted(f"{name}.{path.stem}" for path in folder.glob("[!_]*.py")) if folder.is_dir() else [name]


def run(program: str, *arguments: str) -> object:
    done = subprocess.run(
        [sys.executable, "-c", FORBID + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_verifier_needs_the_standard_library_cbor2_and_pynacl_alone(tmp_path: Path) -> None:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    proof = tmp_path / "alice.proof"
    proof.write_bytes(client_of(directory).lookup(b.label_of("alice")).proof.encode())
    modules = [name for source in pure_modules() for name in modules_of(source)]
    # The module that knows the library cryptography is imported with the first key that needs it.
    modules = [name for name in modules if name != "kt_es.crypto.openssl"]
    ours, other = (Pinned(b.ORIGIN, key).vkey for key in (b.SIGNER_KEY, b.public(b.private_key("other"))))
    # PyNaCl is made of a package and two extension modules.
    allowed = ["cbor2", "nacl", "_cffi_backend", "_sodium"]
    found = run(VERIFY, json.dumps(allowed), json.dumps(modules), str(proof), ours, other)
    assert isinstance(found, dict)
    assert set(found.pop("tops")) <= {*allowed, "kt_es", "__main__"}
    assert found == {
        "label": b.label_of("alice"),
        "keys": ["laptop"],
        "other": "config",
        # Not False: a signature that cannot be checked is not called invalid.
        "p256": "cryptography",
    }


def test_the_commands_of_a_client_need_nothing_of_the_server() -> None:
    allowed = [
        *("cbor2", "nacl", "_cffi_backend", "_sodium", "cryptography", "_openssl", "structlog"),
        *("click", "httpx", "httpcore", "h11", "anyio", "idna", "certifi", "platformdirs"),
        # Of Pythons whose own module typing has less.
        "typing_extensions",
    ]
    loaded = run(COMMANDS_OF_CLIENT, json.dumps(allowed), json.dumps(CLIENT))
    assert isinstance(loaded, list)
    assert not [name for name in loaded if name.startswith(("kt_es.server", "kt_es.node", "kt_es.config"))]


def test_what_belongs_to_whom() -> None:
    assert set(CLIENT) == {
        *(
            "get",
            "put",
            "history",
            "watch",
            "verify",
            "keys",
            "revoke",
            "erase",
            "import",
            "epochs",
            "checkpoint",
            "receipt",
            "register",
        )
    }
    assert {COMMANDS[name].extra for name in SERVER} == {"server"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_with_one_short_line(name: str) -> None:
    command = load(name)
    assert command is not None
    assert command.name == name
    summary = COMMANDS[name].summary
    assert summary.endswith(".")
    assert len(summary) <= 64


@pytest.mark.parametrize("words", [(), ("--help",), ("--data", "x", "more"), ("backup", "--json")])
@pytest.mark.parametrize("name", SERVER)
def test_a_command_without_its_extra_names_it(
    name: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(ConfigError) as found:
        cli.main([name, *words], prog_name="kt", standalone_mode=False, obj={})
    assert found.value.exit_code == 2
    assert str(found.value) == (
        f"kt {name} needs an extra that is not installed (no module rocksdict): pip install 'kt-es[server]'"
    )


def help_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    cli.main(["--help"], prog_name="kt", standalone_mode=False, obj={})
    return capsys.readouterr().out.splitlines()


def listed(lines: list[str]) -> dict[str, set[str]]:
    """The commands under each heading of a help."""
    found: dict[str, set[str]] = {}
    for line in lines[lines.index("Commands:") :]:
        if line and not line.startswith(" "):
            found[heading := line] = set()
        elif line[2:3].strip():
            found[heading].add(line.split()[0])
    return found


def test_help_lists_every_command_and_imports_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"imports {name}"))
    assert listed(help_of(capsys)) == {"Commands:": set(COMMANDS)}
    monkeypatch.setitem(sys.modules, "uvloop", None)
    apart = "Not installed, see pip install 'kt-es[server]':"
    assert listed(help_of(capsys)) == {"Commands:": set(CLIENT), apart: set(SERVER)}


@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_that_is_installed_is_no_reason_to_stop(extra: str) -> None:
    require(extra, "this")


@pytest.mark.parametrize("library", ["esdbclient", "kurrentdbclient"])
def test_either_client_library_of_the_event_log_will_do(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "kurrentdbclient" if library == "esdbclient" else "esdbclient"
    monkeypatch.setattr(
        extras,
        "find_spec",
        lambda name: None if name == other else find_spec("sys" if name == library else name),
    )
    assert extras.missing("server") is None
    monkeypatch.setattr(
        extras, "find_spec", lambda name: None if name in (library, other) else find_spec(name)
    )
    assert extras.missing("server") in (library, other)


def test_an_import_of_a_keyring_asks_nobody_without_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pysequoia", None)
    (tmp_path / "keys.asc").write_text("")
    arguments = ["import", "openpgp", str(tmp_path / "keys.asc"), "--server", "http://192.0.2.1:1"]
    with pytest.raises(ConfigError, match=r"kt import openpgp needs .* pip install 'kt-es\[openpgp\]'"):
        cli.main(arguments, prog_name="kt", standalone_mode=False, obj={})


def test_an_erasure_by_the_operator_needs_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    (tmp_path / "kt.toml").write_text("")
    arguments = [
        "-c",
        str(tmp_path / "kt.toml"),
        "erase",
        "alice@example.org",
        "--operator",
        "--reason",
        "law",
    ]
    command = load("erase")
    assert isinstance(command, click.Command)
    reasons = next(parameter for parameter in command.params if parameter.name == "reason").type
    assert isinstance(reasons, click.Choice)
    arguments[-1] = next(iter(reasons.choices))
    with pytest.raises(ConfigError, match=r"reading .*kt.toml needs .* pip install 'kt-es\[server\]'"):
        cli.main(arguments, prog_name="kt", standalone_mode=False, obj={})
