"""``kt bench all`` with few entries: real processes, the real client, a real picture."""

from __future__ import annotations

import json
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from click.testing import CliRunner

from kt_es import extras
from kt_es.cli.main import cli
from kt_es.cli.trials import bench
from kt_es.cli.trials.akd import AkdProgram
from kt_es.cli.trials.bench_all import LEAST_ENTRIES, Amounts
from kt_es.cli.trials.figures import LIMITS
from kt_es.cli.trials.picture import DPI, INCHES
from kt_es.cli.trials.scale import ScaleDirectory
from kt_es.errors import ConfigError, KtError
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES

TINY = Amounts(turns=3, updates=60, mutations=40, sample=20, absent=20, seconds=0.1)
SIZES = (150, 300)
BESIDE = {
    ("map", "updates"): {"hashing"},
    ("signer", "mutations"): {"ed25519", "appends", "akd"},
    ("replica", "records"): {"ed25519"},
    ("replica", "kt audit, whole"): {"ed25519"},
    ("front end", "lookups"): {"constant"},
    ("log", "appends"): {"disk"},
}
"""The figures that have limits, with the names of these in ``LIMITS``."""
OTHERS = {
    *(("map", name) for name in ("bulk load", "disk, with entries", "hashes of an update")),
    *(("map", name) for name in ("cost of an update", "processor time of it")),
    *((part, "peak memory") for part in ("map", "signer", "replica", "front end", "log")),
    *(("front end", f"lookups, {which}") for which in ("each first", "absent labels")),
    *(("front end", f"lookup, {which}") for which in ("p50", "p99")),
    *(("signer", "with its verifiers"), ("log", "disk")),
}


def akd_program(folder: Path, program: str) -> Path:
    """Write a program that speaks as ``tools/akd`` does: a line for the filling, and one for each turn."""
    path = folder / "akd-publish"
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{program}\n")
    path.chmod(0o755)
    return path


ANSWERING = """
print(json.dumps({"labels": int(sys.argv[1]), "labels_per_second": 7.0}), flush=True)
for turn, _ in enumerate(sys.stdin, 1):
    print(json.dumps({"labels": int(sys.argv[2]), "labels_per_second": 100.0 * turn}), flush=True)
"""


@pytest.mark.timeout(600)
def test_every_part_is_measured_at_every_size_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, the optional group plot, is not installed")
    monkeypatch.setattr(bench, "Amounts", lambda: TINY)
    picture = tmp_path / "picture.png"
    akd = akd_program(tmp_path, ANSWERING)
    sizes = ",".join(map(str, SIZES))
    arguments = ["--json", "bench", "all", "--sizes", sizes, "--turns", "1"]
    result = CliRunner().invoke(cli, [*arguments, "--plot", str(picture), "--akd", str(akd)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    figures = {(one["part"], one["name"], one["entries"]): one for one in report["figures"]}
    assert len(figures) == len(report["figures"])
    assert set(figures) == {(*which, size) for which in (*BESIDE, *OTHERS) for size in SIZES}
    for (part, name, _), one in figures.items():
        assert all(value > 0 for value in one["runs"]), (part, name)
        assert one["value"] == pytest.approx(median(one["runs"]))
        assert set(one["limits"]) == {LIMITS[key] for key in BESIDE.get((part, name), ())}
        for limit, values in one["limits"].items():
            assert len(one["runs"]) == len(values) == 1
            assert one["shares"][limit] == pytest.approx(one["value"] / median(values), abs=1e-4)
    for size in SIZES:
        check_agreement({(part, name): one for (part, name, at), one in figures.items() if at == size})
    assert f"{SIZES[1]:,} entries: signer, mutations: " in result.stderr
    check_png(picture)


def check_agreement(figures: dict[tuple[str, str], Any]) -> None:
    """Compare figures of one size that follow from each other, or that only one value is right for."""
    rates = figures["map", "updates"]["runs"]
    assert figures["map", "cost of an update"]["runs"] == pytest.approx([1e6 / rate for rate in rates])
    assert figures["signer", "mutations"]["limits"][LIMITS["akd"]] == [100.0]
    # A row of the map has an index, an entry hash and a mutation of over 200 bytes; the log one of 277.
    assert figures["map", "disk, with entries"]["value"] > 264
    assert figures["log", "disk"]["value"] > 277
    # A leaf and at least the node above it, and no more than a map of a few hundred random entries is deep.
    assert 2 <= figures["map", "hashes of an update"]["value"] < 20


def check_png(path: Path) -> None:
    """Check that a file is a PNG of the right size that shows something."""
    from matplotlib.image import imread

    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:])
    assert (width, height) == (INCHES[0] * DPI, INCHES[1] * DPI)
    pixels = imread(path)
    assert pixels.shape[:2] == (height, width)
    assert 0.005 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.5


def test_a_copy_of_the_store_is_complete_and_changes_nothing_in_the_original(tmp_path: Path) -> None:
    directory = ScaleDirectory(tmp_path)
    try:
        directory.fill(200, 10)
        key, row = b"k" * 40, ("entries", b"k" * 40, b"row")
        with directory.copy("one") as data:
            store = RocksStore.open(data, FAMILIES)
            first = dict(store.scan("entries"))
            store.write([row])
            store.compact()
            store.close()
        with directory.copy("two") as data:
            store = RocksStore.open(data, FAMILIES)
            second = dict(store.scan("entries"))
            store.close()
        assert not data.exists()
    finally:
        directory.close()
    assert len(first) == 200
    assert key not in second
    assert second == first


@pytest.mark.parametrize("program", ["sys.exit(3)", ANSWERING.partition("for")[0]])
def test_a_program_that_ends_is_an_error(tmp_path: Path, program: str) -> None:
    def one_turn() -> None:
        AkdProgram(akd_program(tmp_path, program), 100, 10).turn()

    with pytest.raises(KtError, match="ended without an answer"):
        one_turn()


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"akd-publish cannot be started .*tools/akd/README\.md"):
        AkdProgram(tmp_path / "akd-publish", 100, 10)


def failure(*arguments: str) -> Any:
    """Run ``kt bench``, which fails before it measures anything."""
    result = CliRunner().invoke(cli, ["bench", *arguments])
    assert result.exit_code != 0
    return result


def test_a_picture_needs_its_extra_a_format_and_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, the optional group plot, is not installed")
    wrong = failure("all", "--plot", str(tmp_path / "picture.txt")).exception
    assert isinstance(wrong, ConfigError)
    assert "must end in .png, .svg, .pdf" in str(wrong)
    wrong = failure("all", "--plot", str(tmp_path / "nowhere" / "picture.png")).exception
    assert isinstance(wrong, ConfigError)
    assert "there is no folder" in str(wrong)
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    wrong = failure("all", "--plot", str(tmp_path / "picture.png")).exception
    assert isinstance(wrong, ConfigError)
    assert "pip install 'kt-es[plot]'" in str(wrong)


@pytest.mark.parametrize("sizes", ["", "1e5", "1000,", "-5", "1_000", "१००", "9" * 12, "1000 2000"])
def test_sizes_are_numbers(sizes: str) -> None:
    result = failure("all", "--sizes", sizes)
    assert result.exit_code == 2
    assert "is no list of numbers such as" in result.stderr


def test_a_size_that_is_too_small_is_refused() -> None:
    result = failure("all", "--sizes", f"1000,{LEAST_ENTRIES - 1}")
    assert result.exit_code == 2
    assert f"at least {LEAST_ENTRIES}" in result.stderr
