"""``pip install kt-es`` without extras: the wheel in an environment of its own, with a running directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from kt_es.cli.main import COMMANDS
from kt_es.formats.notes import decode_base64
from tests.e2e.processes import Stranger, Up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "kt_es", "projections", "signer")
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILOC4CE3Vhb27VANntBp4tZ7MZ5xYgm3rWQfOPs9dMcM carol@example.org"
HEAVY = {
    *("esdbclient", "kurrentdbclient", "grpcio", "protobuf", "rocksdict", "pydantic"),
    *("httptools", "regex", "uvloop", "prometheus-client", "pysequoia"),
}

ASYNC = """
import asyncio, sys
from pathlib import Path
from kt_es.client import AsyncClient, FileStateStore, Pinned

async def main():
    state = FileStateStore(Path(sys.argv[3]))
    async with AsyncClient(sys.argv[1], state, pinned=Pinned.parse(sys.argv[2]), timeout=60.0) as client:
        found = await asyncio.gather(*(client.lookup(label) for label in sys.argv[4:]))
    print(*("absent" if lookup.absent else lookup.profile[0].name for lookup in found))

asyncio.run(main())
"""


class Light:
    """An environment with the wheel and what it requires."""

    def __init__(self, home: Path) -> None:
        self.python = home / "bin/python"
        self._home = home

    def pip(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        base = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        return subprocess.run(
            [*base, *map(str, words)], capture_output=True, text=True, timeout=300, check=False
        )

    def install(self) -> None:
        """Skips where there is no package index."""
        tree, wheels = self._home / "tree", self._home / "wheels"
        for name in PACKAGED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        probe = self.pip("download", "--no-deps", "--dest", self._home / "probe", "certifi")
        if probe.returncode != 0:
            pytest.skip("no package index can be reached")
        built = self.pip("wheel", "--no-deps", "--wheel-dir", wheels, tree)
        assert built.returncode == 0, built.stderr
        (wheel,) = wheels.glob("kt_es-*.whl")
        done = self.pip("--python", self.python, "install", "-c", ROOT / "constraints.txt", wheel)
        assert done.returncode == 0, done.stderr

    def run(self, *words: str | Path) -> str:
        done = subprocess.run(
            [str(self.python), *map(str, words)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Light:
    home = tmp_path_factory.mktemp("light") / "environment"
    venv.create(home, with_pip=False)
    (home / "tree").mkdir()
    made = Light(home)
    made.install()
    return made


@pytest.fixture
def user(light: Light, directory: Up, tmp_path: Path) -> Stranger:
    """Somebody with the light installation, who knows the directory."""
    return directory.stranger(tmp_path / "home", light.python.with_name("kt"))


def test_few_small_wheels(light: Light) -> None:
    program = "from importlib.metadata import distributions; print(*(made.name for made in distributions()))"
    names = {name.lower().replace("_", "-") for name in light.run("-c", program).split()}
    assert "kt-es" in names
    assert not names & HEAVY
    assert len(names) < 20
    assert "py.typed" in light.run(
        "-c", "import kt_es, os; print(os.listdir(os.path.dirname(kt_es.__file__)))"
    )


def test_every_command_is_listed_and_those_of_the_server_name_what_to_install(user: Stranger) -> None:
    told = user.kt("--help").out
    for name, entry in COMMANDS.items():
        assert f"  {name} " in told
        if entry.extra is None:
            assert f"Usage: kt {name} " in user.kt(name, "--help").out
        else:
            for words in ((), ("--help",)):
                complaint = user.kt(name, *words, code=2).complaint
                assert f"pip install 'kt-es[{entry.extra}]'" in complaint
    failure = user.kt("--json", "signer", code=2).document["error"]
    assert (failure["exit_code"], failure["kind"]) == (2, "unusable")


def test_an_account_from_its_keys_to_a_saved_proof(user: Stranger, light: Light, directory: Up) -> None:
    label = "carol@example.org"
    keys = user.home / "keys"
    keys.write_text(SSH_KEY + "\n")
    user.kt("keys", "generate")
    user.kt("keys", "generate", "paper", "--algorithm", "p256")
    assert user.kt("get", label, code=3).out == ""
    user.kt("import", "ssh", keys)
    assert SSH_KEY.split()[1] in user.kt("get", label, "--out", "carol.proof").out
    verified = user.kt("--json", "verify", "carol.proof").document
    assert decode_base64(verified["keys"][0]["data"], "key").decode().split()[1] == SSH_KEY.split()[1]
    user.kt("put", label, "--add", keys, "--rotate-to", "paper", "--sign-with", "default", "--yes")
    assert len(user.kt("--json", "history", label).document["versions"]) == 2
    user.kt("watch", "--once", label)
    user.kt("epochs", "--last", "2")
    assert user.kt("checkpoint").out.startswith("localhost/people/heads\n")
    looked = light.run(
        "-c", ASYNC, directory.url, directory.vkey, user.home / "async", label, "dave@example.org"
    )
    assert looked.split()[-1] == "absent"
    user.kt("erase", label, "--yes")
    assert "erased" in user.kt("get", label).out


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("import", "openpgp", "keys"), "openpgp"),
        (("erase", "carol@example.org", "--operator", "--reason", "law"), "server"),
    ],
)
def test_a_part_of_a_command_that_needs_an_extra_names_it(
    user: Stranger, words: tuple[str, ...], extra: str
) -> None:
    (user.home / "keys").write_text(SSH_KEY)
    complaint = user.kt(*words, code=2).complaint
    assert f"pip install 'kt-es[{extra}]'" in complaint
